package backlog

import (
	"container/heap"
	"time"
)

// alarms are the times at which something is to be done about work that nothing happens to. A time that
// does not hold any more is passed over when it comes.
type alarms struct{ queue alarmQueue }

type alarm struct {
	at time.Time
	of *work
}

// set sets an alarm.
func (a *alarms) set(s *work, at time.Time) { heap.Push(&a.queue, alarm{at, s}) }

// next returns the time of the earliest alarm that holds.
func (a *alarms) next() (at time.Time, ok bool) {
	for len(a.queue) > 0 {
		if first := a.queue[0]; first.holds() {
			return first.at, true
		}
		heap.Pop(&a.queue)
	}
	return time.Time{}, false
}

// take returns work whose alarm has come; nil when there is none.
func (a *alarms) take(now time.Time) *work {
	at, ok := a.next()
	if !ok || now.Before(at) {
		return nil
	}
	return heap.Pop(&a.queue).(alarm).of
}

// holds tells whether the alarm still means something.
func (a alarm) holds() bool {
	if o := a.of.order; o != nil {
		return o.until.Equal(a.at)
	}
	return a.of.open && a.of.retryAt.Equal(a.at)
}

// alarmQueue is ordered by time, for container/heap.
type alarmQueue []alarm

func (q alarmQueue) Len() int           { return len(q) }
func (q alarmQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q alarmQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *alarmQueue) Push(x any)        { *q = append(*q, x.(alarm)) }
func (q *alarmQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}
