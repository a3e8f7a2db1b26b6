package task

import "time"

// Policy is how long and how often. A zero member means at once or never again: take DefaultPolicy and
// change what must be. All processes that write the same tasks need the same policy.
type Policy struct {
	MaxRejections   int32         // rejections that leave a task PENDING; the next one fails it
	ExpirePending   time.Duration // since creation, until a task that was not started fails
	Kick            time.Duration // since its last change, until a RESOLVING task is COMPLETED again, or a COMPLETED one called back again
	ExpireCompleted time.Duration // since its end, until a COMPLETED task is forgotten; well above Kick, or nobody is told twice
}

// DefaultPolicy returns Diego's numbers.
func DefaultPolicy() Policy {
	return Policy{
		MaxRejections:   3,
		ExpirePending:   1800 * time.Second,
		Kick:            30 * time.Second,
		ExpireCompleted: 120 * time.Second,
	}
}

// dueAt returns when the time for the state of a task is over; false when it may stay in it for ever.
func (p Policy) dueAt(t Task) (at time.Time, limited bool) {
	switch t.State {
	case Pending:
		return t.CreatedAt.Add(p.ExpirePending), true
	case Completed:
		return t.FirstCompletedAt.Add(p.ExpireCompleted), true
	case Resolving:
		return t.UpdatedAt.Add(p.Kick), true
	default: // RUNNING: for as long as its cell is there
		return time.Time{}, false
	}
}

// Marks are the times that tell at one moment which tasks are due: those whose own time is not later. They
// are for whoever selects tasks before Plan decides, and who can compare only.
type Marks struct {
	Created   time.Time // of PENDING ones, when they were created
	Updated   time.Time // of RESOLVING ones, and COMPLETED ones that are to be told of, when they last changed
	Completed time.Time // of COMPLETED ones, when they ended
}

// Marks returns the marks of a moment.
func (p Policy) Marks(now time.Time) Marks {
	return Marks{Created: now.Add(-p.ExpirePending), Updated: now.Add(-p.Kick), Completed: now.Add(-p.ExpireCompleted)}
}

// CallbackAt returns when whoever wanted a COMPLETED task is to be told again, because telling did
// not work or nobody tried; false when it never is.
func (p Policy) CallbackAt(t Task) (at time.Time, ok bool) {
	if t.State != Completed || t.Definition.CompletionCallbackURL == "" {
		return time.Time{}, false
	}
	return t.UpdatedAt.Add(p.Kick), true
}

// facts returns all facts that hold. They are asked for here and not by the planner alone, because the
// task may have changed since the plan was made.
func (p Policy) facts(t *Task, now time.Time) Fact {
	var f Fact
	if t == nil {
		return f
	}
	if t.RejectionCount >= p.MaxRejections {
		f |= IsWornOut
	}
	if at, limited := p.dueAt(*t); limited && !now.Before(at) {
		f |= IsDue
	}
	return f
}
