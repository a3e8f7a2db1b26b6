package guest

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/step"
)

// fill sets every field below v to something that is not its zero value; actions only so deep.
func fill(t *testing.T, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*lrp.Action]() && depth == 0 {
			return
		}
		if v.Type() == reflect.TypeFor[*lrp.Action]() {
			depth--
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				t.Errorf("%s.%s is not exported", v.Type(), v.Type().Field(i).Name)
				continue
			}
			fill(t, v.Field(i), depth)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i), depth)
		}
	case reflect.String:
		v.SetString("a <b> & \"c\" \u2028 é\n\x01")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1<<62 + 1)
	case reflect.Uint64:
		v.SetUint(1<<63 + 1)
	default:
		t.Errorf("%s: no value for it", v.Type())
	}
}

// Every field of a program arrives in the container.
func TestProgramComesBack(t *testing.T) {
	t.Parallel()
	var p step.Program
	fill(t, reflect.ValueOf(&p).Elem(), 2)
	for _, want := range []step.Program{p, {}} {
		var got step.Program
		check(t, json.Unmarshal(encode(t, want), &got))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
