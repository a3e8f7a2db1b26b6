package task

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"muster/cells"
)

// MaxSteps bounds what one plan proposes, and so how long the transaction gets that applies it.
const MaxSteps = 10_000

// Snapshot is all tasks at one moment, and what is known of the cells at that moment.
type Snapshot struct {
	Tasks  []Task // in any order; summaries will do
	Cells  cells.Presences
	Grace  time.Duration // how long a cell must be lost before what ran on it has failed
	Policy Policy
}

// Step is one proposed event and the reason for it, in words for people.
type Step struct {
	Event Event
	Why   string
}

// Plan returns the events that are due, in the order of the GUIDs and at most MaxSteps. It keeps these
// promises:
//
//   - Equal snapshots and times give equal plans; planning again after a plan was applied gives nothing,
//     unless it was cut or a step of it was a Kick, whose task may be due to be forgotten.
//   - No task fails because of a cell of which nothing is known, nor while no cell is present.
//   - Every step is accepted by Apply. If a task moved on since the snapshot, nothing happens to it.
func Plan(s Snapshot, now time.Time) []Step {
	var steps []Step
	for _, t := range s.Tasks {
		if step, at, planned := s.step(t); planned && !now.Before(at) {
			steps = append(steps, step)
		}
	}
	slices.SortFunc(steps, func(a, b Step) int { return cmp.Compare(a.Event.GUID, b.Event.GUID) })
	return steps[:min(len(steps), MaxSteps)]
}

// Callbacks returns the tasks whose completion is to be told again, in the order of the GUIDs and at
// most MaxSteps. It includes those that the plan for the same snapshot kicks, as they are then, and so
// is to be acted on after it; whoever tells marks the task RESOLVING first, so one too many does no
// harm.
func Callbacks(s Snapshot, now time.Time) []Task {
	var due []Task
	for _, t := range s.Tasks {
		if from, until, ok := s.callback(t); ok && !now.Before(from) && now.Before(until) {
			t.State = Completed
			due = append(due, t)
		}
	}
	slices.SortFunc(due, func(a, b Task) int { return cmp.Compare(a.GUID, b.GUID) })
	return due[:min(len(due), MaxSteps)]
}

// Next returns when the next step or callback becomes due after now if nothing changes until then; not
// ok when nothing will.
func Next(s Snapshot, now time.Time) (at time.Time, ok bool) {
	sooner := func(due time.Time, known bool) {
		if known && due.After(now) && (!ok || due.Before(at)) {
			at, ok = due, true
		}
	}
	for _, t := range s.Tasks {
		_, due, planned := s.step(t)
		sooner(due, planned)
		from, until, called := s.callback(t)
		sooner(from, called && from.Before(until))
	}
	return at, ok
}

// step returns what becomes of a task if nobody does anything, and when; false when it stays as it is.
func (s Snapshot) step(t Task) (step Step, at time.Time, planned bool) {
	ev, why := Event{GUID: t.GUID}, ""
	at, planned = s.Policy.dueAt(t)
	switch t.State {
	case Pending:
		ev.Name, why = Expire, fmt.Sprintf("not started for %v, rejected %d times", s.Policy.ExpirePending, t.RejectionCount)
	case Running:
		at, planned = s.Cells.GoneAt(t.Cell, s.Grace)
		ev.Name, ev.Cell, why = Lose, t.Cell, fmt.Sprintf("cell %s has been lost for %v", t.Cell, s.Grace)
	case Completed:
		ev.Name, why = Forget, fmt.Sprintf("completed for %v", s.Policy.ExpireCompleted)
	case Resolving:
		ev.Name, why = Kick, fmt.Sprintf("telling of its completion took more than %v", s.Policy.Kick)
	default: // a state that this program does not know
		return Step{}, time.Time{}, false
	}
	return Step{ev, why}, at, planned
}

// callback returns from when until when a task is to be told of again: at once after it is kicked, and
// not any more when it is to be forgotten.
func (s Snapshot) callback(t Task) (from, until time.Time, ok bool) {
	if t.State == Resolving {
		t.State = Completed // what Kick makes of it, with UpdatedAt as it was
	}
	from, ok = s.Policy.CallbackAt(t)
	return from, t.FirstCompletedAt.Add(s.Policy.ExpireCompleted), ok
}
