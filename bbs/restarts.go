package bbs

import (
	"container/heap"
	"sync"
	"time"

	"muster/bbs/converge"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
)

// restartLimit is how many crashed instances are remembered to restart on time; the full comparison
// finds the others.
const restartLimit = 100_000

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

// see looks whether a change left a crashed instance.
func (q *restarts) see(r *store.Record) {
	if r.State == lrp.Crashed {
		q.add(*r.Event().Actual.After, time.Time{})
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
