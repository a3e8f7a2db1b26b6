package cli

import (
	"errors"
	"strings"
	"testing"

	"muster/bbs/event"
	"muster/bbs/lrp"
)

func actual(index int32, state lrp.State) lrp.Actual {
	a := lrp.Actual{State: state}
	a.Process, a.Index = "web", index
	return a
}

func changed(before, after *lrp.Actual) event.Event {
	return event.Event{Actual: &lrp.Change{Before: before, After: after}}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	running0, claimed1, running1 := actual(0, lrp.Running), actual(1, lrp.Claimed), actual(1, lrp.Running)
	p := newProgress(2, []lrp.Actual{running0, claimed1})
	if done, err := p.done(); done || err != nil {
		t.Errorf("one of two runs: %v, %v", done, err)
	}
	if got, want := p.text(), "1 of 2 running, 1 starting"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	p.apply([]event.Event{changed(&claimed1, &running1)})
	if done, err := p.done(); !done || err != nil {
		t.Errorf("both run: %v, %v", done, err)
	}

	// One too many is not done until it is gone.
	stopping := actual(2, lrp.Running)
	stopping.Retiring = true
	p.apply([]event.Event{changed(nil, &stopping)})
	if done, _ := p.done(); done {
		t.Error("done while an instance too many is stopping")
	}
	p.apply([]event.Event{changed(&stopping, nil)})
	if done, _ := p.done(); !done {
		t.Error("not done though it is gone")
	}

	var c *crashed
	p.apply([]event.Event{{Crash: &lrp.CrashReport{Key: running1.Key, Reason: "exit 3"}}})
	if _, err := p.done(); !errors.As(err, &c) || c.report.Reason != "exit 3" {
		t.Errorf("after a crash: %v", err)
	}
	unlucky := actual(0, lrp.Unclaimed)
	unlucky.PlacementError = "no room"
	var u *unplaced
	if _, err := newProgress(1, []lrp.Actual{unlucky}).done(); !errors.As(err, &u) {
		t.Errorf("not placed: %v", err)
	}
	unlucky.Explanation = &lrp.Explanation{Memory: 1, Remedy: "64 MB freed on c1"}
	if _, err := newProgress(1, []lrp.Actual{unlucky}).done(); err == nil || !strings.Contains(err.Error(), "no room; this would help: 64 MB freed on c1") {
		t.Errorf("not placed, and explained: %v", err)
	}
	unlucky.Explanation = &lrp.Explanation{Starting: 3, MaxStarting: 3}
	if done, err := newProgress(1, []lrp.Actual{unlucky}).done(); done || err != nil {
		t.Errorf("waiting for others to start: %v %v", done, err)
	}
}

func TestSimilar(t *testing.T) {
	t.Parallel()
	names := []string{"hello", "help", "web-front", "web-back", "worker"}
	for word, want := range map[string]string{"helo": "hello", "web": "web-front", "wroker": "worker", "zebra": ""} {
		got := similar(word, names)
		if (want == "") != (len(got) == 0) || want != "" && got[0] != want {
			t.Errorf("similar to %s: %v, want %q first", word, got, want)
		}
	}
}

func TestParseMiB(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int32{"64": 64, "64M": 64, "64mb": 64, "64MiB": 64, "2G": 2048, "0": 0} {
		if got, err := parseMiB(text); err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5G", "9999999G", "1T"} {
		if got, err := parseMiB(text); err == nil {
			t.Errorf("%q was taken for %d", text, got)
		}
	}
}
