// Package align compares what a cell has with what the BBS believes about it, and says what to do
// next. It is a CORE: the same function decides for the runner of one instance, after anything
// happened to it, and for the full comparison that makes good what was missed.
//
// It destroys nothing on the word of a list: an instance that a list does not show is reported
// again, and only the BBS's refusal of that report, or its wish that the instance retire, ends it.
// So a lost, late or repeated message costs a call, never a container.
//
// # Invariants
//
// Tests cite them by number.
//
//	A1  A process is launched only while the BBS says that the instance holds its slot.
//	A2  A container is destroyed only when completed, and only after its end was answered by the BBS
//	    or the BBS said that the instance is lost.
//	A3  What is as it should be causes no move.
//	A4  Carrying out the moves again and again comes to an end: nothing, with a running or without a container.
package align

import (
	"maps"
	"slices"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells/container"
)

// Standing is what the cell knows of an instance's record in the BBS.
type Standing string

// The standings.
const (
	Unheard Standing = "unheard" // nothing was heard about it yet
	Absent  Standing = "absent"  // the BBS has no record of this instance on this cell
	Holds   Standing = "holds"   // its record names this instance on this cell
	Lost    Standing = "lost"    // the BBS refused a report: the slot is someone else's, or nobody's
	Told    Standing = "told"    // its end was reported and answered
)

// Known is what the cell knows of an instance's record in the BBS.
type Known struct {
	Standing Standing
	State    lrp.State // while Holds: Claimed or Running
	Retiring bool      // while Holds: it is to be stopped
	Report   Report    // while Running: what was reported last
}

// Report is what a Start tells the BBS.
type Report struct {
	NetInfo          lrp.NetInfo
	InternalRoutes   []string
	MetricTags       map[string]string
	Routable         bool
	AvailabilityZone string
}

// Equal tells whether two reports say the same.
func (r Report) Equal(o Report) bool {
	a, b := r.NetInfo, o.NetInfo
	return a.Address == b.Address && a.InstanceAddress == b.InstanceAddress &&
		a.InstanceIPv6Address == b.InstanceIPv6Address && a.Preferred == b.Preferred &&
		slices.Equal(a.Ports, b.Ports) && slices.Equal(r.InternalRoutes, o.InternalRoutes) &&
		maps.Equal(r.MetricTags, o.MetricTags) && r.Routable == o.Routable && r.AvailabilityZone == o.AvailabilityZone
}

// KnownOf returns what a record says about the instance that it names.
func KnownOf(a lrp.Actual) Known {
	k := Known{Standing: Holds, State: a.State, Retiring: a.Retiring}
	if a.State == lrp.Running {
		k.Report = Report{
			NetInfo: a.NetInfo, InternalRoutes: a.InternalRoutes, MetricTags: a.MetricTags,
			Routable: a.Routable, AvailabilityZone: a.AvailabilityZone,
		}
	}
	return k
}

// KnownOfTask returns what a record says about the task that this cell has a container for.
func KnownOfTask(t task.Task, cell lrp.CellID) Known {
	if t.State == task.Running && t.Cell == cell {
		return Known{Standing: Holds, State: lrp.Claimed}
	}
	return Known{Standing: Absent} // asking to start it again will tell
}

// Move is something to do about one instance or task.
type Move string

// The moves. Claim, Start, Crash and Remove are calls of the BBS with that name; for a task, see TaskCall.
const (
	Make    Move = "make"    // make the container
	Claim   Move = "claim"   // ask for the slot
	Launch  Move = "launch"  // start the process
	Resume  Move = "resume"  // it was running in an earlier life of the rep: it still is
	Start   Move = "start"   // report it running, with its addresses
	Stop    Move = "stop"    // end it gracefully
	Crash   Move = "crash"   // report that it ended by itself
	Remove  Move = "remove"  // report that it is gone because it was asked to
	Destroy Move = "destroy" // remove the container and give back what it held
)

// Next returns what to do about an instance with a container, in the order in which to begin. want is
// what a Start would say now. Moves that are under way are returned again: the caller knows them.
func Next(c container.Record, k Known, want Report) []Move {
	switch {
	case c.State == container.Completed:
		return []Move{completed(c, k)}
	case k.Standing == Lost, k.Standing == Told, k.Standing == Holds && k.Retiring:
		if c.Result.Stopped {
			return nil // under way
		}
		return []Move{Stop}
	case c.Ending():
		return nil // under way
	}
	switch c.State {
	case container.Reserved:
		// Making takes longest and needs no claim: both begin at once.
		return append(claim(k), Make)
	case container.Initializing:
		return claim(k)
	case container.Created:
		return created(c, k)
	default:
		return running(c, k, want)
	}
}

// completed decides about a container that ended or never came to be.
func completed(c container.Record, k Known) Move {
	switch {
	case k.Standing == Lost, k.Standing == Told:
		return Destroy
	case c.Result.Stopped, k.Retiring:
		return Remove
	case !c.Launched && k.Standing != Holds:
		// Only a holder may report a crash, and what was not launched may not have the slot yet.
		return Claim
	default:
		return Crash
	}
}

func claim(k Known) []Move {
	if k.Standing == Holds {
		return nil
	}
	return []Move{Claim}
}

// created decides about a container that exists and is not running yet.
func created(c container.Record, k Known) []Move {
	switch {
	case k.Standing == Holds && !c.Launched:
		return []Move{Launch}
	case k.Standing == Holds && k.State == lrp.Running:
		return []Move{Resume}
	case k.Standing == Unheard && c.Launched:
		// Adopted. It held the slot once, maybe as RUNNING, which a claim would undo: wait for the list.
		return nil
	default:
		return claim(k)
	}
}

// running decides about a container that passed its startup checks.
func running(c container.Record, k Known, want Report) []Move {
	switch {
	case k.Standing == Unheard:
		return nil
	case c.IsTask(): // nobody is told that it runs
		return claim(k)
	case k.Standing == Holds && k.State == lrp.Running && k.Report.Equal(want):
		return nil
	default:
		return []Move{Start}
	}
}

// TaskCall returns what a move means for a task: to claim it is to start it, and its end is its completion. A
// container that was not started is no end: the task goes back, to be placed anew. What was started, or
// may have been, never runs again.
func TaskCall(m Move, c container.Record) task.EventName {
	switch {
	case m == Claim:
		return task.Start
	case c.Launched:
		return task.Complete
	}
	return task.Reject
}

// StartedBefore says what it means that the BBS calls a task running on this cell already: that an earlier
// attempt of the cell to start it was answered with yes, if that answer was lost, or if its container was
// started; else somebody else on this cell has it.
func StartedBefore(c container.Record, unanswered bool) Known {
	if unanswered || c.Launched {
		return Known{Standing: Holds, State: lrp.Claimed}
	}
	return Known{Standing: Lost}
}

// OrphanTasks returns the tasks that this cell is said to run and does not have.
func OrphanTasks(tasks []task.Task, cell lrp.CellID, has func(task.GUID) bool) []task.Task {
	var orphans []task.Task
	for _, t := range tasks {
		if t.State == task.Running && t.Cell == cell && !has(t.GUID) {
			orphans = append(orphans, t)
		}
	}
	return orphans
}

// Orphans returns the records that name this cell and an instance that it does not have, in the
// order given: the cell reports them gone. has tells which instances have a container or are about
// to; it must be asked after the records were read, or a newer instance would look missing.
func Orphans(records []lrp.Actual, has func(lrp.InstanceGUID) bool) []lrp.Actual {
	var orphans []lrp.Actual
	for _, a := range records {
		if !a.InstanceKey.IsZero() && !has(a.Instance) {
			orphans = append(orphans, a)
		}
	}
	return orphans
}
