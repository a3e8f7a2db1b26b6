package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// contents are all records that the log tells of.
type contents struct {
	Desired map[lrp.ProcessGUID]lrp.SchedulingInfo
	Actuals map[instance]lrp.Actual
	Tasks   map[task.GUID]task.Task
	Cells   map[lrp.CellID]cells.Presence
}

func noContents() contents {
	return contents{
		map[lrp.ProcessGUID]lrp.SchedulingInfo{}, map[instance]lrp.Actual{}, map[task.GUID]task.Task{}, map[lrp.CellID]cells.Presence{},
	}
}

// instance is the identity of a row.
type instance struct {
	Slot     lrp.Slot
	Presence lrp.Presence
}

func of(a lrp.Actual) instance { return instance{a.Slot, a.Presence} }

// step replays one change of a kind of record; its past must be the one that the log told before.
func step[K comparable, V any](t testing.TB, revision uint64, records map[K]V, key func(V) K, before, after *V) {
	t.Helper()
	if before != nil {
		was, there := records[key(*before)]
		if diff := cmp.Diff(was, *before, cmpopts.EquateEmpty()); !there || diff != "" {
			t.Fatalf("event %d tells another past than the log before it (-log +event):\n%s", revision, diff)
		}
		delete(records, key(*before))
	}
	if after != nil {
		if was, there := records[key(*after)]; there {
			t.Fatalf("event %d puts %+v where the log has %+v", revision, *after, was)
		}
		records[key(*after)] = *after
	}
}

// replay is what the log says the records are.
func replay(t testing.TB, log []event.Event) contents {
	t.Helper()
	c := noContents()
	for _, ev := range log {
		switch {
		case ev.Desired != nil:
			step(t, ev.Revision, c.Desired, func(d lrp.SchedulingInfo) lrp.ProcessGUID { return d.Process }, ev.Desired.Before, ev.Desired.After)
		case ev.Actual != nil:
			step(t, ev.Revision, c.Actuals, of, ev.Actual.Before, ev.Actual.After)
		case ev.Task != nil:
			step(t, ev.Revision, c.Tasks, func(x task.Task) task.GUID { return x.GUID }, ev.Task.Before, ev.Task.After)
		case ev.Cell != nil:
			step(t, ev.Revision, c.Cells, func(p cells.Presence) lrp.CellID { return p.Cell }, ev.Cell.Before, ev.Cell.After)
		}
	}
	return c
}

// tables is what the tables hold.
func tables(t testing.TB, s *Store) contents {
	t.Helper()
	all, err := s.Everything(t.Context())
	must(t, err)
	tasks, _, err := s.Tasks(t.Context(), TaskFilter{}, Page{})
	must(t, err)
	present, _, err := s.Cells(t.Context())
	must(t, err)
	c := noContents()
	for _, d := range all.Desired {
		c.Desired[d.Process] = d
	}
	for _, a := range all.Actuals {
		c.Actuals[of(a)] = a
	}
	for _, x := range tasks {
		c.Tasks[x.GUID] = x.Summary()
	}
	for _, p := range present {
		c.Cells[p.Cell] = p
	}
	return c
}

// checkReplay fails unless the log and the tables tell the same. They are read at different moments, so it
// looks again when something was written meanwhile, such as a call whose caller has left.
func checkReplay(t testing.TB, s *Store) {
	t.Helper()
	for {
		log, then := history(t, s), tables(t, s)
		newest, err := s.Revision(t.Context())
		must(t, err)
		if newest != uint64(len(log)) {
			continue
		}
		if diff := cmp.Diff(replay(t, log), then, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the tables differ from the log (-log +tables):\n%s", diff)
		}
		return
	}
}
