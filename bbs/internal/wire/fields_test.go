package wire

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	bbsv1 "muster/proto/bbs/v1"
)

// firstOwnField is the number from which on messages of Diego carry fields of ours.
const firstOwnField = 1000

// TestFieldNumbers compares the fields of every Diego message in bbs.v1 with the table that existing
// clients rely on: none may be missing, differ or be too many.
func TestFieldNumbers(t *testing.T) {
	t.Parallel()
	want := map[string][]string{}
	for _, line := range table(t, "testdata/fields.txt", 5) {
		want[line[0]] = append(want[line[0]], strings.Join(line[1:], " "))
	}
	messages := messages()
	for name, fields := range want {
		m, ok := messages[name]
		if !ok {
			t.Errorf("message %s is gone", name)
			continue
		}
		if diff := cmp.Diff(normal(fields), normal(describe(m))); diff != "" {
			t.Errorf("%s (-promised +defined):\n%s", name, diff)
		}
	}
}

// TestEnumNumbers does the same for enums.
func TestEnumNumbers(t *testing.T) {
	t.Parallel()
	want := map[string][]string{}
	for _, line := range table(t, "testdata/enums.txt", 3) {
		want[line[0]] = append(want[line[0]], line[1]+" "+line[2])
	}
	got := map[string][]string{}
	for _, m := range messages() {
		for e := range all(m.Enums()) {
			for v := range all(e.Values()) {
				name := fmt.Sprintf("%s.%s", m.Name(), e.Name())
				got[name] = append(got[name], fmt.Sprintf("%d %s", v.Number(), v.Name()))
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("enums (-promised +defined):\n%s", diff)
	}
}

// table reads a file of columns; # starts a comment.
func table(t *testing.T, file string, columns int) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows [][]string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		row := strings.Fields(lines.Text())
		if len(row) == 0 || strings.HasPrefix(row[0], "#") {
			continue
		}
		if len(row) != columns {
			t.Fatalf("%s: %q has not %d columns", file, lines.Text(), columns)
		}
		rows = append(rows, row)
	}
	return rows
}

// messages are all messages of bbs.v1 by name.
func messages() map[string]protoreflect.MessageDescriptor {
	found := map[string]protoreflect.MessageDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage(bbsv1.File_bbs_v1_service_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for m := range all(file.Messages()) {
			found[string(m.Name())] = m
		}
		return true
	})
	return found
}

// describe writes the fields of a message as the table does.
func describe(m protoreflect.MessageDescriptor) []string {
	var fields []string
	for f := range all(m.Fields()) {
		if f.Number() >= firstOwnField {
			continue
		}
		fields = append(fields, fmt.Sprintf("%d %s %s %s", f.Number(), f.Name(), typeOf(f), label(f)))
	}
	return fields
}

func typeOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s,%s>", typeOf(f.MapKey()), typeOf(f.MapValue()))
	case f.Message() != nil:
		return string(f.Message().Name())
	case f.Enum() != nil:
		return string(f.Enum().Name())
	default:
		return f.Kind().String()
	}
}

func label(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map"
	case f.IsList() && f.Kind() == protoreflect.Uint32Kind && !f.IsPacked():
		return "unpacked"
	case f.IsList():
		return "rep"
	case f.ContainingOneof() != nil:
		return "oneof"
	default:
		return "opt"
	}
}

// normal drops what the wire does not show: Diego spells a few names with capitals.
func normal(fields []string) map[string]bool {
	set := map[string]bool{}
	for _, f := range fields {
		set[strings.ReplaceAll(strings.ToLower(f), "_", "")] = true
	}
	return set
}

// all ranges over a list of descriptors.
func all[D any](list interface {
	Len() int
	Get(int) D
}) func(yield func(D) bool) {
	return func(yield func(D) bool) {
		for i := range list.Len() {
			if !yield(list.Get(i)) {
				return
			}
		}
	}
}
