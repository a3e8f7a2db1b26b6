package lrp

import (
	"fmt"
	"time"
)

// EventName names something that can happen to a slot. The same word is the RPC, the metric label
// and the span.
type EventName string

// The events.
const (
	Create  EventName = "create"  // the slot became wanted
	Claim   EventName = "claim"   // a cell takes the slot
	Start   EventName = "start"   // a cell reports a running instance
	Crash   EventName = "crash"   // a cell reports that an instance ended by itself
	Fail    EventName = "fail"    // the auctioneer could not place it
	Retire  EventName = "retire"  // the instance is to be stopped
	Remove  EventName = "remove"  // a cell reports that a stopped instance is gone
	Restart EventName = "restart" // the back-off of a crashed instance is over

	// Of an evacuation: what a cell that is drained reports of its instances.
	EvacuateClaimed  EventName = "evacuate_claimed"  // it will not start the instance
	EvacuateRunning  EventName = "evacuate_running"  // the instance runs, and has to move
	EvacuateCrashed  EventName = "evacuate_crashed"  // the instance ended by itself
	EvacuateStopped  EventName = "evacuate_stopped"  // the instance was stopped
	RemoveEvacuating EventName = "remove_evacuating" // the evacuating instance is gone

	// Of convergence, about cells that come and go. By names the instance that is meant, so that a plan
	// made from an old snapshot hits nobody else.
	Lose    EventName = "lose"    // the cell of the instance went silent
	Return  EventName = "return"  // the cell of the suspect instance is back
	Discard EventName = "discard" // nobody needs the suspect or evacuating instance any more
)

// Event is something that happens to a slot.
type Event struct {
	Name EventName
	Key  Key
	// By is the instance that says so, or of which it is said. Zero for Create, Fail, Retire and Restart;
	// for Remove zero matches any instance.
	By InstanceKey
	// Epoch is the epoch of a record that the event creates; random, chosen by the caller.
	Epoch string

	// Reason is the crash reason of Crash and EvacuateCrashed, and the placement error of Fail.
	Reason string
	// Explanation is that of the placement error of Fail; nil when there is none.
	Explanation *Explanation

	// What Start and EvacuateRunning report.
	NetInfo          NetInfo
	InternalRoutes   []string
	MetricTags       map[string]string
	Routable         bool
	AvailabilityZone string
}

// CrashReport is the effect of a crash: what consumers of crash events are told. The change of the
// record itself shows in the difference of the groups.
type CrashReport struct {
	Key    Key
	By     InstanceKey // the instance that crashed
	Count  int32       // crashes in a row, this one included
	Reason string      // not cut
}

// Why says why an event was refused. The texts are Diego's error names: clients compare them.
type Why string

// The reasons.
const (
	NotFound        Why = "ResourceNotFound"
	Exists          Why = "ResourceExists"
	CannotBeClaimed Why = "ActualLRPCannotBeClaimed"
	CannotBeStarted Why = "ActualLRPCannotBeStarted"
	CannotBeCrashed Why = "ActualLRPCannotBeCrashed"
	CannotBeFailed  Why = "ActualLRPCannotBeFailed"
	CannotBeRemoved Why = "ActualLRPCannotBeRemoved"
)

// Refusal is the answer to an event that the rules do not allow. It is data: errors.As finds it on
// either side of the wire.
type Refusal struct {
	Slot  Slot
	Event EventName
	From  State       // state of the ordinary instance; empty when there is none
	Held  InstanceKey // who holds the slot
	By    InstanceKey // who asked
	Why   Why
}

// Error says what was tried, on what, and why it was refused.
func (r *Refusal) Error() string {
	from := "no instance"
	if r.From != "" {
		from = fmt.Sprintf("%s held by %v", r.From, r.Held)
	}
	return fmt.Sprintf("%s of %v by %v refused: %s (%s)", r.Event, r.Slot, r.By, r.Why, from)
}

// Change is what an event did to one instance of a group: Before is nil when it was created, After
// is nil when it was removed.
type Change struct {
	Before, After *Actual
}

// ToldByCell tells whether nothing but a report by the cell that has the instance makes such a change, mostly
// a claim or a start: an ordinary instance that is to stay has come to that cell, or is still there. Of the
// records only cell, presence and mark are looked at.
func (c Change) ToldByCell() bool {
	stays := func(a *Actual) bool { return a != nil && a.Presence == Ordinary && !a.Retiring }
	return stays(c.Before) && stays(c.After) && c.After.Cell != "" && (c.Before.Cell == "" || c.Before.Cell == c.After.Cell)
}

// Limits of the crash policy (Diego's, bbs reference §4).
const (
	// ImmediateRestarts is the number of crashes in a row that restart at once.
	ImmediateRestarts = 2
	// MaxRestarts is the number of crashes in a row after which nothing restarts any more.
	MaxRestarts = 200
	// CrashResetAfter is how long an instance must have run for its crash count to start over.
	CrashResetAfter = 5 * time.Minute
	// MinBackOff is the wait before the first delayed restart; it doubles with each crash.
	MinBackOff = 30 * time.Second
	// MaxBackOff is the longest wait.
	MaxBackOff = 16 * time.Minute
	// MaxReasonBytes is the longest placement error or crash reason that is stored.
	MaxReasonBytes = 1024
)
