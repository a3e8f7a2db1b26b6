package task

import "muster/bbs/lrp"

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
	Cell lrp.CellID // of Start, Complete and Lose

	Task *Task // of Desire: GUID, Domain and Definition

	Failed bool   // of Complete
	Result string // of Complete
	Reason string // the failure reason of Complete and Fail, the rejection reason of Reject
}

// Why says why an event was refused. The texts are Diego's error names: clients compare them.
type Why string

// The reasons.
const (
	NotFound               Why = "ResourceNotFound"
	Exists                 Why = "ResourceExists"
	InvalidRequest         Why = "InvalidRequest" // Reject of a task that has ended
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
	return string(r.Event) + " of task " + string(r.GUID) + ": " + string(r.Why)
}
