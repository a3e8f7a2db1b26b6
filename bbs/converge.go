package bbs

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"muster/bbs/converge"
	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
)

const (
	// convergeRetry is the wait before a comparison that failed is tried again.
	convergeRetry = time.Second
	// convergeTrace is the trace id of what convergence does.
	convergeTrace = "converger"
	// restartLimit is how many crashed instances are remembered to restart on time; the full
	// comparison finds the others.
	restartLimit = 100_000
)

// converge compares everything at the start and every interval, and in between lets crashed
// instances restart when they are due.
func (r *replica) converge(ctx context.Context, st *store.Store) error {
	full := time.NewTimer(0)
	defer full.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		if at, ok := r.restart.next(); ok {
			due.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.restart.sooner:
		case <-due.C:
			if !r.steps(ctx, st, r.restart.take(time.Now())) {
				full.Reset(convergeRetry) // which finds those again that could not be taken
			}
		case <-full.C:
			full.Reset(r.compare(ctx, st))
		}
	}
}

// compare is one full comparison; it returns when the next one is due.
func (r *replica) compare(ctx context.Context, st *store.Store) time.Duration {
	if r.healthy() != nil {
		return convergeRetry // why was said when it began
	}
	start := time.Now()
	all, err := st.Everything(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("read everything for convergence", "error", err)
		}
		return convergeRetry
	}
	now := time.Now()
	for _, a := range all.Actuals {
		r.restart.add(a, now)
	}
	steps := converge.Plan(converge.Snapshot{Desired: all.Desired, Groups: groups(all.Actuals), Fresh: all.Domains}, now)
	ok := r.steps(ctx, st, steps)
	took := time.Since(start)
	r.metrics.convergeSeconds.Observe(took.Seconds())
	r.log.Info("converged", "desired", len(all.Desired), "actual", len(all.Actuals), "steps", len(steps), "took", took)
	switch {
	case !ok:
		return convergeRetry
	case len(steps) >= converge.MaxSteps:
		return 0 // there is more to do
	default:
		return time.Duration(r.cfg.ConvergeInterval)
	}
}

// steps takes steps. It reports false when some could not be taken for want of the database. A
// refusal is no failure: the world has moved on since the step was planned.
func (r *replica) steps(ctx context.Context, st *store.Store, steps []converge.Step) bool {
	events := make([]lrp.Event, len(steps))
	for i, s := range steps {
		events[i] = s.Event
	}
	var failure error
	failed := 0
	for i, err := range st.ApplyAll(ctx, events, store.Call{TraceID: convergeTrace}) {
		ev := events[i]
		var refusal *lrp.Refusal
		switch {
		case err == nil:
			r.metrics.convergeSteps.WithLabelValues(string(ev.Name)).Inc()
			r.log.Info("convergence step", "event", ev.Name, "process_guid", ev.Key.Process, "index", ev.Key.Index, "reason", steps[i].Why)
		case errors.As(err, &refusal):
			r.log.Debug("convergence step refused", "error", err)
		default:
			failure = err
			failed++
		}
	}
	if failed > 0 && ctx.Err() == nil {
		r.log.Warn("convergence steps not taken", "steps", failed, "error", failure) // one line, for thousands of them
	}
	return failed == 0
}

// groups puts the instances of each slot together.
func groups(actuals []lrp.Actual) []lrp.Group {
	bySlot := map[lrp.Slot]int{}
	var all []lrp.Group
	for i := range actuals {
		a := &actuals[i]
		n, ok := bySlot[a.Slot]
		if !ok {
			n = len(all)
			bySlot[a.Slot] = n
			all = append(all, lrp.Group{})
		}
		switch a.Presence {
		case lrp.Evacuating:
			all[n].Evacuating = a
		case lrp.Suspect:
			all[n].Suspect = a
		default:
			all[n].Ordinary = a
		}
	}
	return all
}

// restarts remembers when crashed instances may restart. It forgets nothing that matters: the full
// comparison would find it too, only later.
type restarts struct {
	sooner chan struct{} // capacity 1: something is due sooner than what was

	mu    sync.Mutex
	queue dueQueue
	known map[lrp.Slot]time.Time
}

func newRestarts() *restarts {
	return &restarts{sooner: make(chan struct{}, 1), known: map[lrp.Slot]time.Time{}}
}

// see looks for crashed instances among what was committed.
func (q *restarts) see(records []store.Record) {
	for i := range records {
		if a := records[i].Message.GetActualLrp().GetAfter(); a.GetState() == string(lrp.Crashed) {
			q.add(wire.DecodeActual(a), time.Time{})
		}
	}
}

// add remembers an instance if it is crashed and may restart later than after.
func (q *restarts) add(a lrp.Actual, after time.Time) {
	at, ok := lrp.RestartAt(a)
	if !ok || !at.After(after) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known[a.Slot].Equal(at) || len(q.queue) >= restartLimit {
		return
	}
	q.known[a.Slot] = at
	heap.Push(&q.queue, dueRestart{a.Key, at})
	if q.queue[0].at.Equal(at) {
		select {
		case q.sooner <- struct{}{}:
		default: // the converger is going to look anyway
		}
	}
}

// next returns when the next restart is due.
func (q *restarts) next() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return time.Time{}, false
	}
	return q.queue[0].at, true
}

// take returns the restarts that are due, and forgets them.
func (q *restarts) take(now time.Time) []converge.Step {
	q.mu.Lock()
	defer q.mu.Unlock()
	var steps []converge.Step
	for len(q.queue) > 0 && !q.queue[0].at.After(now) {
		d := heap.Pop(&q.queue).(dueRestart)
		if q.known[d.key.Slot].Equal(d.at) {
			delete(q.known, d.key.Slot)
			steps = append(steps, converge.Step{Event: lrp.Event{Name: lrp.Restart, Key: d.key}, Why: "its back-off is over"})
		}
	}
	return steps
}

// dueRestart is one entry of the queue.
type dueRestart struct {
	key lrp.Key
	at  time.Time
}

// dueQueue is a heap of restarts, the soonest first.
type dueQueue []dueRestart

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q dueQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *dueQueue) Push(x any)        { *q = append(*q, x.(dueRestart)) }
func (q *dueQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
