package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/pgtest"
)

var (
	holder   = lrp.InstanceKey{Instance: "o", Cell: "c1"}
	leaving  = lrp.InstanceKey{Instance: "e", Cell: "c2"}
	silent   = lrp.InstanceKey{Instance: "s", Cell: "c3"}
	stranger = lrp.InstanceKey{Instance: "x", Cell: "c4"}
)

// record returns an instance that keeps the invariants.
func record(place lrp.Presence, state lrp.State, by lrp.InstanceKey, since time.Time) *lrp.Actual {
	a := &lrp.Actual{
		Key: slotKey("", 0), Presence: place, State: state, Since: since, Tag: lrp.ModificationTag{Epoch: "before", Index: 3},
		CrashCount: 3, CrashReason: "r", InternalRoutes: []string{"a.internal"}, MetricTags: map[string]string{"k": "v"}, AvailabilityZone: "z",
	}
	if state == lrp.Claimed || state == lrp.Running {
		a.InstanceKey = by
	}
	if state == lrp.Running {
		a.Routable, a.NetInfo = true, lrp.NetInfo{Address: "10.0.0.9", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61009}}}
	}
	return a
}

// situations enumerates what can be known of a slot.
func situations(since time.Time) (all []lrp.Group) {
	retiring := func(a *lrp.Actual) *lrp.Actual { a.Retiring = true; return a }
	for _, ordinary := range []*lrp.Actual{
		nil, record(lrp.Ordinary, lrp.Unclaimed, holder, since), record(lrp.Ordinary, lrp.Claimed, holder, since),
		retiring(record(lrp.Ordinary, lrp.Claimed, holder, since)), record(lrp.Ordinary, lrp.Running, holder, since),
		retiring(record(lrp.Ordinary, lrp.Running, holder, since)), record(lrp.Ordinary, lrp.Crashed, holder, since),
	} {
		for _, evacuating := range []*lrp.Actual{nil, record(lrp.Evacuating, lrp.Claimed, leaving, since), record(lrp.Evacuating, lrp.Running, leaving, since)} {
			for _, suspect := range []*lrp.Actual{nil, record(lrp.Suspect, lrp.Claimed, silent, since), record(lrp.Suspect, lrp.Running, silent, since)} {
				for _, wanted := range []bool{true, false} {
					for _, strategy := range []lrp.UpdateStrategy{lrp.Rolling, lrp.Recreate} {
						all = append(all, lrp.Group{Ordinary: ordinary, Evacuating: evacuating, Suspect: suspect, Wanted: wanted, Strategy: strategy})
					}
				}
			}
		}
	}
	return all
}

// at returns the group in a slot of its own.
func at(g lrp.Group, p lrp.ProcessGUID) lrp.Group {
	for _, a := range []**lrp.Actual{&g.Ordinary, &g.Evacuating, &g.Suspect} {
		if *a != nil {
			moved := **a
			moved.Process = p
			*a = &moved
		}
	}
	if g.Wanted {
		g.Domain = "d"
		g.Complete = g.Ordinary != nil && g.Ordinary.State == lrp.Running
	} else {
		g.Strategy = lrp.Rolling
	}
	return g
}

// Every event in every situation, all in one table: the set statements change exactly the rows that
// the rules change, to the same values (style §6.3).
func TestBulkAgreement(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return now }})
	desired, rows := make(columns, 17), actualRows{}
	want := map[instance]lrp.Actual{}
	var evs []lrp.Event
	var answers []error
	changes := uint64(0)
	for _, name := range lrp.EventNames() {
		for _, by := range []lrp.InstanceKey{{}, holder, leaving, silent, stranger} {
			for _, g := range situations(now.Add(-time.Minute)) {
				p := lrp.ProcessGUID(fmt.Sprint("p", len(evs)))
				g = at(g, p)
				if g.Wanted {
					d := app(string(p), 1)
					d.Strategy, d.Tag.Epoch = g.Strategy, "e"
					must(t, s.insertDesired(desired, d))
				}
				for _, a := range placesOf(g) {
					if a != nil {
						must(t, s.actualRow(&rows, a))
					}
				}
				ev := lrp.Event{Name: name, Key: slotKey(string(p), 0), By: by, Epoch: "after", Reason: "why", Routable: true}
				if name == lrp.Start || name == lrp.EvacuateRunning {
					ev.NetInfo = lrp.NetInfo{Address: "10.0.0.1"}
				}
				out, err := lrp.Apply(g, ev, now)
				for _, a := range placesOf(out.Group) {
					if a != nil {
						want[of(*a)] = *a
					}
				}
				if err == nil {
					changes += uint64(len(out.Crashes) + len(lrp.Diff(g, out.Group)))
				}
				evs, answers = append(evs, ev), append(answers, err)
			}
		}
	}
	for name, c := range map[string]columns{"insert_desired": desired, "insert_actuals": rows.args()} {
		if _, err := s.Pools.Read.Exec(t.Context(), s.sql[name], c...); err != nil {
			t.Fatal(err)
		}
	}
	for i, err := range s.ApplyAll(t.Context(), evs, Call{}) {
		if !sameText(answers[i], err) {
			t.Errorf("%+v: the store says %v, the rules %v", evs[i], err, answers[i])
		}
	}
	if diff := cmp.Diff(want, tables(t, s).Actuals, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("actual_lrps (-rules +store):\n%s", diff)
	}
	wantRevision(t, s, fmt.Sprintf("%d situations", len(evs)), changes)
}

// The same for tasks.
func TestBulkAgreementOfTasks(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return now }})
	rows := make(columns, taskColumns)
	want := map[task.GUID]task.Task{}
	var evs []task.Event
	var answers []error
	for _, name := range task.EventNames() {
		for _, cell := range []lrp.CellID{"", "c1", "c2"} {
			for _, state := range []task.State{task.Invalid, task.Pending, task.Running, task.Completed, task.Resolving} {
				for _, age := range []time.Duration{0, time.Minute, time.Hour} {
					for _, rejections := range []int32{0, 3} {
						for _, failed := range []bool{false, true} {
							x := job(fmt.Sprint("t", len(evs)))
							x.State, x.CreatedAt, x.UpdatedAt, x.RejectionCount = state, now.Add(-age), now.Add(-age), rejections
							switch state {
							case task.Running:
								x.Cell = "c1"
							case task.Completed, task.Resolving:
								x.FirstCompletedAt = x.UpdatedAt
							}
							before := &x
							if state == task.Invalid {
								before = nil
							} else {
								definition, err := s.sealTask(x.GUID, x.Definition)
								must(t, err)
								insertTask(rows, &x, definition)
							}
							ev := task.Event{Name: name, GUID: x.GUID, Cell: cell, Failed: failed, Result: "42", Reason: "why"}
							if name == task.Desire {
								ev.Task = &x
							}
							out, err := task.Apply(before, ev, task.DefaultPolicy(), now)
							if out.Task != nil {
								want[x.GUID] = *out.Task
							}
							evs, answers = append(evs, ev), append(answers, err)
						}
					}
				}
			}
		}
	}
	if _, err := s.Pools.Read.Exec(t.Context(), s.sql["insert_tasks"], rows...); err != nil {
		t.Fatal(err)
	}
	for i, err := range s.ApplyTasks(t.Context(), evs, Call{}) {
		if !sameText(answers[i], err) {
			t.Errorf("%+v: the store says %v, the rules %v", evs[i], err, answers[i])
		}
	}
	stored, _, err := s.Tasks(t.Context(), TaskFilter{}, Page{})
	must(t, err)
	got := map[task.GUID]task.Task{}
	for _, x := range stored {
		got[x.GUID] = x
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("tasks (-rules +store):\n%s", diff)
	}
}
