package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/bbs/converge"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/internal/pgtest"
)

// What is on some cells is each slot that has any record there, once.
func TestOnCells(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	record := func(process string, index int32, presence lrp.Presence, cell lrp.CellID) lrp.Actual {
		return lrp.Actual{
			Key: slotKey(process, index), InstanceKey: lrp.InstanceKey{Instance: "i", Cell: cell}, Presence: presence, State: lrp.Claimed,
			Since: time.Now().UTC().Truncate(time.Microsecond),
		}
	}
	w := narrowWorld{actuals: []lrp.Actual{
		record("p", 0, lrp.Ordinary, "a"), record("p", 0, lrp.Suspect, "b"), record("p", 1, lrp.Ordinary, "c"), record("p", 1, lrp.Suspect, "b"),
		record("p", 2, lrp.Ordinary, "c"), record("q", 0, lrp.Ordinary, "c"), record("r", 0, lrp.Ordinary, "a"),
	}}
	must(t, w.put(t.Context(), s))
	got, err := s.OnCells(t.Context(), []lrp.CellID{"a", "b"})
	must(t, err)
	want := []lrp.Slot{{Process: "p", Index: 0}, {Process: "p", Index: 1}, {Process: "r", Index: 0}}
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b lrp.Slot) bool { return compareSlots(a, b) < 0 })); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
}

// Every situation, with each of its cells there or lost: a repair takes the steps that a plan for everything
// has, and what becomes of the slots is what the rules make of them.
func TestRepairAgreement(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return now }})
	ctx := t.Context()
	w := narrowWorld{cells: map[lrp.CellID]time.Duration{"there0": 0, "there1": 0, "there2": 0, "lost0": time.Minute, "lost1": time.Minute, "lost2": time.Minute}}
	must(t, w.put(ctx, s))
	desired, rows := make(columns, 17), actualRows{}
	var groups []lrp.Group
	var slots []lrp.Slot
	var known []converge.Desired
	for sides := range 8 { // which of the three cells are lost
		for _, g := range situations(now.Add(-time.Hour)) {
			p := lrp.ProcessGUID(fmt.Sprint("p", len(slots)))
			g = at(g, p)
			for i, a := range placesOf(g) {
				if a == nil {
					continue
				}
				if a.Cell != "" {
					a.Cell = lrp.CellID(fmt.Sprint("there", i))
					if sides>>i&1 == 1 {
						a.Cell = lrp.CellID(fmt.Sprint("lost", i))
					}
				}
				must(t, s.actualRow(&rows, a))
			}
			if g.Wanted {
				d := app(string(p), 1)
				d.Strategy, d.Tag.Epoch = g.Strategy, "e"
				must(t, s.insertDesired(desired, d))
				known = append(known, converge.Desired{Process: p, Domain: d.Domain, Instances: 1})
			}
			groups, slots = append(groups, g), append(slots, lrp.Slot{Process: p})
		}
	}
	for name, c := range map[string]columns{"insert_desired": desired, "insert_actuals": rows.args()} {
		if _, err := s.Pools.Read.Exec(ctx, s.sql[name], c...); err != nil {
			t.Fatal(err)
		}
	}
	must(t, s.UpsertDomain(ctx, "d", 0))
	presences, err := s.Presences(ctx)
	must(t, err)
	snap := converge.Snapshot{Desired: known, Fresh: []lrp.Domain{"d"}, Cells: presences}
	for _, g := range groups {
		if placesOf(g) != (places{}) {
			snap.Groups = append(snap.Groups, g)
		}
	}
	steps := map[string]bool{}
	bySlot := map[lrp.Slot]*lrp.Group{}
	for i := range groups {
		bySlot[slots[i]] = &groups[i]
	}
	for _, step := range converge.Plan(snap, now) {
		g := bySlot[step.Event.Key.Slot]
		if placesOf(*g) == (places{}) {
			continue // nothing is asked for where there is no record
		}
		steps[fmt.Sprintf("%+v", step)] = true
		step.Event.Epoch = "after"
		out, err := lrp.Apply(*g, step.Event, now)
		must(t, err)
		*g = out.Group
	}
	done, err := s.Repair(ctx, slots, Call{})
	must(t, err)
	for _, d := range done {
		if text := fmt.Sprintf("%+v", d.Step); d.Err != nil || !steps[text] {
			t.Errorf("taken: %s (%v), which is not planned, or more than once", text, d.Err)
		} else {
			delete(steps, text)
		}
	}
	for text := range steps {
		t.Errorf("not taken: %s", text)
	}
	want := map[instance]lrp.Actual{}
	for _, g := range groups {
		for _, a := range placesOf(g) {
			if a != nil {
				want[of(*a)] = *a
			}
		}
	}
	if diff := cmp.Diff(want, tables(t, s).Actuals, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(lrp.ModificationTag{}, "Epoch")); diff != "" {
		t.Errorf("actual_lrps (-rules +store):\n%s", diff)
	}
	if done, err := s.Repair(ctx, slots, Call{}); err != nil || len(done) != 0 {
		t.Errorf("a second repair does %v (%v)", done, err)
	}
}

// A suspect of a cell that came back is decided by what it is when it is locked: not by what it was when
// its cell was looked up.
func TestRepairOfWhatChanged(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx, back := t.Context(), lrp.InstanceKey{Instance: "s", Cell: "back"}
	must(t, s.Heartbeat(ctx, cells.Presence{Cell: "back"}, time.Minute, Call{}))
	for _, p := range []string{"replaced", "removed", "waits"} {
		must(t, s.Desire(ctx, app(p, 1), Call{}))
		must(t, s.Apply(ctx, start(p, 0, back), Call{}))
		must(t, s.Apply(ctx, lrp.Event{Name: lrp.Lose, Key: slotKey(p, 0), By: back}, Call{}))
	}
	slots, err := s.OnCells(ctx, []lrp.CellID{"back"})
	must(t, err)
	winner := lrp.InstanceKey{Instance: "o", Cell: "back"}
	must(t, s.Apply(ctx, start("replaced", 0, winner), Call{}))
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Remove, Key: slotKey("removed", 0), By: back}, Call{}))
	done, err := s.Repair(ctx, slots, Call{})
	must(t, err)
	got := map[string]error{}
	for _, d := range done {
		got[fmt.Sprint(d.Event.Name, " ", d.Event.Key.Process)] = d.Err
	}
	if diff := cmp.Diff(map[string]error{"return waits": nil}, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	checkReplay(t, s)
}

// Who stops waiting does not learn what was done; nobody writes, so nothing was.
func TestRepairThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	pools, err := OpenPools(t.Context(), pgtest.Database(t, Migrate), 4)
	must(t, err)
	defer pools.Close()
	s, err := New(Options{Pools: pools, Sealer: sealer(t, "k"), Log: quiet()})
	must(t, err)
	ctx, leave := context.WithTimeout(t.Context(), time.Second)
	defer leave()
	done, err := s.Repair(ctx, []lrp.Slot{{Process: "p", Index: 2}}, Call{})
	if err != nil || len(done) != 1 || !errors.Is(done[0].Err, context.DeadlineExceeded) || done[0].Event.Key.Slot != (lrp.Slot{Process: "p", Index: 2}) {
		t.Errorf("done is %+v (%v), want that its time was over", done, err)
	}
}
