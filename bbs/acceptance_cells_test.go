package bbs

import (
	"maps"
	"slices"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/internal/identity"
)

// suspects returns a condition: as many suspect instances that run, and as many slots that wait beside them.
func suspects(n int) func([]lrp.Actual) bool {
	return func(list []lrp.Actual) bool {
		suspect, waiting := 0, 0
		for _, a := range list {
			switch {
			case a.Presence == lrp.Suspect && a.State == lrp.Running:
				suspect++
			case a.Presence == lrp.Ordinary && a.State == lrp.Unclaimed:
				waiting++
			}
		}
		return suspect == n && waiting == n && len(list) == 2*n
	}
}

func ordinary(cell lrp.CellID, n int) func([]lrp.Actual) bool {
	return func(list []lrp.Actual) bool {
		return all(n, lrp.Running)(list) &&
			!slices.ContainsFunc(list, func(a lrp.Actual) bool { return a.Presence != lrp.Ordinary || a.Cell != cell })
	}
}

// runsOn makes processes of one instance each that run on a cell, which is lost in a moment and without
// which nothing is done any more.
func (s *scene) runsOn(t *testing.T, id string, processes ...string) (was []lrp.Actual) {
	t.Helper()
	_, stop := s.newCell(t, id, time.Minute)
	for _, p := range processes {
		must(t, s.client.Desire(t.Context(), app(p, 1)))
		was = append(was, s.until(t, p, "running", ordinary(lrp.CellID(id), 1))...)
	}
	stop()
	s.present(t, id, time.Second)
	return was
}

// §19 "cell loss": both are suspect as long as nothing replaces them, and then they run elsewhere.
func TestAcceptanceCellLossElsewhere(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	was := s.runsOn(t, "c1", "p", "q")
	for _, p := range []string{"p", "q"} {
		list := s.until(t, p, "suspect", suspects(1))
		i := slices.IndexFunc(list, func(a lrp.Actual) bool { return a.Presence == lrp.Suspect })
		if !slices.ContainsFunc(was, func(a lrp.Actual) bool { return a.InstanceKey == list[i].InstanceKey }) || !list[i].Routable {
			t.Errorf("the suspect instance of %s is %+v", p, list[i])
		}
	}
	s.newCell(t, "c2", time.Minute)
	for _, p := range []string{"p", "q"} {
		s.until(t, p, "running on the other cell", ordinary("c2", 1))
	}
}

// §19 "cell loss", when the machine comes back without its containers.
func TestAcceptanceCellLossRestart(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	was := s.runsOn(t, "c1", "p", "q")
	for _, p := range []string{"p", "q"} {
		s.until(t, p, "suspect", suspects(1))
	}
	s.newCell(t, "c1", time.Minute) // knows none of its containers
	for i, p := range []string{"p", "q"} {
		s.until(t, p, "running again, as another instance", func(list []lrp.Actual) bool {
			return ordinary("c1", 1)(list) && list[0].Instance != was[i].Instance
		})
	}
}

// §19 "promote": the instance that ran all the while has its slot again, and what was to replace it goes.
func TestAcceptancePromote(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	was := s.runsOn(t, "c1", "p")[0]
	s.until(t, "p", "suspect", suspects(1))
	c2 := s.present(t, "c2", time.Minute)
	by := lrp.InstanceKey{Instance: "replacement", Cell: "c2"}
	must(t, c2.Apply(t.Context(), claim("p", 0, by)))
	s.present(t, "c1", time.Minute)
	back := s.until(t, "p", "ordinary again", func(list []lrp.Actual) bool {
		return ordinary("c1", 1)(list) && list[0].InstanceKey == was.InstanceKey
	})
	if back[0].CrashCount != 0 || !back[0].Routable {
		t.Errorf("back is %+v", back[0])
	}
	if err := c2.Apply(t.Context(), start("p", 0, by)); !isLRP(err, lrp.CannotBeStarted) {
		t.Errorf("the replacement starts: %v, want %s", err, lrp.CannotBeStarted)
	}
	if list := s.actuals(t, "p"); !ordinary("c1", 1)(list) {
		t.Errorf("then there is %+v", list)
	}
}

// §19 "evacuation": a cell is drained as a rep does it, asking again until it is told not to keep the
// container. After each change some instance runs and is routable, and when the cell has nothing left
// another one has it. Traffic itself is watched by the tests of the route-emitter.
func TestAcceptanceEvacuation(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	ctx := t.Context()
	c1, stop := s.newCell(t, "c1", time.Minute)
	must(t, s.client.Desire(ctx, app("p", 1)))
	old := s.until(t, "p", "running", all(1, lrp.Running))[0]
	_, revision, err := s.client.Actuals(ctx, bbsclient.ActualFilter{})
	must(t, err)
	stop() // it only drains now
	drain := func() bool {
		t.Helper()
		keep, err := c1.calls.Evacuate(ctx, evacuating(lrp.EvacuateRunning, "p", old.InstanceKey))
		must(t, err)
		return keep
	}
	if !drain() || !drain() {
		t.Error("the container is to go although nothing replaces it")
	}
	s.newCell(t, "c2", time.Minute)
	s.until(t, "p", "running elsewhere too", func(list []lrp.Actual) bool {
		return slices.ContainsFunc(list, func(a lrp.Actual) bool { return a.Cell == "c2" && a.State == lrp.Running })
	})
	if drain() {
		t.Error("the container is to stay although its replacement runs")
	}
	list := s.until(t, "p", "on the other cell alone", ordinary("c2", 1))
	watch, err := s.client.Watch(ctx, revision, bbsclient.WatchFilter{Process: "p"})
	must(t, err)
	records := map[lrp.Presence]lrp.Actual{lrp.Ordinary: old}
	for at := list[0].Tag; records[lrp.Ordinary].Tag != at || len(records) > 1; {
		events, _, err := watch.Recv()
		must(t, err)
		for _, ev := range events {
			b, a := ev.Actual.Before, ev.Actual.After
			if b != nil && (a == nil || a.Presence != b.Presence) {
				delete(records, b.Presence)
			}
			if a != nil {
				records[a.Presence] = *a
			}
			if !slices.ContainsFunc(slices.Collect(maps.Values(records)), func(a lrp.Actual) bool { return a.State == lrp.Running && a.Routable }) {
				t.Errorf("at revision %d nobody could answer: %v", ev.Revision, records)
			}
		}
	}
}

// §19 "lock": the second replica takes over what only one may do. Different from Diego on purpose: both
// answer calls all the while, and one that loses the lease does not end; it stops converging and may
// get it again, with a higher token.
func TestAcceptanceLock(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Second)
	s.pass(t) // the first one leads
	address, _ := s.replica(s.every(time.Second))
	other := s.world.client(address, identity.Client)
	must(t, other.Desire(t.Context(), app("both-serve", 0)))
	token := func() (n int64) {
		t.Helper()
		must(t, s.db.QueryRow(t.Context(), "select token from fences where lease = $1", convergeLease).Scan(&n))
		return n
	}
	first := token()
	s.stop()
	s.client = other
	s.pass(t) // the second one leads
	second := token()
	if second <= first {
		t.Errorf("the token of the second leader is %d, and that of the first was %d", second, first)
	}
	// Somebody else got the lease while the leader did not look, and has written something under it.
	s.exec(t, "update fences set token = token + 10 where lease = $1", convergeLease)
	s.pass(t)
	if third := token(); third <= second+10 {
		t.Errorf("the token is %d after one of %d was seen", third, second+10)
	}
}
