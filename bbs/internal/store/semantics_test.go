package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/internal/pgtest"
)

// state returns the ordinary instance of a slot.
func state(t *testing.T, s *Store, process string, index int32) lrp.Actual {
	t.Helper()
	list, _, err := s.Actuals(t.Context(), ActualFilter{Process: lrp.ProcessGUID(process), Index: &index}, Page{})
	must(t, err)
	if len(list) != 1 {
		t.Fatalf("slot %s/%d has %d records, want one", process, index, len(list))
	}
	return list[0]
}

// A process that was removed and is desired again in another domain gets records of that domain, also
// where an instance from before had to stop first.
func TestNewRecordsAreOfTheNewDomain(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	by := lrp.InstanceKey{Instance: "i", Cell: "c"}
	must(t, s.Desire(ctx, app("p", 1), Call{}))
	must(t, s.Apply(ctx, claim("p", 0, by), Call{}))
	must(t, s.RemoveDesired(ctx, "p", Call{}))
	elsewhere := app("p", 1)
	elsewhere.Domain = "elsewhere"
	must(t, s.Desire(ctx, elsewhere, Call{}))
	if a := state(t, s, "p", 0); a.Domain != "d" || !a.Retiring {
		t.Fatalf("the old instance became %+v, want it to stop where it was", a)
	}
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Remove, Key: slotKey("p", 0), By: by}, Call{}))
	if a := state(t, s, "p", 0); a.Domain != "elsewhere" || a.State != lrp.Unclaimed {
		t.Errorf("the new record is %+v, want it UNCLAIMED in the new domain", a)
	}
	checkReplay(t, s)
}

// Many desire the same process on two replicas: one wins, all others learn that it exists.
func TestOneDesireWins(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	replicas := []*Store{open(t, url, Options{}), open(t, url, Options{})}
	const callers, rounds = 16, 10
	for round := range rounds {
		answers := make([]error, callers)
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				d := app(fmt.Sprint("p", round), 2)
				d.Annotation = fmt.Sprint(c)
				answers[c] = replicas[c%2].Desire(t.Context(), d, Call{})
			})
		}
		wg.Wait()
		winner, winners := 0, 0
		for c, err := range answers {
			var refusal *lrp.Refusal
			switch {
			case err == nil:
				winner = c
				winners++
			case !errors.As(err, &refusal) || refusal.Why != lrp.Exists:
				t.Errorf("caller %d: %v, want success or %s", c, err, lrp.Exists)
			}
		}
		list, _, err := replicas[0].Desired(t.Context(), DesiredFilter{Processes: []lrp.ProcessGUID{lrp.ProcessGUID(fmt.Sprint("p", round))}}, Page{})
		must(t, err)
		if winners != 1 || len(list) != 1 || list[0].Annotation != fmt.Sprint(winner) {
			t.Errorf("%d callers succeeded, the last is %d, and stored is %+v; want one, and its record", winners, winner, list)
		}
	}
	checkReplay(t, replicas[0])
}

// A route to a port that the record does not open is refused where the record is locked, and nothing
// of the update is kept.
func TestUpdateMustFitTheRecord(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	d := app("p", 1)
	d.RunInfo.Ports = []uint32{8080}
	must(t, s.Desire(t.Context(), d, Call{}))
	three := int32(3)
	u := lrp.Update{Instances: &three, Routes: map[string][]byte{"cf-router": []byte(`[{"hostnames":["a.example"],"port":9090}]`)}}
	must(t, u.Validate()) // alone it looks fine
	var inv *lrp.Invalid
	if err := s.Update(t.Context(), "p", u, Call{}); !errors.As(err, &inv) || inv.Fields[0].Field != "routes" {
		t.Errorf("update: %v, want an error that names routes", err)
	}
	if _, at, err := s.Actuals(t.Context(), ActualFilter{}, Page{}); err != nil || at.Revision != 2 {
		t.Errorf("revision %d (%v) after the refused update, want nothing written", at.Revision, err)
	}
}

// An instance that crashed too often waits for its back-off, to the microsecond.
func TestRestartWaitsForBackOff(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 999, time.UTC)
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return now }})
	ctx := t.Context()
	must(t, s.Desire(ctx, app("p", 1), Call{}))
	by := lrp.InstanceKey{Instance: "i", Cell: "c"}
	for range lrp.ImmediateRestarts + 1 {
		must(t, s.Apply(ctx, claim("p", 0, by), Call{}))
		must(t, s.Apply(ctx, lrp.Event{Name: lrp.Crash, Key: slotKey("p", 0), By: by, Reason: "r"}, Call{}))
	}
	crashed := state(t, s, "p", 0)
	due, ok := lrp.RestartAt(crashed)
	if crashed.State != lrp.Crashed || !ok {
		t.Fatalf("after %d crashes: %+v", lrp.ImmediateRestarts+1, crashed)
	}
	now = due.Add(-time.Microsecond)
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Restart, Key: slotKey("p", 0)}, Call{}))
	if got := state(t, s, "p", 0); got.State != lrp.Crashed {
		t.Errorf("before its time it became %s", got.State)
	}
	now = due
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Restart, Key: slotKey("p", 0)}, Call{}))
	if got := state(t, s, "p", 0); got.State != lrp.Unclaimed || got.CrashCount != lrp.ImmediateRestarts+1 {
		t.Errorf("in time it became %+v, want UNCLAIMED with its crashes", got)
	}
}

// What no column can hold is the caller's mistake, wherever it is used.
func TestNotStorableIsInvalid(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	const nul = "a\x00b"
	for name, call := range map[string]func() error{
		"remove desired": func() error { return s.RemoveDesired(ctx, nul, Call{}) },
		"declare fresh":  func() error { return s.UpsertDomain(ctx, nul, 0) },
		"list desired":   func() error { _, _, err := s.Desired(ctx, DesiredFilter{Domain: nul}, Page{}); return err },
		"list actual":    func() error { _, _, err := s.Actuals(ctx, ActualFilter{Cell: nul}, Page{}); return err },
		"one process":    func() error { _, _, err := s.DesiredWithActuals(ctx, nul); return err },
	} {
		var inv *lrp.Invalid
		if err := call(); !errors.As(err, &inv) {
			t.Errorf("%s: %v, want an invalid request", name, err)
		}
	}
}

// The log is cut by count and by age, never to nothing; what was cut off cannot be resumed from.
func TestPrune(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	for i := range 10 {
		must(t, s.Desire(ctx, app(fmt.Sprint("p", i), 0), Call{}))
	}
	prune := func(age time.Duration, count, want int64) {
		t.Helper()
		if n, err := s.Prune(ctx, age, count); err != nil || n != want {
			t.Errorf("pruned %d (%v), want %d", n, err, want)
		}
	}
	prune(time.Hour, 10, 0)
	tag, err := s.Pools.Read.Exec(ctx, s.sql["prune_events"], int64(0), int64(1), int64(2))
	if err != nil || tag.RowsAffected() != 2 {
		t.Errorf("a portion of 2 was %d (%v)", tag.RowsAffected(), err)
	}
	prune(time.Hour, 6, 2)
	if _, _, err := s.Events(ctx, 3, 100); !errors.Is(err, ErrPruned) {
		t.Errorf("after revision 3: %v, want %v", err, ErrPruned)
	}
	records, newest, err := s.Events(ctx, 4, 100)
	if err != nil || len(records) != 6 || newest != 10 {
		t.Errorf("after revision 4: %d entries up to %d (%v), want 6 up to 10", len(records), newest, err)
	}
	if _, err := s.Pools.Read.Exec(ctx, "update events set committed_at = now() - interval '2 hours' where revision <> 8"); err != nil {
		t.Fatal(err)
	}
	prune(time.Hour, 1000, 3) // but not 9, which is old too: the log must have no hole
	if records, _, err := s.Events(ctx, 7, 100); err != nil || len(records) != 3 {
		t.Errorf("after revision 7: %d entries (%v), want 3", len(records), err)
	}
	prune(time.Hour, 1, 2)
	prune(time.Hour, 1, 0) // the newest stays, however old
	records, newest, err = s.Events(ctx, 9, 100)
	if err != nil || len(records) != 1 || newest != 10 {
		t.Errorf("after revision 9: %d entries up to %d (%v), want the newest one", len(records), newest, err)
	}
	if records, newest, err = s.Events(ctx, 10, 100); err != nil || len(records) != 0 || newest != 10 {
		t.Errorf("at the end: %d entries up to %d (%v), want none", len(records), newest, err)
	}
}

// However it came about, a log with a hole is not handed out as if nothing were missing.
func TestHoleIsNoticed(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	for i := range 5 {
		must(t, s.Desire(t.Context(), app(fmt.Sprint("p", i), 0), Call{}))
	}
	if _, err := s.Pools.Read.Exec(t.Context(), "delete from events where revision = 3"); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[uint64]error{0: ErrPruned, 1: ErrPruned, 2: ErrPruned, 3: nil} {
		if _, _, err := s.Events(t.Context(), after, 100); !errors.Is(err, want) {
			t.Errorf("after revision %d: %v, want %v", after, err, want)
		}
	}
}

// A value of an enum that this version does not know is kept, at the widest that the wire can carry.
func TestUnknownStrategyIsKept(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	for i, strategy := range []lrp.UpdateStrategy{2, 1<<31 - 1, -1 << 31} {
		d := app(fmt.Sprint("p", i), 1)
		d.Strategy = strategy
		must(t, s.Desire(t.Context(), d, Call{}))
		list, _, err := s.Desired(t.Context(), DesiredFilter{Processes: []lrp.ProcessGUID{d.Process}}, Page{})
		must(t, err)
		if len(list) != 1 || list[0].Strategy != strategy {
			t.Errorf("desired with strategy %d, stored %+v", strategy, list)
		}
	}
}

// Instances of a process that is RECREATEd leave one after the other: one that runs stays until as many
// run as are wanted, and it counts once.
func TestRecreateEvacuation(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	d := app("p", 2)
	d.Strategy = lrp.Recreate
	must(t, s.Desire(ctx, d, Call{}))
	by := []lrp.InstanceKey{{Instance: "i", Cell: "c"}, {Instance: "j", Cell: "c"}}
	must(t, s.Apply(ctx, start("p", 0, by[0]), Call{}))
	must(t, s.Apply(ctx, claim("p", 1, by[1]), Call{}))
	evacuate := start("p", 0, by[0])
	evacuate.Name = lrp.EvacuateRunning
	if keep, err := s.Evacuate(ctx, evacuate, Call{}); err != nil || !keep {
		t.Errorf("one of two runs and is to leave: keep %v, %v; want to keep it", keep, err)
	}
	must(t, s.Apply(ctx, start("p", 1, by[1]), Call{}))
	if keep, err := s.Evacuate(ctx, evacuate, Call{}); err != nil || keep {
		t.Errorf("one of two that run is to leave: keep %v, %v; want to end it", keep, err)
	}
	evacuate = start("p", 1, by[1])
	evacuate.Name = lrp.EvacuateRunning
	if keep, err := s.Evacuate(ctx, evacuate, Call{}); err != nil || !keep {
		t.Errorf("the other one is to leave: keep %v, %v; want to keep it", keep, err)
	}
	checkReplay(t, s)
}

// An instance that is to go is none of those that are wanted, whether it was scaled away or retired: of
// the others only one is down at a time, also within one batch (bbs reference §5.3).
func TestRecreateCountsWhatStays(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	by := func(index int32) lrp.InstanceKey {
		return lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", index)), Cell: "c"}
	}
	three, two := int32(3), int32(2)
	for process, leave := range map[string]func(process string) error{
		"scaled": func(p string) error {
			return s.Update(ctx, lrp.ProcessGUID(p), lrp.Update{Instances: &two}, Call{})
		},
		"retired": func(p string) error { return s.Apply(ctx, lrp.Event{Name: lrp.Retire, Key: slotKey(p, 2)}, Call{}) },
	} {
		d := app(process, three)
		d.Strategy = lrp.Recreate
		must(t, s.Desire(ctx, d, Call{}))
		for index := range three {
			must(t, s.Apply(ctx, start(process, index, by(index)), Call{}))
		}
		must(t, leave(process))
		var requests []*request
		for index := range two {
			ev := start(process, index, by(index))
			ev.Name, ev.Epoch = lrp.EvacuateRunning, newEpoch()
			requests = append(requests, &request{ctx: ctx, op: &eventOp{ev: ev}, call: &Call{}, answer: make(chan error, 1)})
		}
		s.commit(ctx, requests, func() {})
		left := 0
		for _, r := range requests {
			must(t, <-r.answer)
			if !r.op.(*eventOp).keep {
				left++
			}
		}
		// Of two that are wanted one may go. Of three none may, because the retired one is down already.
		if want := map[string]int{"scaled": 1, "retired": 0}[process]; left != want {
			t.Errorf("%s: %d of those that are wanted left at once, want %d", process, left, want)
		}
	}
	checkReplay(t, s)
}

// While it is not known what became of an evacuation, the container is kept if it may be needed.
func TestEvacuationOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	left, leave := context.WithCancel(t.Context())
	leave()
	for name, want := range map[lrp.EventName]bool{lrp.EvacuateRunning: true, lrp.EvacuateClaimed: true, lrp.EvacuateStopped: false} {
		ev := start("p", 0, lrp.InstanceKey{Instance: "i", Cell: "c"})
		ev.Name = name
		if keep, err := s.Evacuate(left, ev, Call{}); !errors.Is(err, context.Canceled) || keep != want {
			t.Errorf("%s: keep %v, %v; want %v", name, keep, err, want)
		}
	}
}
