package record

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/cells/engine"
)

// split returns the lines of a text that comes in parts.
func split(parts ...string) []string {
	var s Splitter
	var lines []string
	add := func(line []byte) { lines = append(lines, string(line)) }
	for _, part := range parts {
		s.Split([]byte(part), add)
	}
	s.Flush(add)
	return lines
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		in   []string
		want []string
	}{
		{"nothing", nil, nil},
		{"lines", []string{"a\nb\n"}, []string{"a", "b"}},
		{"empty ones are left out", []string{"\n\na\n\n"}, []string{"a"}},
		{"carriage returns", []string{"50%\r100%\r\ndone"}, []string{"50%", "100%", "done"}},
		{"over parts", []string{"a", "b\nc", "", "d\n"}, []string{"ab", "cd"}},
	} {
		if diff := cmp.Diff(row.want, split(row.in...)); diff != "" {
			t.Errorf("%s: %s", row.name, diff)
		}
	}
}

// TestAnyPartsAreTheSameLines splits a text in parts of any size; no line is too long, and no character cut.
func TestAnyPartsAreTheSameLines(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]string{"a", "é", "€", "😀"}).Draw(t, "unit")
		text := strings.Repeat(unit, rapid.IntRange(0, 3*engine.MaxLine/len(unit)).Draw(t, "times")) + rapid.SampledFrom([]string{"", "\n", "\nmore"}).Draw(t, "end")
		var parts []string
		for rest := text; rest != ""; {
			n := min(len(rest), rapid.IntRange(1, 40_000).Draw(t, "part"))
			parts = append(parts, rest[:n])
			rest = rest[n:]
		}
		lines := split(parts...)
		for _, line := range lines {
			if len(line) > engine.MaxLine || !utf8.ValidString(line) {
				t.Fatalf("a line of %d bytes, valid: %v", len(line), utf8.ValidString(line))
			}
		}
		if strings.Join(lines, "") != strings.ReplaceAll(text, "\n", "") {
			t.Fatal("text is lost")
		}
	})
}
