package server

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"muster/bbs/internal/hub"
	bbsv1 "muster/proto/bbs/v1"
)

// Each text of a request to watch reaches the member of the filter that it is about, and no other: a
// member that is forgotten would let everything pass.
func TestFilterOfAWatch(t *testing.T) {
	t.Parallel()
	want := map[protoreflect.Name]hub.Filter{
		"cell_id": {Cell: "x"}, "domain": {Domain: "x"}, "process_guid": {Process: "x"}, "task_guid": {Task: "x"},
	}
	fields := (&bbsv1.WatchRequest{}).ProtoReflect().Descriptor().Fields()
	texts := 0
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Kind() != protoreflect.StringKind {
			continue
		}
		texts++
		r := &bbsv1.WatchRequest{}
		r.ProtoReflect().Set(field, protoreflect.ValueOfString("x"))
		if got := filter(r); got != want[field.Name()] {
			t.Errorf("%s makes the filter %+v, want %+v", field.Name(), got, want[field.Name()])
		}
	}
	members := 0
	for i := range reflect.TypeFor[hub.Filter]().NumField() {
		if reflect.TypeFor[hub.Filter]().Field(i).Type.Kind() == reflect.String {
			members++
		}
	}
	if texts != members || texts != len(want) {
		t.Errorf("%d texts of a request for %d members of a filter", texts, members)
	}
}
