package task

import (
	"fmt"

	"muster/bbs/lrp"
)

// EventName names something that can happen to a task. The same word is the RPC, the metric label
// and the span.
type EventName string

// The events.
const (
	Desire   EventName = "desire"   // somebody wants it
	Start    EventName = "start"    // a cell is about to run it
	Complete EventName = "complete" // its cell reports that it ended
	Cancel   EventName = "cancel"   // nobody wants it any more
	Fail     EventName = "fail"     // it cannot be run
	Reject   EventName = "reject"   // it could not be placed
	Resolve  EventName = "resolve"  // whoever wanted it is being told
	Delete   EventName = "delete"   // whoever wanted it knows

	// What convergence does.
	Expire EventName = "expire" // it waited for too long to be started
	Lose   EventName = "lose"   // the cell that ran it is gone
	Kick   EventName = "kick"   // telling takes too long: RESOLVING back to COMPLETED
	Forget EventName = "forget" // it has been completed for long enough
)

// Event is something that happens to a task.
type Event struct {
	Name EventName
	GUID GUID
	// Cell is the cell that says so: of Start and Complete, and of a Reject by a cell, which is the only
	// one that a RUNNING task accepts. Of Lose it is the cell that is gone.
	Cell lrp.CellID

	Task *Task // of Desire; only GUID, Domain and Definition count

	Failed bool   // of Complete
	Result string // of Complete; ignored if Failed
	Reason string // the failure reason of Complete and Fail, the rejection reason of Reject
}

// Why says why an event was refused. The texts are Diego's error names: clients compare them.
type Why string

// The reasons.
const (
	NotFound               Why = "ResourceNotFound"
	Exists                 Why = "ResourceExists"
	InvalidRequest         Why = "InvalidRequest" // Reject of a task that is over
	InvalidStateTransition Why = "InvalidStateTransition"
	RunningOnDifferentCell Why = "RunningOnDifferentCell"
)

// Refusal is the answer to an event that the rules do not allow. It is data: errors.As finds it on
// either side of the wire.
type Refusal struct {
	GUID  GUID
	Event EventName
	From  State      // Invalid when there is no such task
	To    State      // where the event leads
	Held  lrp.CellID // the cell that runs it
	By    lrp.CellID // the cell that asked
	Why   Why
}

// Change is what an event did to a task: Before is nil when it was created, After is nil when it was
// deleted.
type Change struct {
	Before, After *Task
}

// Outcome is the answer to an event.
type Outcome struct {
	Task *Task // what the task has become; nil: there is none
	// ShouldStart tells a cell that asked to start a task that it is the one to run it. Asking again
	// is no error, but the answer is no.
	ShouldStart bool
}

// Error says what was tried, on what, and why it was refused.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s of task %s refused: %s (%s)", r.Event, r.GUID, r.Text(), r.Why)
}

// Text returns the reason in the words of Diego's own errors, for clients that show them to people.
func (r *Refusal) Text() string {
	switch r.Why {
	case NotFound:
		return "the requested resource could not be found"
	case Exists:
		return "the requested resource already exists"
	case InvalidRequest:
		return "the request received is invalid"
	case RunningOnDifferentCell:
		return fmt.Sprintf("Running on cell %s not %s", r.Held, r.By)
	default:
		return fmt.Sprintf("Cannot transition from %v to %v", r.From, r.To)
	}
}
