package balance

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var testRules = Rules{FailedFor: 30 * time.Second, MaxInFlight: 2}

const now = int64(1000 * time.Second)

func TestChoose(t *testing.T) {
	t.Parallel()
	ok, failed, full, tried := State{}, State{Failed: now - 1}, State{InFlight: 2}, State{Tried: true}
	recovered := State{Failed: now - int64(30*time.Second)}
	for name, tc := range map[string]struct {
		states  []State
		start   uint32
		at      int
		verdict Verdict
	}{
		"none there":                        {nil, 5, 0, None},
		"in turn":                           {[]State{ok, ok, ok}, 4, 1, Chosen},
		"past the failed":                   {[]State{failed, ok}, 0, 1, Chosen},
		"past the full":                     {[]State{full, ok}, 0, 1, Chosen},
		"failure forgotten in time":         {[]State{recovered, ok}, 0, 0, Chosen},
		"all failed":                        {[]State{failed, failed}, 1, 1, Reset},
		"all full":                          {[]State{full, full}, 0, 0, Full},
		"the full and the failed":           {[]State{full, failed}, 0, 1, Reset},
		"all tried":                         {[]State{tried, tried}, 0, 0, None},
		"the rest failed before":            {[]State{tried, failed}, 0, 1, Chosen},
		"tried and full":                    {[]State{tried, full}, 0, 0, Full},
		"start wraps at the largest number": {[]State{ok, ok, ok}, 1<<32 - 1, 0, Chosen},
	} {
		at, verdict := Choose(len(tc.states), tc.start, now, testRules, func(i int) State { return tc.states[i] })
		if verdict != tc.verdict || verdict <= Reset && at != tc.at {
			t.Errorf("%s: got %d, %d", name, at, verdict)
		}
	}
}

// TestNeverWorseThanNeeded: whatever is chosen could be chosen, and a healthy one is left only for another.
func TestNeverWorseThanNeeded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		states := rapid.SliceOf(rapid.Custom(func(t *rapid.T) State {
			return State{
				Failed:   rapid.SampledFrom([]int64{0, now - 1, now - int64(time.Hour)}).Draw(t, "failed"),
				InFlight: rapid.IntRange(0, 3).Draw(t, "in flight"),
				Tried:    rapid.Bool().Draw(t, "tried"),
			}
		})).Draw(t, "states")
		healthy := func(s State) bool { return !s.Tried && s.InFlight < 2 && s.Failed != now-1 }
		any := false
		for _, s := range states {
			any = any || healthy(s)
		}
		at, v := Choose(len(states), rapid.Uint32().Draw(t, "start"), now, testRules, func(i int) State { return states[i] })
		if v <= Reset && (states[at].Tried || states[at].InFlight >= 2) {
			t.Fatalf("chose %+v", states[at])
		}
		if any && (v != Chosen || !healthy(states[at])) {
			t.Fatalf("a healthy one was passed over: %d, %d", at, v)
		}
	})
}

func TestEveryEndpointGetsItsShare(t *testing.T) {
	t.Parallel()
	got := make([]int, 7)
	for start := range uint32(7 * 100) {
		at, _ := Choose(7, start, now, testRules, func(int) State { return State{} })
		got[at]++
	}
	for i, n := range got {
		if n != 100 {
			t.Errorf("endpoint %d: %d of 700", i, n)
		}
	}
}
