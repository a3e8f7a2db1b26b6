package task

import (
	"fmt"
	"time"

	"muster/bbs/lrp"
)

// Apply answers one event for one task; t is nil when there is no such task. It changes nothing it was
// given; equal arguments give equal results.
//
// A refused event returns a *Refusal, an invalid one an *lrp.Invalid, both with the task as it was. An
// accepted event that changes nothing returns t itself, and nothing is to be written; Diff tells.
func Apply(t *Task, ev Event, p Policy, now time.Time) (Outcome, error) {
	as := Outcome{Task: t}
	if err := ev.Validate(); err != nil {
		return as, err
	}
	if t != nil && t.GUID != ev.GUID {
		return as, fmt.Errorf("%s of task %s meets task %s", ev.Name, ev.GUID, t.GUID)
	}
	by, facts := caller(t, ev), p.facts(t, now)
	for _, r := range rules {
		if r.covers(ev.Name, state(t), by, facts) {
			return Outcome{Task: do(r.Do, t, ev, now), ShouldStart: r.Do == DoStart}, nil
		}
	}
	refused := &Refusal{GUID: ev.GUID, Event: ev.Name, From: state(t), To: targets[ev.Name], By: ev.Cell}
	if t != nil {
		refused.Held = t.Cell
	}
	refused.Why = whyNot(ev.Name, state(t), by)
	return as, refused
}

// state returns the state of a task that may not exist.
func state(t *Task) State {
	if t == nil {
		return NoTask
	}
	return t.State
}

// caller returns how the cell of an event stands to the task.
func caller(t *Task, ev Event) Caller {
	switch {
	case ev.Cell == "":
		return Nobody
	case t != nil && t.Cell == ev.Cell:
		return Holder
	default:
		return Stranger
	}
}

// do returns the task after a deed; nil when it is gone. A task is replaced, never changed: whoever
// holds the one from before still sees it as it was.
func do(d Deed, t *Task, ev Event, now time.Time) *Task {
	switch d {
	case DoCreate:
		return &Task{
			GUID: ev.GUID, Domain: ev.Task.Domain, Definition: ev.Task.Definition,
			State: Pending, CreatedAt: now, UpdatedAt: now,
		}
	case DoStart:
		n := t.touched(now)
		n.State, n.Cell = Running, ev.Cell
		return n
	case DoComplete:
		if ev.Failed {
			return t.failed(ev.Reason, now)
		}
		n := t.ended(now)
		n.Result = lrp.StorableText(ev.Result)
		return n
	case DoCancel:
		return t.failed(ReasonCancelled, now)
	case DoFail:
		return t.failed(ev.Reason, now)
	case DoReturn:
		return t.rejected(ev.Reason, now)
	case DoGiveUp:
		return t.rejected(ev.Reason, now).failed(ev.Reason, now)
	case DoResolve:
		n := t.touched(now)
		n.State = Resolving
		return n
	case DoDelete:
		return nil
	case DoExpire:
		return t.failed(ReasonExpired, now)
	case DoLose:
		return t.failed(ReasonLost, now)
	case DoKick:
		n := *t
		n.State = Completed
		return &n
	case DoNothing:
	}
	return t
}

// touched returns a copy that changed now. UpdatedAt never runs backwards, whatever the clock does.
func (t *Task) touched(now time.Time) *Task {
	n := *t
	if now.After(t.UpdatedAt) {
		n.UpdatedAt = now
	}
	return &n
}

// ended returns the task as it is when it is over.
func (t *Task) ended(now time.Time) *Task {
	n := t.touched(now)
	n.State, n.Cell, n.FirstCompletedAt = Completed, "", n.UpdatedAt
	return n
}

// failed returns the task as it is when it is over and was in vain: without a result, as readers of
// failed tasks expect.
func (t *Task) failed(reason string, now time.Time) *Task {
	n := t.ended(now)
	n.Failed, n.FailureReason = true, lrp.StorableReason(reason)
	return n
}

// rejected returns the task to be placed again.
func (t *Task) rejected(reason string, now time.Time) *Task {
	n := t.touched(now)
	n.State, n.Cell = Pending, ""
	n.RejectionCount, n.RejectionReason = t.RejectionCount+1, lrp.StorableReason(reason)
	return n
}

// Diff returns what changed from one task to another; nil when nothing did. Either may be nil for no
// task. Definitions are not compared: they never change.
func Diff(before, after *Task) *Change {
	if same(before, after) {
		return nil
	}
	return &Change{Before: before, After: after}
}

// same tells whether two tasks are equal but for their definitions. Equal times in different zones are.
func same(a, b *Task) bool {
	if a == nil || b == nil || a == b {
		return a == b
	}
	return a.GUID == b.GUID && a.Domain == b.Domain && a.State == b.State && a.Cell == b.Cell &&
		a.CreatedAt.Equal(b.CreatedAt) && a.UpdatedAt.Equal(b.UpdatedAt) && a.FirstCompletedAt.Equal(b.FirstCompletedAt) &&
		a.Result == b.Result && a.Failed == b.Failed && a.FailureReason == b.FailureReason &&
		a.RejectionCount == b.RejectionCount && a.RejectionReason == b.RejectionReason
}
