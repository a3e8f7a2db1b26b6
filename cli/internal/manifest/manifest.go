// Package manifest reads the files of "muster desire": YAML or JSON documents of DesiredLRPs, with
// the keys of the wire message. A key that does not exist is an error that says where, and which
// ones do; nothing is ever ignored.
//
// One thing is easier to write than on the wire: a value below routes is plain YAML or JSON, not the
// encoded bytes of it.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	bbsv1 "muster/proto/bbs/v1"
)

// MaxBytes is the longest file that is read.
const MaxBytes = 16 << 20

// Read reads all documents of a file; name is for its errors. It returns no document at all when
// one of them is wrong, and at least one when none is.
func Read(name string, r io.Reader) ([]*bbsv1.DesiredLRP, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, MaxBytes)
	}
	documents, err := split(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(documents) == 0 {
		return nil, fmt.Errorf("%s: no document in it: want a DesiredLRP as YAML or JSON", name)
	}
	var out []*bbsv1.DesiredLRP
	for i, d := range documents {
		where := name
		if len(documents) > 1 {
			where = fmt.Sprintf("%s, document %d", name, i+1)
		}
		m, err := parse(d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// split takes the documents apart. JSON documents may follow each other without a separator.
func split(text []byte) ([][]byte, error) {
	if t := bytes.TrimSpace(text); len(t) > 0 && t[0] == '{' {
		if parts, err := splitJSON(t); err == nil {
			return parts, nil
		} // YAML knows braces too
	}
	decoder := yamlv3.NewDecoder(bytes.NewReader(text))
	var out [][]byte
	for {
		var node yamlv3.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(node.Content) == 1 && node.Content[0].Tag == "!!null" {
			continue // an empty document, as after a last ---
		}
		part, err := yamlv3.Marshal(&node)
		if err != nil {
			return nil, err
		}
		out = append(out, part)
	}
}

func splitJSON(text []byte) ([][]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	var out [][]byte
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
}

func parse(document []byte) (*bbsv1.DesiredLRP, error) {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	top, ok := tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want an object with the keys of a DesiredLRP, got %s", kindOf(tree))
	}
	if err := encodeRoutes(top); err != nil {
		return nil, err
	}
	m := &bbsv1.DesiredLRP{}
	if err := checkMessage("", top, m.ProtoReflect().Descriptor()); err != nil {
		return nil, err
	}
	text, err = json.Marshal(top)
	if err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(text, m); err != nil {
		// Not the library's prefix, which changes on purpose from build to build.
		_, message, found := strings.Cut(err.Error(), "): ")
		if !found {
			message = err.Error()
		}
		return nil, errors.New(message)
	}
	return m, nil
}

// encodeRoutes turns {routes: {GROUP: VALUE}} into what the wire wants: the bytes of the value, and
// one more level of names.
func encodeRoutes(top map[string]any) error {
	value, ok := top["routes"]
	if !ok || value == nil {
		return nil
	}
	groups, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("key routes: want an object of router groups such as cf-router, got %s", kindOf(value))
	}
	encoded := map[string]any{}
	for group, v := range groups {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("key routes.%s: %w", group, err)
		}
		encoded[group] = bytes.TrimSpace(text.Bytes()) // json.Marshal makes base64 of it
	}
	top["routes"] = map[string]any{"routes": encoded}
	return nil
}

// checkMessage looks for keys that a message does not have, in it and below it.
func checkMessage(path string, object map[string]any, d protoreflect.MessageDescriptor) error {
	keys := make([]string, 0, len(object))
	for k := range object {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		f := d.Fields().ByName(protoreflect.Name(k))
		if f == nil {
			f = d.Fields().ByJSONName(k)
		}
		if f == nil {
			return &UnknownKey{Path: join(path, k), Known: fieldNames(d)}
		}
		if err := checkField(join(path, k), object[k], f); err != nil {
			return err
		}
	}
	return nil
}

func checkField(path string, value any, f protoreflect.FieldDescriptor) error {
	switch {
	case value == nil:
		return nil
	case f.IsMap():
		object, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("key %s: want an object, got %s", path, kindOf(value))
		}
		for k, v := range object {
			if err := checkField(join(path, k), v, f.MapValue()); err != nil {
				return err
			}
		}
		return nil
	case f.IsList():
		list, ok := value.([]any)
		if !ok {
			return fmt.Errorf("key %s: want a list, got %s", path, kindOf(value))
		}
		for i, v := range list {
			if err := checkValue(fmt.Sprintf("%s[%d]", path, i), v, f); err != nil {
				return err
			}
		}
		return nil
	}
	return checkValue(path, value, f)
}

// checkValue checks one value, which may be that of a map or of a list.
func checkValue(path string, value any, f protoreflect.FieldDescriptor) error {
	switch kind := f.Kind(); kind {
	case protoreflect.MessageKind:
		object, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("key %s: want an object, got %s", path, kindOf(value))
		}
		return checkMessage(path, object, f.Message())
	case protoreflect.StringKind:
		if _, ok := value.(string); !ok {
			return fmt.Errorf("key %s: want a text, got %s: put it in quotes", path, kindOf(value))
		}
	case protoreflect.BoolKind:
		if _, ok := value.(bool); !ok {
			return fmt.Errorf("key %s: want true or false, got %s", path, kindOf(value))
		}
	case protoreflect.EnumKind, protoreflect.BytesKind:
	default:
		if _, ok := value.(json.Number); !ok {
			return fmt.Errorf("key %s: want a number, got %s", path, kindOf(value))
		}
	}
	return nil
}

// UnknownKey says that a file has a key that does not exist.
type UnknownKey struct {
	Path  string
	Known []string // what could stand in its place
}

// Error names the key and its siblings.
func (u *UnknownKey) Error() string {
	return fmt.Sprintf("key %s is unknown; known are %s", u.Path, strings.Join(u.Known, ", "))
}

func fieldNames(d protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range d.Fields().Len() {
		if n := string(d.Fields().Get(i).Name()); !strings.HasPrefix(n, "deprecated_") {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return fmt.Sprintf("the text %q", v)
	case bool:
		return fmt.Sprint(v)
	case json.Number:
		return "the number " + v.String()
	}
	return fmt.Sprintf("%T", v)
}
