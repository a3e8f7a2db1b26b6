package backlog

import (
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/cells"
)

// Much work that fits nowhere does not keep other work waiting, is tried together, and not all the time.
func TestHopelessWorkHoldsUpNobody(t *testing.T) { // K7
	t.Parallel()
	const hopeless = 100_000
	w := newWorld(t, "a")
	w.state("a", 99)
	big := process("big", 1000)
	big.DiskMB = 0
	w.b.SetProcess(big)
	for i := range int32(hopeless) {
		w.b.Change(lrp.Change{After: &lrp.Actual{Key: key("big", i), State: lrp.Unclaimed, Tag: lrp.ModificationTag{Epoch: "e"}}}, "")
	}
	if r := w.b.Round(w.now); r.Work != hopeless || len(r.Failures) != hopeless {
		t.Fatalf("%d pieces, %d failures", r.Work, len(r.Failures))
	}
	w.change(lrp.Unclaimed, "", 0)
	if r := w.round("a:0"); r.Work != 1 {
		t.Errorf("an auction over %d pieces, want the new one only", r.Work)
	}
	w.state("a", 100) // there may be more room
	at, ok := w.b.Next(w.now)
	if pause := at.Sub(w.now); !ok || pause != maxRetryPause {
		t.Errorf("all is tried again after %v, want %v", pause, maxRetryPause)
	}
	w.change(lrp.Unclaimed, "", 1)
	w.now = w.now.Add(time.Millisecond)
	if r := w.round("a:1"); r.Work != 1 {
		t.Errorf("an auction over %d pieces, want the new one only", r.Work)
	}
	w.now = at
	r := w.b.Round(w.now)
	if r.Work != hopeless || len(r.Failures) != 0 {
		t.Errorf("tried %d pieces and reported %d", r.Work, len(r.Failures))
	}
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	if r := w.b.Round(w.now); r.Work < hopeless || len(r.Failures) != maxRenewals {
		t.Errorf("tried %d pieces and renewed %d explanations, want %d", r.Work, len(r.Failures), maxRenewals)
	}
	if n := len(w.b.alarms.queue); n > hopeless+10 {
		t.Errorf("%d alarms for %d pieces", n, hopeless)
	}
}

// An order is not longer than what a cell takes at once.
func TestLongOrdersAreParted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	st := cells.State{
		Presence:  cells.Presence{Cell: "a", Capacity: cells.Resources{MemoryMB: 1, DiskMB: 1, Containers: 10_000}, RootFSProviders: map[string]cells.Provider{"docker": {}}},
		Available: cells.Resources{MemoryMB: 1, DiskMB: 1, Containers: 10_000},
	}
	if err := w.b.CellState("a", st, w.now); err != nil {
		t.Fatal(err)
	}
	w.b.SetProcess(process("p", 0))
	for i := range int32(maxOrder + 1) {
		w.change(lrp.Unclaimed, "", i)
	}
	r := w.b.Round(w.now)
	if len(r.Orders) != 2 || len(r.Orders[0].Instances) != maxOrder || len(r.Orders[1].Instances) != 1 {
		t.Fatalf("%d orders", len(r.Orders))
	}
	for _, o := range r.Orders {
		w.b.Answered(o, nil, Undone, w.now)
	}
	if waiting, coming, _ := w.b.Counts(); waiting != maxOrder+1 || coming != 0 {
		t.Errorf("%d wait, %d are coming", waiting, coming)
	}
}

// Work that fitted nowhere is tried again after a while, also when it was on its way to a cell in between.
func TestTheSafetyNetIsNeverLost(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(w *world){
		"refused": func(w *world) {
			r := w.b.Round(w.now)
			w.b.Next(w.now) // looks at the alarms while the work is on its way
			w.b.Answered(r.Orders[0], []cells.Refusal{{Instance: r.Orders[0].Instances[0], Reason: "no"}}, Delivered, w.now)
		},
		"claimed and free again": func(w *world) {
			w.b.Round(w.now)
			w.change(lrp.Claimed, "a", 0)
			w.state("a", 10, 0)
			w.b.Next(w.now)
			w.change(lrp.Unclaimed, "", 0)
			w.state("a", 5)
		},
		"claimed without an order, and free again": func(w *world) {
			w.change(lrp.Claimed, "a", 0)
			w.b.Next(w.now)
			w.change(lrp.Unclaimed, "", 0)
			w.state("a", 5)
		},
	} {
		w := newWorld(t, "a")
		w.state("a", 5)
		w.change(lrp.Unclaimed, "", 0)
		w.round("fail insufficient resources: memory")
		w.now = w.now.Add(DefaultLimits().RetryInterval - time.Second) // so that its alarm is the next to come
		w.state("a", 10)
		between(w)
		w.b.Round(w.now)
		at, ok := w.b.Next(w.now)
		if wait := at.Sub(w.now); !ok || wait > DefaultLimits().RetryInterval {
			t.Errorf("%s: the next try is in %v (%v)", name, wait, ok)
		}
	}
}
