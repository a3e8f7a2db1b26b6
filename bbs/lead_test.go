package bbs

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/event"
	"muster/bbs/internal/hub"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/identity"
)

// A leader whose lease store has forgotten everything gets a token above those that the database has
// seen: what it does is not refused (bbs reference §13.1, fencing).
func TestTokenIsAboveThoseSeen(t *testing.T) {
	t.Parallel()
	const seen = uint64(1) << 60
	r := newRecords(t)
	ctx := t.Context()
	r.running("p", "c")
	r.exec("insert into fences values ($1, $2)", convergeLease, int64(seen))
	r.exec("update desired_lrps set instances = 2") // as if a record got lost
	w := newWorld(t, r.store.Pools.Read.Config().ConnString())
	revision, err := r.store.Revision(ctx)
	must(t, err)
	cfg := w.config()
	address, _ := w.replica(cfg)
	watch, err := w.client(address, identity.Auctioneer).Watch(ctx, revision, bbsclient.WatchFilter{})
	must(t, err)
	awaitChange(t, watch, "what is missing is created", func(ev event.Event) bool {
		return ev.Actual != nil && ev.Actual.Before == nil && ev.Actual.After.Index == 1
	})
	if token, err := r.store.Token(ctx, convergeLease); err != nil || token != seen+1 {
		t.Errorf("it was done under token %d (%v), want %d", token, err, seen+1)
	}
}

// Whoever follows the log and cannot go on where it was has everything compared, and goes on with the
// newest entry.
func TestFollowAfterAGap(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	c := r.converger(1)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.follow(ctx, r.hub.Newest()+1000) }()
	<-c.early
	r.running("p", "c") // a cell that is new
	<-c.changed.ready
	if ids := c.changed.take(); len(ids) != 1 || ids[0] != "c" {
		t.Errorf("to look at are %v, want c", ids)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

// Cells that could not be dealt with are looked at again; a lease that is lost ends it.
func TestRepairAgain(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	r.running("p", "c")
	r.lose("c")
	c := r.converger(1)
	r.exec("alter table actual_lrps rename to away")
	must(t, c.repairSome(ctx, []lrp.CellID{"c"}))
	ids := c.changed.take()
	if len(ids) != 1 || ids[0] != "c" {
		t.Fatalf("after a failure, to look at are %v, want c", ids)
	}
	r.exec("alter table away rename to actual_lrps")
	r.exec("insert into fences values ($1, 2)", convergeLease)
	if err := c.repairSome(ctx, ids); !errors.Is(err, store.ErrFenced) {
		t.Errorf("a leader that lost the lease is told %v", err)
	}
	c.changed.add(ids...)
	if err := c.repairCells(ctx); !errors.Is(err, store.ErrFenced) {
		t.Errorf("its work ended with %v", err)
	}
	newer := r.converger(2)
	newer.changed.add(ids...)
	must(t, newer.repairChanged(ctx))
	if got := r.actuals("p"); len(got) != 2 {
		t.Errorf("the slot has %v, want a suspect and its successor", got)
	}
	if left := newer.changed.take(); len(left) != 0 {
		t.Errorf("%v are looked at again for nothing", left)
	}
	if newer.repairing.TryLock() {
		newer.repairing.Unlock()
	} else {
		t.Error("comparisons are kept waiting for ever")
	}
}

// A refusal is no failure; a lost lease counts more than a database that is away, whichever came first.
func TestOutcomeOfSteps(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	c := r.converger(1)
	fenced, away := fmt.Errorf("x: %w", store.ErrFenced), fmt.Errorf("x: %w", store.ErrUnavailable)
	refused := &lrp.Refusal{}
	for name, tt := range map[string]struct {
		answers []error
		want    error
	}{
		"all taken":        {[]error{nil, nil}, nil},
		"refused":          {[]error{refused, nil}, nil},
		"away":             {[]error{nil, away, refused}, store.ErrUnavailable},
		"away, then lost":  {[]error{away, fenced}, store.ErrFenced},
		"lost, then away":  {[]error{fenced, away}, store.ErrFenced},
		"more than a line": {make([]error, stepLines+1), nil},
	} {
		o := c.outcome(t.Context(), len(tt.answers))
		for _, err := range tt.answers {
			o.note("lose", err, err == error(refused))
		}
		if err := o.end(); !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	// The steps that were taken are counted, and no others.
	if n, ok := metric(t, c.metrics, "bbs_converge_steps_total lose"); !ok || n != 2+1+1+stepLines+1 {
		t.Errorf("%v steps are counted", n)
	}
}

// No more crashed instances are remembered than the limit; the comparison finds the others.
func TestRestartLimit(t *testing.T) {
	t.Parallel()
	q := newRestarts()
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range restartLimit + 1 {
		a := crashedAt("p", begin)
		a.Index = int32(i)
		q.add(a, begin)
	}
	if len(q.queue) != restartLimit || len(q.known) != restartLimit {
		t.Errorf("%d and %d are remembered, want %d", len(q.queue), len(q.known), restartLimit)
	}
	if n := len(q.take(begin.Add(lrp.MinBackOff))); n != restartLimit { // in the very moment
		t.Errorf("%d restart when they are due, want all", n)
	}
}

// Steps are logged one by one as long as they are few, however many plans they are of.
func TestLinesAreBounded(t *testing.T) {
	t.Parallel()
	var l lineBudget
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, tt := range []struct {
		n    int
		at   time.Duration
		want bool
	}{
		{stepLines + 1, 0, false}, {stepLines - 1, 0, true}, {2, 0, false}, {1, stepTime - 1, true}, {1, stepTime - 1, false}, {1, stepTime, true},
		{stepLines, stepTime, false}, {stepLines, 2 * stepTime, true},
	} {
		if got := l.take(tt.n, now.Add(tt.at)); got != tt.want {
			t.Errorf("%d: %d lines at %v: %v, want %v", i, tt.n, tt.at, got, tt.want)
		}
	}
}

// A completion that the log tells of is on its way at once, and not when everything is compared.
func TestCompletionIsSeen(t *testing.T) {
	t.Parallel()
	h := hub.New(quiet(), 0)
	c := newConverger(quiet(), nil, h, newMetrics(h), ConvergeOptions{}, store.Fence{})
	running, done := echoTask("t"), echoTask("t")
	running.State, done.State = task.Running, task.Completed
	done.Definition.CompletionCallbackURL = "https://owner.example/done"
	r, err := store.NewRecord(event.Event{Task: &task.Change{Before: &running, After: &done}})
	must(t, err)
	c.see([]*store.Record{&r}, map[lrp.CellID]bool{})
	if c.callbacks.Submit(done, "") {
		t.Error("the completion was not on its way")
	}
}
