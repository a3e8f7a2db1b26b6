package seal

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sealer(t testing.TB, active string, keys map[string]string) *Sealer {
	t.Helper()
	s, err := New(active, keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Old and new keys open after a change of the active one; the old one can go once nothing is sealed
// with it (bbs reference §19, encryption).
func TestChangeOfTheActiveKey(t *testing.T) {
	t.Parallel()
	before := sealer(t, "old", map[string]string{"old": "one"})
	both := sealer(t, "new", map[string]string{"old": "one", "new": "two"})
	after := sealer(t, "new", map[string]string{"new": "two"})
	old := before.Seal([]byte("value"), "place")
	plain, err := both.Open(old, "place")
	if err != nil || string(plain) != "value" {
		t.Fatalf("opened %q, %v; want the value that the old key sealed", plain, err)
	}
	again := both.Seal(plain, "place")
	if label, err := Label(again); err != nil || label != "new" {
		t.Errorf("sealed again with %q, %v; want the active key", label, err)
	}
	if !bytes.HasPrefix(again, Header("new")) || bytes.HasPrefix(old, Header("new")) {
		t.Error("a header tells the keys apart")
	}
	if plain, err := after.Open(again, "place"); err != nil || string(plain) != "value" {
		t.Errorf("opened %q, %v without the old key", plain, err)
	}
	if _, err := after.Open(old, "place"); !errors.Is(err, ErrUnknownLabel) || !strings.Contains(err.Error(), `"old"`) {
		t.Errorf("opened without its key: %v, want %v naming the label", err, ErrUnknownLabel)
	}
	if got := both.Labels(); !slices.Equal(got, []string{"new", "old"}) || both.Active() != "new" || !both.Knows("old") || after.Knows("old") {
		t.Errorf("labels %v, active %q", got, both.Active())
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		label := rapid.StringN(1, 30, MaxLabel).Draw(t, "label")
		plain, context := rapid.SliceOf(rapid.Byte()).Draw(t, "plain"), rapid.String().Draw(t, "context")
		s, err := New(label, map[string]string{label: rapid.StringN(1, 20, -1).Draw(t, "passphrase"), "other": "x"})
		if err != nil {
			t.Fatal(err)
		}
		sealed := s.Seal(plain, context)
		got, err := s.Open(sealed, context)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x, %v; want %x", got, err, plain)
		}
		if again := s.Seal(plain, context); bytes.Equal(again, sealed) {
			t.Fatal("sealed twice, the same bytes: the nonce repeats")
		}
		if len(plain) >= 8 && bytes.Contains(sealed, plain) {
			t.Fatal("the plain value is in the sealed one")
		}
	})
}

// No value opens that was changed in any bit, cut, lengthened, or moved to another place.
func TestTampering(t *testing.T) {
	t.Parallel()
	s := sealer(t, "k", map[string]string{"k": "one", "j": "one"}) // the same passphrase under another label
	sealed := s.Seal([]byte("value"), "column row 1")
	for i := range sealed {
		for bit := range 8 {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1 << bit
			if i == headerLen && changed[i] == 'j' {
				continue // the same key by another name
			}
			if plain, err := s.Open(changed, "column row 1"); err == nil {
				t.Fatalf("byte %d, bit %d changed: opened %q", i, bit, plain)
			}
		}
	}
	for n := range sealed {
		if plain, err := s.Open(sealed[:n], "column row 1"); err == nil {
			t.Fatalf("cut to %d bytes: opened %q", n, plain)
		}
	}
	for what, attempt := range map[string]struct {
		sealed  []byte
		context string
		want    error
	}{
		"lengthened":               {append(bytes.Clone(sealed), 0), "column row 1", ErrTampered},
		"moved to another row":     {sealed, "column row 2", ErrTampered},
		"without its context":      {sealed, "", ErrTampered},
		"nothing":                  {nil, "column row 1", ErrNotSealed},
		"plain":                    {[]byte{0, '{', '}'}, "column row 1", ErrNotSealed},
		"no label":                 {[]byte{Format, 0, 1, 2, 3}, "column row 1", ErrNotSealed},
		"too long a label":         {append([]byte{Format, MaxLabel + 1}, make([]byte, 300)...), "column row 1", ErrNotSealed},
		"label longer than itself": {[]byte{Format, 9, 'k'}, "column row 1", ErrNotSealed},
		"only a header":            {Header("k"), "column row 1", ErrTampered},
	} {
		if plain, err := s.Open(attempt.sealed, attempt.context); !errors.Is(err, attempt.want) {
			t.Errorf("%s: opened %q, %v; want %v", what, plain, err, attempt.want)
		}
	}
}

func TestWrongPassphrase(t *testing.T) {
	t.Parallel()
	right, wrong := sealer(t, "k", map[string]string{"k": "one"}), sealer(t, "k", map[string]string{"k": "two"})
	if plain, err := wrong.Open(right.Seal([]byte("value"), "c"), "c"); !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), `"k"`) {
		t.Errorf("opened %q, %v with another passphrase; want %v naming the label", plain, err, ErrTampered)
	}
}

// Labels have 1 to 127 bytes, passphrases one at least, and the active label is one of the keys
// (bbs reference §21). Each error names its field.
func TestBounds(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("l", MaxLabel)
	for what, c := range map[string]struct {
		active string
		keys   map[string]string
		want   []string // in the error; none: no error
	}{
		"one byte":            {"l", map[string]string{"l": "p"}, nil},
		"longest label":       {longest, map[string]string{longest: "p"}, nil},
		"too long a label":    {longest + "l", map[string]string{longest + "l": "p"}, []string{"keys", "128 bytes", "1 to 127"}},
		"empty label":         {"", map[string]string{"": "p"}, []string{"keys", "0 bytes"}},
		"empty passphrase":    {"l", map[string]string{"l": ""}, []string{"keys", "passphrase", `"l"`}},
		"unknown active":      {"m", map[string]string{"l": "p"}, []string{"active_key_label", `"m"`, `"l"`}},
		"no active":           {"", map[string]string{"l": "p"}, []string{"active_key_label"}},
		"no keys":             {"l", nil, []string{"keys is empty", "active_key_label"}},
		"everything at once":  {"m", map[string]string{"": "p", "n": ""}, []string{"0 bytes", `"n"`, "active_key_label"}},
		"not the wrong bytes": {"ü", map[string]string{"ü": "p"}, nil},
	} {
		s, err := New(c.active, maps.Clone(c.keys))
		if len(c.want) == 0 {
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if plain, err := s.Open(s.Seal([]byte("v"), "c"), "c"); err != nil || string(plain) != "v" {
				t.Errorf("%s: opened %q, %v", what, plain, err)
			}
			continue
		}
		for _, part := range c.want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want an error with %q", what, err, part)
			}
		}
	}
}

// On the path of every start, sealing and opening allocate the result and nothing else.
func TestAllocations(t *testing.T) {
	s := sealer(t, "key-2030-01", map[string]string{"key-2030-01": "one"})
	plain, context := make([]byte, 200), "actual_lrps.net_info p 0"
	sealed := s.Seal(plain, context)
	for what, f := range map[string]func(){
		"Seal": func() { s.Seal(plain, context) },
		"Open": func() {
			if _, err := s.Open(sealed, context); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n > 1 {
			t.Errorf("%s allocates %v times, want once", what, n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer(f, "k", map[string]string{"k": "one"})
	sealed := s.Seal([]byte("value"), "c")
	for _, seed := range [][]byte{nil, sealed, sealed[:5], Header("k"), {0, '{', '}'}, {Format, 255}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := s.Open(b, "c"); err == nil && !bytes.Equal(b, sealed) {
			t.Errorf("%x opened as %q", b, plain)
		}
		label, err := Label(b)
		if err == nil && !bytes.HasPrefix(b, Header(label)) {
			t.Errorf("%x has label %q, but not its header", b, label)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s := sealer(b, "key-2030-01", map[string]string{"key-2030-01": "one"})
	plain, context := make([]byte, 200), "actual_lrps.net_info p 0"
	sealed := s.Seal(plain, context)
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Seal(plain, context)
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Open(sealed, context); err != nil {
				b.Fatal(err)
			}
		}
	})
}
