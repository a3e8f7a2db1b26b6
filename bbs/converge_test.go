package bbs

import (
	"testing"
	"time"

	"muster/bbs/converge"
	"muster/bbs/event"
	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
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
	q.see([]store.Record{
		{Message: wire.EncodeEvent(event.Event{Actual: &lrp.Change{After: &late}})},
		{Message: wire.EncodeEvent(event.Event{Actual: &lrp.Change{Before: &late}})}, // removed: no reason to remember it
		{Message: wire.EncodeEvent(event.Event{Desired: &event.DesiredChange{}})},
	})
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
