package store

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/internal/pgtest"
)

// silence makes the last heartbeats of all cells an hour old.
func silence(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.Pools.Read.Exec(t.Context(), "update cells set last_seen = now() - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
}

// sweep drops silent cells, when heartbeats could be heard for so long.
func sweep(t *testing.T, s *Store, heard time.Duration) []lrp.CellID {
	t.Helper()
	dropped, err := s.Sweep(t.Context(), heard)
	must(t, err)
	return dropped
}

// Signs of life wait for no process: its lock may be held for long, by another replica for example, and
// all that is said about it waits.
func TestHeartbeatsDoNotWaitForProcesses(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	s := open(t, url, Options{})
	tx, err := s.Pools.Read.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), s.sql["lock_subjects"], []int64{lockKey("process", "p"), lockKey("process", "q")}, usesClass, keyLock("k"))
	must(t, err)
	var wg sync.WaitGroup
	for n := range Writers {
		wg.Go(func() {
			if err := s.Desire(t.Context(), app([]string{"p", "q"}[n%2], 0), Call{}); err != nil {
				t.Error(err)
			}
		})
		waitForLocks(t, s, n+1) // one more writer is busy
	}
	must(t, s.Heartbeat(t.Context(), cells.Presence{Cell: "c"}, time.Minute, Call{}))
	must(t, tx.Rollback(t.Context()))
	wg.Wait()
}

// A cell whose heartbeat waits to be stored is not silent.
func TestHeartbeatThatWaitsCounts(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	other := open(t, url, Options{})
	ctx := t.Context()
	must(t, other.Heartbeat(ctx, cells.Presence{Cell: "c"}, time.Minute, Call{}))
	must(t, other.Heartbeat(ctx, cells.Presence{Cell: "d"}, time.Minute, Call{}))
	_, err := other.Pools.Read.Exec(ctx, "update cells set last_seen = last_seen - interval '1 hour'")
	must(t, err)
	pools, err := OpenPools(ctx, url, 4)
	must(t, err)
	defer pools.Close()
	s, err := New(Options{Pools: pools, Sealer: sealer(t, "k"), Log: quiet()})
	must(t, err)
	waiting := &request{op: &heartbeatOp{presence: cells.Presence{Cell: "c"}, ttl: time.Minute}, call: &Call{}}
	must(t, s.enqueue(ctx, s.signs, waiting))
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop()
		lost, err := s.Sweep(ctx, time.Hour)
		if err != nil || !slices.Equal(lost, []lrp.CellID{"d"}) {
			t.Errorf("lost are %v (%v), want the one that is silent", lost, err)
		}
		if err := <-waiting.answer; err != nil {
			t.Error(err)
		}
	})
	s.Run(running)
	wg.Wait()
}

// The log tells of a cell that is new, one that changed and one that fell silent; not of heartbeats that say
// nothing new. A cell is not silent while it could not have been heard.
func TestLifeOfACell(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	const ttl = 5 * time.Second
	small := cells.Presence{Cell: "c1", RepURL: "https://a:1801", Zone: "z1", Capacity: cells.Resources{MemoryMB: 1}}
	large := small
	large.Capacity.MemoryMB = 2
	must(t, s.Heartbeat(ctx, small, ttl, Call{TraceID: "trace"}))
	must(t, s.Heartbeat(ctx, small, ttl, Call{}))
	must(t, s.Heartbeat(ctx, large, ttl, Call{}))
	must(t, s.Heartbeat(ctx, cells.Presence{Cell: "c2"}, ttl, Call{}))

	if got := sweep(t, s, time.Hour); len(got) != 0 {
		t.Errorf("dropped %v, which were just heard of", got)
	}
	silence(t, s)
	if got := sweep(t, s, ttl-time.Millisecond); len(got) != 0 {
		t.Errorf("dropped %v, which could not be heard for their time to live", got)
	}
	must(t, s.Heartbeat(ctx, cells.Presence{Cell: "c2"}, ttl, Call{})) // back in time
	if diff := cmp.Diff([]lrp.CellID{"c1"}, sweep(t, s, ttl)); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	if got := sweep(t, s, ttl); len(got) != 0 {
		t.Errorf("dropped %v twice", got)
	}
	list, revision, err := s.Cells(ctx)
	must(t, err)
	if diff := cmp.Diff([]cells.Presence{{Cell: "c2"}}, list); diff != "" {
		t.Errorf("cells that are left (-want +got):\n%s", diff)
	}
	must(t, s.Heartbeat(ctx, small, ttl, Call{})) // and it is new again

	var got []event.CellChange
	for _, ev := range history(t, s) {
		got = append(got, *ev.Cell)
	}
	want := []event.CellChange{{After: &small}, {Before: &small, After: &large}, {After: &cells.Presence{Cell: "c2"}}, {Before: &large}, {After: &small}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the log of cells (-want +got):\n%s", diff)
	}
	if revision != 4 {
		t.Errorf("the list shows revision %d, want 4", revision)
	}
}

// A heartbeat that arrives while its cell is being dropped wins, whichever comes first in the batch.
func TestHeartbeatMeetsExpiry(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]op{
		"heartbeat first": {&heartbeatOp{cells.Presence{Cell: "c"}, time.Second}, &expireOp{cell: "c"}},
		"expiry first":    {&expireOp{cell: "c"}, &heartbeatOp{cells.Presence{Cell: "c"}, time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			must(t, s.Heartbeat(t.Context(), cells.Presence{Cell: "c"}, time.Second, Call{}))
			silence(t, s)
			var requests []*request
			for _, o := range order {
				requests = append(requests, &request{ctx: t.Context(), call: &Call{}, op: o, answer: make(chan error, 1)})
			}
			s.commit(t.Context(), requests, func() {})
			for _, r := range requests {
				must(t, <-r.answer)
			}
			list, _, err := s.Cells(t.Context())
			if err != nil || len(list) != 1 {
				t.Errorf("cells: %v (%v), want the one that was heard of", list, err)
			}
			if got := sweep(t, s, time.Hour); len(got) != 0 {
				t.Errorf("dropped %v, which was just heard of", got)
			}
		})
	}
}

// Of replicas that sweep at once, one reports that a cell was dropped.
func TestOneReplicaDropsACell(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	must(t, s.Heartbeat(t.Context(), cells.Presence{Cell: "c"}, time.Second, Call{}))
	expire := func() int {
		dropped, err := s.expire(t.Context(), []lrp.CellID{"c"})
		must(t, err)
		return len(dropped)
	}
	if expire() != 0 { // heard of since somebody looked
		t.Error("a cell that was just heard of was dropped")
	}
	silence(t, s)
	if first, second := expire(), expire(); first != 1 || second != 0 { // both had seen it silent
		t.Errorf("dropped %d, then %d; want the first alone to say so", first, second)
	}
}
