package bbs

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"muster/bbs/converge"
	"muster/bbs/event"
	"muster/bbs/internal/hub"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/cells"
)

func crashedAt(process string, since time.Time) lrp.Actual {
	return lrp.Actual{Key: key(process, 0), State: lrp.Crashed, CrashCount: lrp.ImmediateRestarts + 1, Since: since}
}

// told reports whether the converger was told to look at the queue again.
func told(q *restarts) bool {
	select {
	case <-q.sooner:
		return true
	default:
		return false
	}
}

func slots(steps []converge.Step) (all []string) {
	for _, s := range steps {
		all = append(all, string(s.Event.Key.Process))
	}
	return all
}

// What is committed as CRASHED is restarted when it is due: once, the soonest first, and the converger
// is woken only for something that is due sooner than what it waits for.
func TestRestarts(t *testing.T) {
	t.Parallel()
	q := newRestarts()
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, ok := q.next(); ok {
		t.Error("an empty queue has something to wait for")
	}
	late, soon := crashedAt("late", begin.Add(time.Minute)), crashedAt("soon", begin)
	for _, ev := range []event.Event{
		{Actual: &lrp.Change{After: &late}},
		{Actual: &lrp.Change{Before: &late}}, // removed: no reason to remember it
		{Desired: &event.DesiredChange{}},
	} {
		r := recordOf(t, ev)
		q.see(&r)
	}
	if !told(q) {
		t.Error("nobody was told of the first one")
	}
	q.add(soon, begin)
	if !told(q) {
		t.Error("nobody was told of a sooner one")
	}
	q.add(late, begin)
	q.add(crashedAt("over", begin.Add(-time.Hour)), begin) // due already: the plan has it
	q.add(lrp.Actual{Key: key("running", 0), State: lrp.Running}, begin)
	if told(q) || len(q.queue) != 2 {
		t.Errorf("%d are remembered, want the two that become due", len(q.queue))
	}
	due, ok := q.next()
	if want := begin.Add(lrp.MinBackOff); !ok || !due.Equal(want) {
		t.Errorf("next is due at %v, want %v", due, want)
	}
	if got := slots(q.take(due.Add(-1))); len(got) != 0 {
		t.Errorf("%v restart too soon", got)
	}
	// It restarted by other means and crashed again: only the newer back-off counts.
	q.add(crashedAt("soon", begin.Add(2*time.Minute)), begin)
	if got := slots(q.take(due)); len(got) != 0 {
		t.Errorf("%v restart by a back-off that is no longer theirs", got)
	}
	if got := slots(q.take(begin.Add(time.Hour))); len(got) != 2 || got[0] != "late" || got[1] != "soon" {
		t.Errorf("%v restart, want late and soon", got)
	}
	if len(q.queue) != 0 || len(q.known) != 0 {
		t.Errorf("%d entries and %d slots are remembered for nothing", len(q.queue), len(q.known))
	}
}

// recordOf returns the entry of the log of a change.
func recordOf(t *testing.T, ev event.Event) store.Record {
	t.Helper()
	r, err := store.NewRecord(ev)
	must(t, err)
	return r
}

// What the log tells of is noted: crashed instances, cells that fell silent or came back, and what
// happens on such a cell after it was dealt with.
func TestSee(t *testing.T) {
	t.Parallel()
	h := hub.New(quiet(), 0)
	c := newConverger(quiet(), nil, h, newMetrics(h), ConvergeOptions{}, store.Fence{})
	lost := map[lrp.CellID]bool{}
	on := func(cell lrp.CellID, presence lrp.Presence) *lrp.Actual {
		return &lrp.Actual{Key: key("p", 0), InstanceKey: lrp.InstanceKey{Instance: "i", Cell: cell}, State: lrp.Running, Presence: presence}
	}
	crashed := crashedAt("q", time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	small, large := cells.Presence{Cell: "c"}, cells.Presence{Cell: "c", Zone: "z"}
	for _, tt := range []struct {
		name string
		ev   event.Event
		want []lrp.CellID
	}{
		{"a new cell", event.Event{Cell: &event.CellChange{After: &small}}, []lrp.CellID{"c"}},
		{"a cell says something else", event.Event{Cell: &event.CellChange{Before: &small, After: &large}}, nil},
		{"an instance starts", event.Event{Actual: &lrp.Change{After: on("c", lrp.Ordinary)}}, nil},
		{"a cell falls silent", event.Event{Cell: &event.CellChange{Before: &large}}, []lrp.CellID{"c"}},
		{"its instances become suspect", event.Event{Actual: &lrp.Change{After: on("c", lrp.Suspect)}}, nil},
		{"a start was on its way", event.Event{Actual: &lrp.Change{After: on("c", lrp.Ordinary)}}, []lrp.CellID{"c"}},
		{"an instance there reports", event.Event{Actual: &lrp.Change{Before: on("c", lrp.Ordinary), After: on("c", lrp.Ordinary)}}, nil},
		{"the cell is back", event.Event{Cell: &event.CellChange{After: &large}}, []lrp.CellID{"c"}},
		{"a plan was on its way", event.Event{Actual: &lrp.Change{Before: on("c", lrp.Ordinary), After: on("c", lrp.Suspect)}}, []lrp.CellID{"c"}},
		{"an instance crashes", event.Event{Actual: &lrp.Change{After: &crashed}}, nil},
		{"a record goes", event.Event{Actual: &lrp.Change{Before: &crashed}}, nil},
	} {
		r := recordOf(t, tt.ev)
		c.see([]*store.Record{&r}, lost)
		if got := c.changed.take(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: to look at are %v, want %v", tt.name, got, tt.want)
		}
	}
	if due, ok := c.restart.next(); !ok || !due.Equal(crashed.Since.Add(lrp.MinBackOff)) {
		t.Errorf("the crashed instance is due at %v (%v)", due, ok)
	}
}

// Cells are taken in portions, each once.
func TestChangedCells(t *testing.T) {
	t.Parallel()
	q := newChangedCells()
	var want []lrp.CellID
	for i := range cellsAtOnce + 1 {
		want = append(want, lrp.CellID(fmt.Sprint(i)))
		q.add(want[i], want[0])
	}
	<-q.ready
	got := q.take()
	if len(got) != cellsAtOnce {
		t.Errorf("%d at once, want %d", len(got), cellsAtOnce)
	}
	q.add(want[0]) // again, since it was taken
	if rest := append(got, q.take()...); !slices.Equal(rest, append(want, want[0])) {
		t.Errorf("took %v, want %v and the first one again", rest, want)
	}
}
