package lrp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// The fuzz targets of this file build requests of any content from bytes, member by member, so that
// members added later are covered. Their seeds run with every test; `go test -fuzz` looks for more.

// source turns bytes into values. When it is exhausted everything is zero.
type source struct{ rest []byte }

func (s *source) byte() byte {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

func (s *source) number() int64 {
	var b [8]byte
	switch n := s.byte(); n % 8 {
	case 0: // most often something small, and the bounds of types
		return int64(n / 8)
	case 1:
		return -int64(n / 8)
	case 2:
		return []int64{65_535, 65_536, 1<<31 - 1, -1 << 31, 1<<63 - 1, -1 << 63, MaxInstances, MaxInstances + 1}[n/32]
	default:
		for i := range b {
			b[i] = s.byte()
		}
		return int64(binary.LittleEndian.Uint64(b[:]))
	}
}

// text draws what is likely to matter: names, what a rule looks for, very long texts, and anything.
func (s *source) text() string {
	words := []string{
		"", "a", "app-1_b", "cf-apps", "docker://registry/app", "preloaded:cflinuxfs4", "source_id", "cf-router", "10.0.0.0/8", "10.0.0.1-10.0.0.9",
		"tcp", "udp", "icmp", "all", "md5", "SHA256", "r", "rw", "a\x00b", "\xff\xfe", "ä€𝄞", strings.Repeat("x", 255), strings.Repeat("ä", 256),
		strings.Repeat("y", MaxAnnotationBytes+1), `[{"hostnames":["a.example"],"port":8080}]`, `{"no":"list"}`, "null",
	}
	n := int(s.byte())
	if n < 2*len(words) {
		return words[n/2]
	}
	n = min(n%32, len(s.rest))
	text := string(s.rest[:n])
	s.rest = s.rest[n:]
	return text
}

// maxFilled bounds the elements of a list and, with the bytes there are, the depth of actions.
const maxFilled = 3

// fill sets a value and all that it holds.
func (s *source) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(s.number()%1e10, 0)))
			return
		}
		for i := range v.NumField() {
			s.fill(v.Field(i))
		}
	case reflect.Pointer:
		if s.byte()%3 > 0 && len(s.rest) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			s.fill(v.Elem())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(s.text()))
			return
		}
		for range s.byte() % (maxFilled + 1) {
			element := reflect.New(v.Type().Elem()).Elem()
			s.fill(element)
			v.Set(reflect.Append(v, element))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range s.byte() % (maxFilled + 1) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			s.fill(key)
			s.fill(value)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(s.text())
	case reflect.Bool:
		v.SetBool(s.byte()%2 == 0)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(s.number())
	case reflect.Uint32, reflect.Uint8, reflect.Uint64:
		v.SetUint(uint64(s.number()))
	default:
		panic("no value of kind " + v.Kind().String())
	}
}

// seed adds as many random inputs as a normal test run can afford.
func seed(f *testing.F) {
	f.Add([]byte{})
	r := rand.New(rand.NewPCG(7, 11))
	for range 300 {
		data := make([]byte, r.IntN(3000))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
}

// checkVerdict checks what holds for every answer of a validation, and returns whether it was yes.
func checkVerdict(t *testing.T, err, again error) bool {
	t.Helper()
	if diff := cmp.Diff(err, again); diff != "" {
		t.Errorf("equal requests, different answers:\n%s", diff)
	}
	if err == nil {
		return true
	}
	var invalid *Invalid
	if !errors.As(err, &invalid) || len(invalid.Fields) == 0 || len(invalid.Fields) > MaxFieldErrors {
		t.Fatalf("answered with %#v", err)
	}
	for _, f := range invalid.Fields {
		if f.Field == "" || f.Problem == "" || len(f.Value) > maxShownBytes+len("…") {
			t.Errorf("field error %+v", f)
		}
		if !utf8.ValidString(f.String()) {
			t.Errorf("%q cannot be sent", f.String())
		}
	}
	return false
}

func FuzzDesired(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &source{data}
		d := valid()
		// Half of them are valid but for one member, or few would get past the first rules.
		if v := reflect.ValueOf(&d).Elem(); s.byte()%2 == 0 {
			s.fill(v.Field(int(s.byte()) % v.NumField()))
		} else {
			s.fill(v)
		}
		if !checkVerdict(t, d.Validate(), d.Validate()) {
			return
		}
		size := 0
		for _, route := range d.Routes {
			size += len(route)
		}
		for what, holds := range map[string]bool{
			"names":   d.Process != "" && d.Domain != "" && len(d.Process) <= MaxNameLength && utf8.RuneCountInString(string(d.Domain)) <= MaxNameLength,
			"amounts": d.Instances >= 0 && d.Instances <= MaxInstances && d.MemoryMB >= 0 && d.DiskMB >= 0 && d.MaxPids >= 0,
			"sizes":   len(d.Annotation) <= MaxAnnotationBytes && size <= MaxRoutesBytes && utf8.RuneCountInString(d.RootFS) <= MaxRootFSLength,
			"texts":   utf8.ValidString(d.Annotation+string(d.Domain)+d.RootFS) && !strings.Contains(d.Annotation+string(d.Domain)+d.RootFS, "\x00"),
			"recipe":  d.RunInfo.Action != nil && len(d.MetricTags) > 0,
		} {
			if !holds {
				t.Errorf("%s of an accepted record break a rule: %+v", what, d)
			}
		}
	})
}

func FuzzUpdate(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var u Update
		(&source{data}).fill(reflect.ValueOf(&u).Elem())
		if !checkVerdict(t, u.Validate(), u.Validate()) {
			return
		}
		// What is accepted alone and for a record leaves that record valid.
		if u.ValidateFor(valid()) == nil {
			d := u.Apply(valid())
			d.RunInfo.MetricsGUID = "" // an older way to say what a metric tag says; tags win
			if (d.RunInfo.ImageUsername == "") != (d.RunInfo.ImagePassword == "") {
				return // half of the credentials can be cleared; the record keeps what it is given
			}
			if err := d.Validate(); err != nil {
				t.Errorf("%+v makes a valid record invalid: %v", u, err)
			}
		}
	})
}

// FuzzEvent lets events of any content happen to any group. Whatever they hold, the answer is one of
// three, and nothing that is accepted breaks a record.
func FuzzEvent(f *testing.F) {
	seed(f)
	all, names := groups(), EventNames()
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &source{data}
		g := all[(int(s.byte())<<8|int(s.byte()))%len(all)]
		var ev Event
		if s.byte()%2 == 0 {
			s.fill(reflect.ValueOf(&ev).Elem())
			ev.Name = names[int(s.byte())%len(names)]
		} else { // mostly right
			ev = reportOf(names[int(s.byte())%len(names)], []InstanceKey{alice, bob, susan, evan, nobody}[s.byte()%5])
			v := reflect.ValueOf(&ev).Elem()
			s.fill(v.Field(int(s.byte()) % v.NumField()))
		}
		if s.byte()%4 > 0 {
			ev.Key.Slot = testKey.Slot
		}
		ev.Epoch = "new"
		valid := checkVerdict(t, ev.Validate(), ev.Validate())
		out, err := Apply(g, ev, testNow)
		var refused *Refusal
		switch {
		case !valid && err == nil:
			t.Fatalf("an invalid event was applied: %+v", ev)
		case errors.As(err, &refused):
			if refused.Why == "" || !utf8.ValidString(refused.Error()) {
				t.Errorf("refused with %q", refused.Error())
			}
		case err == nil:
			if broken := out.Group.Check(); broken != nil {
				t.Errorf("%+v breaks a record: %v", ev, broken)
			}
			for _, a := range out.Group.instances() {
				if a != nil && (!utf8.ValidString(a.PlacementError+a.CrashReason) || len(a.PlacementError) > MaxReasonBytes || len(a.CrashReason) > MaxReasonBytes) {
					t.Errorf("%s cannot be stored", showVersion(a))
				}
			}
		}
		if err != nil && len(Diff(g, out.Group)) > 0 {
			t.Errorf("%+v failed (%v) and changed the group", ev, err)
		}
	})
}
