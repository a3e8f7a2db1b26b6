package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/internal/pgcluster"
	"muster/internal/pgtest"
)

// A call whose values cannot be stored fails alone; the others of its batch do not notice. It costs
// few transactions and no connection.
func TestPoisonedCallFailsAlone(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]func(*lrp.Desired){
		"refused by the column":  func(d *lrp.Desired) { d.Annotation = "a\x00b" },               // no text of PostgreSQL can hold that
		"refused by the message": func(d *lrp.Desired) { d.RunInfo.LegacyDownloadUser = "\xff" }, // no message can
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			commits := 0
			s := open(t, pgtest.Database(t, Migrate), Options{Committed: func(Commit) { commits++ }})
			requests := make([]*request, 64)
			for i := range requests {
				d := app(fmt.Sprint("p", i), 1)
				if i == 43 {
					poison(&d)
				}
				requests[i] = &request{ctx: t.Context(), call: &Call{}, op: &desireOp{desired: d, epoch: newEpoch}, answer: make(chan error, 1)}
			}
			s.commit(t.Context(), requests, func() {}) // one batch, for certain
			for i, r := range requests {
				err := <-r.answer
				var inv *lrp.Invalid
				if poisoned := i == 43; poisoned != errors.As(err, &inv) || !poisoned && err != nil {
					t.Errorf("call %d: %v", i, err)
				}
			}
			list, _, err := s.Scheduling(t.Context(), DesiredFilter{}, Page{})
			if err != nil || len(list) != len(requests)-1 {
				t.Errorf("%d processes are stored (%v), want all but the poisoned one", len(list), err)
			}
			if commits != 6 {
				t.Errorf("64 calls took %d transactions, want one for each half of a half", commits)
			}
			if n := s.Pools.Write.Stat().NewConnsCount(); n != 1 {
				t.Errorf("%d connections were needed, want one", n)
			}
			checkReplay(t, s)
		})
	}
}

// PostgreSQL is killed again and again under load. What was acknowledged is there, what was refused
// with an error is there as a whole or not at all, and the log tells the same as the tables.
func TestPostgresKilledUnderLoad(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	s := open(t, pgtest.DatabaseOn(t, c, Migrate), Options{})
	const callers, kills = 8, 3
	acknowledged := make([][]string, callers)
	unavailable := make([]int, callers)
	stop := make(chan struct{})
	progress := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				p := fmt.Sprintf("p-%d-%d", n, i)
				switch err := s.Desire(context.Background(), app(p, 2), Call{}); {
				case err == nil:
					acknowledged[n] = append(acknowledged[n], p)
					select {
					case progress <- struct{}{}:
					default:
					}
				case errors.Is(err, ErrUnavailable):
					unavailable[n]++
				default:
					t.Errorf("desire of %s: %v, want success or %v", p, err, ErrUnavailable)
				}
			}
		})
	}
	for range kills {
		for range 20 {
			<-progress
		}
		must(t, c.Kill(t.Context()))
		var err error
		c, err = pgcluster.Open(t.Context(), pgcluster.Config{Dir: c.Dir(), FastUnsafe: true})
		must(t, err)
	}
	for range 20 {
		<-progress
	}
	close(stop)
	wg.Wait()

	all, err := s.Everything(t.Context())
	must(t, err)
	instances := map[lrp.ProcessGUID]int{}
	for _, a := range all.Actuals {
		instances[a.Process]++
	}
	stored := map[lrp.ProcessGUID]bool{}
	for _, d := range all.Desired {
		stored[d.Process] = true
		if instances[d.Process] != 2 {
			t.Errorf("process %s has %d of 2 slots: half a call was stored", d.Process, instances[d.Process])
		}
	}
	total, failed := 0, 0
	for n := range callers {
		failed += unavailable[n]
		for _, p := range acknowledged[n] {
			total++
			if !stored[lrp.ProcessGUID(p)] {
				t.Errorf("process %s was acknowledged and is gone", p)
			}
		}
	}
	t.Logf("%d calls acknowledged, %d unavailable, %d processes stored", total, failed, len(stored))
	checkReplay(t, s)
}

// anyValid draws an instance that fits a place of a group, or none.
func anyValid(t *rapid.T, place lrp.Presence) *lrp.Actual {
	if !rapid.Bool().Draw(t, "there") {
		return nil
	}
	text := func(name string) string { return rapid.SampledFrom([]string{"", "x"}).Draw(t, name) }
	states := []lrp.State{lrp.Claimed, lrp.Running}
	if place == lrp.Ordinary {
		states = append(states, lrp.Unclaimed, lrp.Crashed)
	}
	a := &lrp.Actual{
		Key: slotKey("p", 0), Presence: place, State: rapid.SampledFrom(states).Draw(t, "state"),
		Since: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Tag: lrp.ModificationTag{Epoch: "e"},
	}
	switch a.State {
	case lrp.Unclaimed, lrp.Crashed:
		a.PlacementError = text("placement error")
		return a
	case lrp.Running:
		a.NetInfo = lrp.NetInfo{Address: "a", InstanceAddress: text("instance address"), InstanceIPv6Address: text("v6")}
	}
	a.InstanceKey, a.Retiring = lrp.InstanceKey{Instance: "i", Cell: "c"}, rapid.Bool().Draw(t, "retiring")
	return a
}

// spoil changes one member, which may make an instance invalid: one alone, or a constraint that is
// missing would hide behind others.
func spoil(t *rapid.T, a *lrp.Actual) {
	rapid.SampledFrom([]func(){
		func() { a.Retiring = !a.Retiring },
		func() { a.Since = time.Time{} },
		func() { a.Instance = "" },
		func() { a.Cell = "" },
		func() { a.Instance = "i" },
		func() { a.Cell = "c" },
		func() { a.PlacementError = "x" },
		func() { a.NetInfo.Address = "" },
		func() { a.NetInfo.Address = "a" },
		func() { a.NetInfo.InstanceAddress = "a" },
		func() { a.NetInfo.InstanceIPv6Address = "a" },
		func() { a.NetInfo.Preferred = lrp.PreferHost },
		func() { a.NetInfo.Ports = []lrp.PortMapping{{ContainerPort: 1}} },
		func() { a.State = lrp.Unclaimed },
		func() { a.State = lrp.Claimed },
		func() { a.State = lrp.Running },
		func() { a.State = lrp.Crashed },
		func() {
			a.State, a.InstanceKey, a.NetInfo, a.PlacementError, a.Retiring = lrp.Unclaimed, lrp.InstanceKey{}, lrp.NetInfo{}, "", false
		},
	}).Draw(t, "flaw")()
}

// hidesAddress tells whether a record has no address where one can be reached otherwise: what is sealed
// shows only whether it is there.
func hidesAddress(a *lrp.Actual) bool {
	n := a.NetInfo
	return a.State == lrp.Running && n.Address == "" && (n.InstanceAddress+n.InstanceIPv6Address != "" || n.Preferred != 0 || n.Ports != nil)
}

// The schema accepts exactly the groups that Group.Check accepts.
func TestConstraintPair(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	valid, invalid := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		g := lrp.Group{Ordinary: anyValid(rt, lrp.Ordinary), Evacuating: anyValid(rt, lrp.Evacuating), Suspect: anyValid(rt, lrp.Suspect)}
		there := slices.DeleteFunc([]*lrp.Actual{g.Ordinary, g.Evacuating, g.Suspect}, func(a *lrp.Actual) bool { return a == nil })
		if len(there) == 0 {
			return
		}
		for range rapid.SampledFrom([]int{0, 1, 1, 1, 2}).Draw(rt, "flaws") {
			spoil(rt, rapid.SampledFrom(there).Draw(rt, "victim"))
		}
		if slices.ContainsFunc(there, hidesAddress) {
			return
		}
		var c actualRows
		for _, a := range there {
			must(t, s.actualRow(&c, a))
		}
		err := pgx.BeginFunc(ctx, s.Pools.Read, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, s.sql["insert_actuals"], c.args()...); err != nil {
				return err
			}
			return errUndo
		})
		want := g.Check()
		if accepted := errors.Is(err, errUndo); accepted != (want == nil) {
			rt.Fatalf("the schema says %v, Group.Check says %v", err, want)
		}
		if want == nil {
			valid++
		} else {
			invalid++
		}
	})
	if valid == 0 || invalid == 0 {
		t.Errorf("%d valid and %d invalid groups were tried: the generator is lopsided", valid, invalid)
	}
}

var errUndo = errors.New("undo")
