package record

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/cells/step"
)

// parseAll reads all records of a file.
func parseAll(t interface{ Fatalf(string, ...any) }, file []byte) []Record {
	var all []Record
	for line := range bytes.Lines(file) {
		if len(line) > MaxLine {
			t.Fatalf("a line of %d bytes, want at most %d", len(line), MaxLine)
		}
		r, err := Parse(line)
		if err != nil {
			t.Fatalf("%v", err)
		}
		all = append(all, r)
	}
	return all
}

func TestRecord(t *testing.T) {
	t.Parallel()
	at := time.Unix(12, 345)
	for _, c := range []struct {
		name, source, text, want string
		stream                   step.Stream
	}{
		{"plain", "APP/PROC/WEB", "hello  world", "12000000345 o APP/PROC/WEB hello  world\n", step.Stdout},
		{"standard error", "APP", "x", "12000000345 e APP x\n", step.Stderr},
		{"no source", "", "x", "12000000345 o - x\n", step.Stdout},
		{"a source that looks like none", "-", "x", "12000000345 o %2D x\n", step.Stdout},
		{"an odd source", "a b%\n\xff", "x", "12000000345 o a%20b%25%0A%FF x\n", step.Stdout},
		{"several lines", "a", "x\n\ny\rz", "12000000345 o a x\n12000000345 o a y\n12000000345 o a z\n", step.Stdout},
		{"nothing", "a", "", "", step.Stdout},
	} {
		got := Append([]byte("before\n"), Record{at, c.stream, c.source, c.text})
		if diff := cmp.Diff("before\n"+c.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestRecordsComeBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := Record{
			At:     time.Unix(0, rapid.Int64().Draw(t, "at")),
			Stream: rapid.SampledFrom([]step.Stream{step.Stdout, step.Stderr}).Draw(t, "stream"),
			Source: string(rapid.SliceOfN(rapid.Byte(), 0, MaxSource).Draw(t, "source")),
			Text:   rapid.StringMatching(`[^\r\n]+`).Draw(t, "text"),
		}
		if diff := cmp.Diff([]Record{r}, parseAll(t, Append(nil, r))); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestNoRecord(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"", "\n", "1 o a", "1 o a ", "x o a t", "1 x a t", "1 o %zz t", "1 o  t", "1 o a t\nt", "1 o a t\rt", "99999999999999999999 o a t",
		"1 o a " + strings.Repeat("x", MaxText+1), "1 o " + strings.Repeat("x", MaxSource+1) + " t",
	} {
		if r, err := Parse([]byte(line)); err == nil {
			t.Errorf("%.50q is %+v", line, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("12000000345 o APP hello\n"))
	f.Add([]byte("-1 e - x"))
	f.Add([]byte("1 o a%20b%2D \xff "))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		again := parseAll(t, Append(nil, r))
		if len(again) != 1 || again[0] != r {
			t.Fatalf("%q is %+v, and again %+v", line, r, again)
		}
	})
}

// naive is what Splitter does, for the whole output at once.
func naive(text []byte) []string {
	var lines []string
	for _, line := range bytes.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		for len(line) > MaxText {
			n := MaxText
			for n > MaxText-utf8.UTFMax && !utf8.RuneStart(line[n]) {
				n--
			}
			if n == MaxText-utf8.UTFMax {
				n = MaxText
			}
			lines, line = append(lines, string(line[:n])), line[n:]
		}
		lines = append(lines, string(line))
	}
	return lines
}

func TestSplitter(t *testing.T) {
	t.Parallel()
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"\n", "\r", "\r\n", "é", "€", "𝄞", "\xff", "a", strings.Repeat("b", MaxText), strings.Repeat("é", MaxText/2)}),
		rapid.String(),
		rapid.Map(rapid.IntRange(MaxText-5, MaxText+5), func(n int) string { return strings.Repeat("c", n) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "text"), ""))
		var s Splitter
		var got []string
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 3*MaxText/2)).Draw(t, "part")
			for line := range s.Lines(rest[:n]) {
				got = append(got, string(line))
			}
			rest = rest[n:]
		}
		for line := range s.Rest() {
			got = append(got, string(line))
		}
		if want := naive(text); !slices.Equal(want, got) {
			t.Fatalf("%d bytes are %d lines, want %d", len(text), len(got), len(want))
		}
		if len(s.tail) > 0 {
			t.Fatalf("%d bytes are left", len(s.tail))
		}
	})
}

func TestPiecesAreText(t *testing.T) {
	t.Parallel()
	for shift := range 4 {
		text := strings.Repeat("x", shift) + strings.Repeat("𝄞", MaxText/3)
		var s Splitter
		var whole string
		add := func(line []byte) {
			if !utf8.Valid(line) || len(line) > MaxText {
				t.Errorf("shifted by %d: a piece of %d bytes is cut inside a character", shift, len(line))
			}
			whole += string(line)
		}
		s.Lines([]byte(text))(func(line []byte) bool { add(line); return true })
		s.Rest()(func(line []byte) bool { add(line); return true })
		if whole != text {
			t.Errorf("shifted by %d: text is lost", shift)
		}
	}
}

// A splitter holds on to no more than the line that has no end yet.
func TestSplitterIsSmall(t *testing.T) {
	t.Parallel()
	var s Splitter
	for range s.Lines(bytes.Repeat([]byte("x"), 20*MaxText)) {
	}
	if len(s.tail) > MaxText || cap(s.tail) > 30*MaxText {
		t.Errorf("holds %d of %d bytes", len(s.tail), cap(s.tail))
	}
	for range s.Lines([]byte("\n")) {
	}
	if cap(s.tail) > keepTail {
		t.Errorf("holds %d bytes without a line", cap(s.tail))
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	at := time.Unix(12, 345).UTC()
	for _, e := range []step.Event{
		{At: at, Name: step.Begun},
		{At: at, Name: step.Wants, N: 3, Bytes: 77, Path: "/a b"},
		{At: at, Name: step.Ended, Result: step.Result{Failed: true, Reason: "x\ny", Code: 3, OutOfMemory: true}},
		{At: at, Name: step.Ended, Result: step.Result{Output: strings.Repeat("\x00", step.MaxResult)}},
	} {
		line, err := AppendEvent(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(line, []byte("\n")) != 1 || len(line) > MaxEvent {
			t.Errorf("%s is %d bytes in %d lines", e.Name, len(line), bytes.Count(line, []byte("\n")))
		}
		got, err := ParseEvent(line)
		if diff := cmp.Diff(e, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	for _, line := range []string{"", "panic: x", `{"Name":"other"}`, `{"Name":"ended"`} {
		if e, err := ParseEvent([]byte(line)); err == nil {
			t.Errorf("%q is %+v", line, e)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	text := bytes.Repeat([]byte("2026-01-01 GET /some/path 200 and some more text of a log line\n"), 250)
	o, at := NewOrigin(step.Stdout, "APP/PROC/WEB"), time.Now()
	var s Splitter
	var buf []byte
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		buf = buf[:0]
		for line := range s.Lines(text) {
			buf = o.Append(buf, at, line)
		}
	}
}
