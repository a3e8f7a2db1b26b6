package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/pgtest"
)

// One process of many instances, more than one transaction takes of small calls, is created, scaled and
// removed, each at once: never is half of it there.
func TestManyInstances(t *testing.T) {
	t.Parallel()
	var largest int
	s := open(t, pgtest.Database(t, Migrate), Options{Committed: func(c Commit) { largest = max(largest, c.Events) }})
	ctx := t.Context()
	const instances = 2*changeLimit + 10
	must(t, s.Desire(ctx, app("p", instances), Call{}))
	wantRevision(t, s, "desired", instances+1)
	if largest != instances+1 {
		t.Errorf("the largest transaction made %d changes, want all of the call", largest)
	}
	half := int32(instances / 2)
	must(t, s.Update(ctx, "p", lrp.Update{Instances: &half}, Call{}))
	wantRevision(t, s, "scaled", instances+1+instances/2+1)
	must(t, s.RemoveDesired(ctx, "p", Call{}))
	if got := tables(t, s); len(got.Desired)+len(got.Actuals) != 0 {
		t.Errorf("%d processes and %d instances are left", len(got.Desired), len(got.Actuals))
	}
	checkReplay(t, s)
}

// Calls that change much do not gather in one transaction.
func TestTransactionsAreBounded(t *testing.T) {
	t.Parallel()
	var commits []Commit
	s := open(t, pgtest.Database(t, Migrate), Options{Committed: func(c Commit) { commits = append(commits, c) }})
	var requests []*request
	for i := range 5 {
		o := &desireOp{desired: app(fmt.Sprint("p", i), changeLimit/2), epoch: newEpoch}
		requests = append(requests, &request{ctx: t.Context(), call: &Call{}, op: o, answer: make(chan error, 1)})
	}
	s.commit(t.Context(), requests, func() {}) // one batch
	for _, r := range requests {
		must(t, <-r.answer)
	}
	calls := 0
	for _, c := range commits {
		calls += c.Calls
		if c.Events > 2*changeLimit {
			t.Errorf("one transaction made %d changes", c.Events)
		}
	}
	if len(commits) != 3 || calls != 5 {
		t.Errorf("transactions: %+v, want 5 calls in 3, the last alone", commits)
	}
	checkReplay(t, s)
}

// countedOp is a call that counts how often it is prepared for.
type countedOp struct {
	op
	prepared int
}

func (o *countedOp) needs(s *subjects) { o.prepared++; o.op.needs(s) }

// Of a batch that is too large for a transaction, what is left is not read for again and again.
func TestLargeBatchIsReadOnce(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	const calls, large = 32, 8
	all := make([]*countedOp, calls)
	requests := make([]*request, calls)
	for i := range calls {
		n := int32(changeLimit / 2)
		if i >= large { // these are taken together again
			n = 0
		}
		all[i] = &countedOp{op: &desireOp{desired: app(fmt.Sprint("p", i), n), epoch: newEpoch}}
		requests[i] = &request{ctx: t.Context(), call: &Call{}, op: all[i], answer: make(chan error, 1)}
	}
	s.commit(t.Context(), requests, func() {})
	prepared := 0
	for i, r := range requests {
		must(t, <-r.answer)
		prepared += all[i].prepared
	}
	if prepared > 3*calls {
		t.Errorf("%d calls were prepared for %d times", calls, prepared)
	}
}

// Each item of a bulk call has its own answer, and what is about one process happens in its order, over
// any number of transactions.
func TestBulk(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	const processes = chunkLimit + 100
	all := make([]lrp.Desired, processes)
	for i := range all {
		all[i] = app(fmt.Sprint("p", i), 1)
	}
	all[7].Annotation = "a\x00b"
	for i, err := range s.DesireAll(ctx, all, Call{}) {
		var inv *lrp.Invalid
		if i == 7 && !errors.As(err, &inv) || i != 7 && err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	var evs []lrp.Event
	for _, name := range []lrp.EventName{lrp.Claim, lrp.Start, lrp.Crash, lrp.Claim} {
		for i := range processes {
			by := lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", i)), Cell: "c"}
			ev := start(fmt.Sprint("p", i), 0, by)
			ev.Name = name
			evs = append(evs, ev)
		}
	}
	evs = append(evs, lrp.Event{Name: lrp.Claim}) // invalid
	for i, err := range s.ApplyAll(ctx, evs, Call{TraceID: "bulk"}) {
		var refusal *lrp.Refusal
		var inv *lrp.Invalid
		switch {
		case i == len(evs)-1:
			if !errors.As(err, &inv) {
				t.Errorf("an invalid event: %v", err)
			}
		case i%processes == 7:
			if !errors.As(err, &refusal) {
				t.Errorf("%s of a process that is not there: %v", evs[i].Name, err)
			}
		case err != nil:
			t.Errorf("event %d: %v", i, err)
		}
	}
	got := tables(t, s)
	for i := range processes {
		a := got.Actuals[instance{Slot: lrp.Slot{Process: lrp.ProcessGUID(fmt.Sprint("p", i))}}]
		if i != 7 && (a.State != lrp.Claimed || a.CrashCount != 1) {
			t.Fatalf("process %d is %+v, want it claimed after one crash", i, a)
		}
	}
	checkReplay(t, s)
}

// Tasks travel in bulk, too.
func TestBulkOfTasks(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	const tasks = batchLimit + 10
	var evs []task.Event
	for i := range tasks {
		x := job(fmt.Sprint("t", i))
		evs = append(evs, task.Event{Name: task.Desire, GUID: x.GUID, Task: &x})
	}
	for i := range tasks {
		evs = append(evs, task.Event{Name: task.Cancel, GUID: evs[i].GUID})
	}
	evs = append(evs, evs[0]) // it exists
	for i, err := range s.ApplyTasks(t.Context(), evs, Call{}) {
		var refusal *task.Refusal
		if i < 2*tasks && err != nil || i == 2*tasks && !errors.As(err, &refusal) {
			t.Errorf("event %d: %v", i, err)
		}
	}
	for guid, x := range tables(t, s).Tasks {
		if x.State != task.Completed || x.FailureReason != task.ReasonCancelled {
			t.Errorf("task %s is %+v, want it cancelled", guid, x)
		}
	}
	checkReplay(t, s)
}

// A caller of a bulk call who leaves learns of those items that were written, and so does one whose
// store ends.
func TestBulkAbandoned(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	items := make([]item, 2*chunkLimit)
	for i := range items {
		var o op = &desireOp{desired: app(fmt.Sprint("p", i), 0), epoch: newEpoch}
		if i == chunkLimit { // of the second chunk, since all are in one lane
			o = &hookedOp{op: o, decided: leave}
		}
		items[i] = item{op: o, weight: 1}
	}
	stored, left := 0, 0
	for _, err := range s.bulk(ctx, items, Call{}, false) {
		switch {
		case err == nil:
			stored++
		case errors.Is(err, context.Canceled):
			left++
		default:
			t.Error(err)
		}
	}
	if stored < chunkLimit || stored+left != len(items) {
		t.Errorf("%d items were acknowledged and %d not, want the first chunk at least", stored, left)
	}
	checkReplay(t, s)
}
