package daemon

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Duration is a time.Duration that is written like 1m30s in files and flags.
type Duration time.Duration

// String returns the duration in Go's syntax.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration in Go's syntax.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration in Go's syntax.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms, 30s or 2m", text)
	}
	*d = Duration(v)
	return nil
}

// Secret is a string that is not shown when a configuration is printed.
type Secret string

// MarshalText masks the secret.
func (s Secret) MarshalText() ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	return []byte("(masked)"), nil
}

// UnmarshalText reads the secret.
func (s *Secret) UnmarshalText(text []byte) error { *s = Secret(text); return nil }

// errPrinted says that -print-config or -help did what was asked for.
var errPrinted = errors.New("printed")

// load fills cfg, a pointer to a struct that holds the defaults, from a YAML or JSON file and then
// from flags. Each field is named by its json tag, explained by its help tag, and has a flag of
// that name with dashes; the fields of nested structs are prefixed with the name of the struct,
// those of embedded structs are not. Unknown keys in the file are errors. A list is written a,b
// as a flag.
func load(name string, args []string, cfg any, out io.Writer) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(out)
	file := fs.String("config", "", "YAML or JSON `file` with the configuration; flags win over it")
	print := fs.Bool("print-config", false, "print the effective configuration and exit; secrets are masked")
	type setting struct {
		field reflect.Value
		value string
	}
	var settings []setting
	eachField(reflect.ValueOf(cfg).Elem(), "", func(key, help string, v reflect.Value) {
		def := ""
		if !v.IsZero() {
			def = fmt.Sprintf(" (default %v)", v.Interface())
		}
		set := func(s string) error {
			probe := reflect.New(v.Type()).Elem()
			if err := setField(probe, s); err != nil {
				return err
			}
			settings = append(settings, setting{v, s})
			return nil
		}
		flagName := strings.ReplaceAll(key, "_", "-")
		if v.Kind() == reflect.Bool {
			fs.BoolFunc(flagName, help+def, set)
		} else {
			fs.Func(flagName, help+def, set)
		}
	})
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return errPrinted
		}
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: settings are flags or keys of the -config file", fs.Arg(0))
	}
	if *file != "" {
		text, err := os.ReadFile(*file)
		if err != nil {
			return fmt.Errorf("read -config: %w", err)
		}
		if err := yaml.UnmarshalStrict(text, cfg); err != nil {
			return fmt.Errorf("-config %s: %w", *file, err)
		}
	}
	for _, s := range settings {
		if err := setField(s.field, s.value); err != nil {
			return err
		}
	}
	if *print {
		text, err := yaml.Marshal(cfg)
		if err != nil {
			return fmt.Errorf("print configuration: %w", err)
		}
		fmt.Fprintf(out, "%s", text)
		return errPrinted
	}
	return nil
}

// eachField visits the settable leaves of a configuration struct.
func eachField(v reflect.Value, prefix string, visit func(key, help string, v reflect.Value)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || key == "-" {
			continue
		}
		_, text := v.Field(i).Addr().Interface().(interface{ UnmarshalText([]byte) error })
		switch {
		case f.Type.Kind() == reflect.Struct && !text:
			p := prefix
			if key != "" {
				p += key + "_"
			}
			eachField(v.Field(i), p, visit)
		case key != "" && (text || slices.Contains(leafKinds, f.Type.Kind())):
			visit(prefix+key, f.Tag.Get("help"), v.Field(i))
		}
	}
}

var leafKinds = []reflect.Kind{reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64,
	reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float64, reflect.Slice}

func setField(v reflect.Value, s string) error {
	if u, ok := v.Addr().Interface().(interface{ UnmarshalText([]byte) error }); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
		return nil
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.String {
			return fmt.Errorf("can only be set in the configuration file")
		}
		v.Set(reflect.Zero(v.Type()))
		if s != "" {
			v.Set(reflect.ValueOf(strings.Split(s, ",")).Convert(v.Type()))
		}
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		v.SetBool(b)
		return nil
	}
	p := reflect.New(v.Type())
	if err := json.Unmarshal([]byte(s), p.Interface()); err != nil {
		return fmt.Errorf("%q is not a number of type %s", s, v.Type())
	}
	v.Set(p.Elem())
	return nil
}
