// Package container says what can happen to one container on one cell, from the moment its resources
// are reserved until it is completed, and how its end is told. It is a CORE: records and events in,
// records out; the rep's runners do the work and feed what happened back as events.
//
//	          Initialize          Create           Run
//	Reserved ────────────► Initializing ─────► Created ─────► Running
//	   │                        │              Launch│         │Ready, Unready
//	   └────────────────────────┴────────────────────┴─────────┴──► Completed
//	             Stop (nothing was launched), Fail, Exit, Vanish
//
// A Created container has a process once it was launched; it is Running once its startup checks
// passed. Stop and Doom only say that a launched container has to end, and why; it completes with
// Exit. Nothing leaves Completed but the destruction of the container, and with it of the record.
//
// # Invariants
//
// Tests cite them by number.
//
//	C1  Only Created and Running containers were launched for the first time.
//	C2  A Running container was launched.
//	C3  Only a Running container is routable.
//	C4  Completed is final: no event changes the record any more.
//	C5  The first cause wins: a reason, once set, is not replaced, and a stopped one stays stopped.
//	C6  Only a launched or a completed container has a result: what was not launched ends at once.
//	C7  A container that is to end does not become running or routable any more.
package container

import (
	"fmt"

	"muster/bbs/lrp"
	"muster/cells"
)

// State is how far a container is, as the cell sees it.
type State string

// The states.
const (
	Reserved     State = "reserved"     // its resources are set aside
	Initializing State = "initializing" // it is being made
	Created      State = "created"      // it exists; see Launched
	Running      State = "running"      // its process passed its startup checks
	Completed    State = "completed"    // it ended or never came to be; it is to be reported and destroyed
)

// States lists every state in order.
var States = []State{Reserved, Initializing, Created, Running, Completed}

// Record is what the cell knows of a container.
type Record struct {
	Key           lrp.Key       // of an instance
	Task          cells.TaskKey // of a task
	Instance      lrp.InstanceGUID
	Resources     cells.Resources
	MaxPids       int32
	RootFS        string
	PlacementTags []string

	State State
	// Launched tells whether its process was started, or at least may have been.
	Launched bool
	// Routable tells whether it may get traffic; only while Running.
	Routable bool
	// NetInfo is where it can be reached; empty before Created.
	NetInfo lrp.NetInfo
	Result  Result
}

// Result says how a container ended, or why it is about to.
type Result struct {
	Failed  bool
	Reason  string // empty for an exit with status 0
	Stopped bool   // it was asked to stop: its end is no crash
	Output  string // of a task that did not fail: what it left in its result file
}

// IsTask tells whether the container is that of a task.
func (r Record) IsTask() bool { return r.Task.GUID != "" }

// Ending tells whether a launched container is to be ended by the cell.
func (r Record) Ending() bool {
	return r.Launched && r.State != Completed && (r.Result.Stopped || r.Result.Failed)
}

// InstanceState is the state as the auctioneer is told.
func (r Record) InstanceState() cells.InstanceState {
	switch {
	case r.State == Running:
		return cells.InstanceRunning
	case r.State == Completed && r.Result.Failed && !r.Result.Stopped:
		return cells.InstanceCrashed
	case r.State == Completed:
		return cells.InstanceShutdown
	}
	return cells.InstanceClaimed
}

// Starting tells whether the container counts as being made.
func (r Record) Starting() bool {
	return r.State == Reserved || r.State == Initializing || r.State == Created
}

// EventName names something that can happen to a container.
type EventName string

// The events.
const (
	Initialize EventName = "initialize" // its making begins
	Create     EventName = "create"     // it was made
	Launch     EventName = "launch"     // its process is being started
	Run        EventName = "run"        // its startup checks passed
	Ready      EventName = "ready"      // its readiness checks pass
	Unready    EventName = "unready"    // a readiness check fails
	Stop       EventName = "stop"       // it is no longer wanted
	Doom       EventName = "doom"       // a check failed for good: it has to end
	Exit       EventName = "exit"       // its process ended
	Fail       EventName = "fail"       // it could not be made, started or ended
	Vanish     EventName = "vanish"     // the engine no longer has it
)

// Events lists every event.
var Events = []EventName{Initialize, Create, Launch, Run, Ready, Unready, Stop, Doom, Exit, Fail, Vanish}

// Event is something that happened to a container.
type Event struct {
	Name     EventName
	NetInfo  lrp.NetInfo // of Create
	Routable bool        // of Run: whether it may get traffic at once
	Reason   string      // of Doom and Fail; of Exit when it failed
	Output   string      // of Exit: of the result file
	ByItself bool        // of Exit: it had ended before it was doomed
}

// rule is one row of the life of a container.
type rule struct {
	on   EventName
	from State
	// launched restricts the row to containers that were launched, or were not; nil means both.
	launched *bool
	// unlessEnding excludes containers that are to end.
	unlessEnding bool
	to           State
	do           func(*Record, Event) // what else changes; nil: nothing
}

func (row rule) answers(r Record, on EventName) bool {
	return row.on == on && row.from == r.State &&
		(row.launched == nil || *row.launched == r.Launched) && !(row.unlessEnding && r.Ending())
}

var yes, no = true, false

// rules is the whole life of a container. No two rows overlap; what has no row is refused.
var rules = []rule{
	{on: Initialize, from: Reserved, to: Initializing},
	{on: Create, from: Initializing, to: Created, do: func(r *Record, ev Event) { r.NetInfo = ev.NetInfo }},
	{on: Launch, from: Created, launched: &no, to: Created, do: func(r *Record, _ Event) { r.Launched = true }},
	{on: Run, from: Created, launched: &yes, unlessEnding: true, to: Running, do: func(r *Record, ev Event) { r.Routable = ev.Routable }},
	{on: Ready, from: Running, unlessEnding: true, to: Running, do: func(r *Record, _ Event) { r.Routable = true }},
	{on: Unready, from: Running, to: Running, do: func(r *Record, _ Event) { r.Routable = false }},

	{on: Stop, from: Reserved, to: Completed, do: stopBeforeRunning},
	{on: Stop, from: Initializing, to: Completed, do: stopBeforeRunning},
	{on: Stop, from: Created, launched: &no, to: Completed, do: stopBeforeRunning},
	{on: Stop, from: Created, launched: &yes, to: Created, do: stop},
	{on: Stop, from: Running, to: Running, do: stop},

	{on: Doom, from: Created, launched: &yes, to: Created, do: fail},
	{on: Doom, from: Running, to: Running, do: fail},

	{on: Exit, from: Created, launched: &yes, to: Completed, do: exit},
	{on: Exit, from: Running, to: Completed, do: exit},

	{on: Fail, from: Reserved, to: Completed, do: fail},
	{on: Fail, from: Initializing, to: Completed, do: fail},
	{on: Fail, from: Created, to: Completed, do: fail},
	{on: Fail, from: Running, to: Completed, do: fail},

	{on: Vanish, from: Created, to: Completed, do: vanish},
	{on: Vanish, from: Running, to: Completed, do: vanish},
}

func stop(r *Record, _ Event) { r.Result.Stopped = true }

func stopBeforeRunning(r *Record, _ Event) {
	fail(r, Event{Reason: StoppedBeforeRunning})
	r.Result.Stopped = true
}

func fail(r *Record, ev Event) {
	if r.Result.Failed {
		return
	}
	r.Result.Failed, r.Result.Reason = true, Cut(ev.Reason)
}

func exit(r *Record, ev Event) {
	switch {
	case r.Result.Stopped:
	case ev.Reason == "":
		r.Result.Output = ev.Output
	case ev.ByItself: // that is why the check failed
		r.Result = Result{Failed: true, Reason: Cut(ev.Reason)}
	default:
		fail(r, ev)
	}
}

func vanish(r *Record, _ Event) { fail(r, Event{Reason: Missing}) }

// Apply answers one event: what the record becomes. A refused event returns the record as it was and
// an error that says what was tried from which state.
func Apply(r Record, ev Event) (Record, error) {
	for _, row := range rules {
		if !row.answers(r, ev.Name) {
			continue
		}
		r.State = row.to
		if row.do != nil {
			row.do(&r, ev)
		}
		if r.State == Completed {
			r.Routable = false
		}
		return r, nil
	}
	return r, fmt.Errorf("%s of container %s: not from %s (launched: %t, ending: %t)", ev.Name, r.Instance, r.State, r.Launched, r.Ending())
}

// Check reports a record that breaks an invariant.
func Check(r Record) error {
	switch {
	case r.Launched && (r.State == Reserved || r.State == Initializing):
		return fmt.Errorf("C1: launched while %s", r.State)
	case r.State == Running && !r.Launched:
		return fmt.Errorf("C2: running without launch")
	case r.Routable && r.State != Running:
		return fmt.Errorf("C3: routable while %s", r.State)
	case r.Result != Result{} && !r.Launched && r.State != Completed:
		return fmt.Errorf("C6: result %+v while %s", r.Result, r.State)
	}
	return nil
}
