package server

import (
	"slices"
	"testing"
	"time"

	"muster/cells/engine"
)

// A log that is read again after its newest lines were sent goes on behind them: after the clock was set back too, and
// when the lines themselves have been dropped meanwhile.
func TestBoundary(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	line := func(text string, minutes int) engine.Line {
		return engine.Line{At: noon.Add(time.Duration(minutes) * time.Minute), Source: "APP", Text: []byte(text)}
	}
	for name, test := range map[string]struct {
		last *engine.Line
		log  []engine.Line
		want []string
	}{
		"nothing was sent":           {nil, []engine.Line{line("a", 0), line("b", 1)}, []string{"a", "b"}},
		"the clock goes on":          {new(line("b", 1)), []engine.Line{line("a", 0), line("b", 1), line("c", 2)}, []string{"c"}},
		"the clock was set back":     {new(line("b", 1)), []engine.Line{line("a", 0), line("b", 1), line("c", -60), line("d", -59)}, []string{"c", "d"}},
		"back before it, too":        {new(line("c", -60)), []engine.Line{line("a", 0), line("b", 1), line("c", -60), line("d", -59)}, []string{"d"}},
		"the boundary is gone":       {new(line("b", 1)), []engine.Line{line("c", 2), line("d", 1)}, []string{"c", "d"}},
		"two lines at the very time": {new(line("b", 1)), []engine.Line{line("a", 1), line("b", 1), line("c", 1)}, []string{"c"}},
	} {
		var b boundary
		if test.last != nil {
			b = boundary{last: *test.last, youngest: line("", 1).At, behind: true}
		}
		var got []string
		for _, l := range test.log {
			if b.passed(l) {
				got = append(got, string(l.Text))
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: sent %q, want %q", name, got, test.want)
		}
	}
}
