package lrp

import "slices"

// The life of an ordinary instance:
//
//	               ┌─────────────── Start by any instance ───────────────┐
//	               │                                                     ▼
//	Create ──► UNCLAIMED ──── Claim ────► CLAIMED ──── Start ───────► RUNNING
//	            ▲  ▲                       │  ▲                        │  │
//	            │  │                       │  └──── Claim again ───────┘  │
//	            │  └──── crash 1, 2 ───────┴──────────────────────────────┤
//	            │                          ▼ crash 3, 4 …                 │
//	            └─────── Restart ─────── CRASHED ◄───── crash 3, 4 … ─────┘
//
//	Places:     ordinary ──── Lose: its cell is silent ───────────► suspect
//	            ordinary ◄─── Return: its cell is back ──────────── suspect
//	            ordinary ──── EvacuateRunning: its cell is drained ► evacuating
//	            suspect and evacuating ones go when an ordinary one starts
//
// Create makes an UNCLAIMED record. Retire marks a CLAIMED or RUNNING one as retiring, upon which
// its cell stops the container and calls Remove; any other record it removes at once. Whatever
// removes the record of a wanted slot, or moves it to another place, leaves a new UNCLAIMED one.
//
// A record follows its instance from place to place, with its epoch: it is known by that.

// Rule says what some events do in some situations. An event that no rule covers is refused.
type Rule struct {
	On   []EventName
	From []State // states of the ordinary instance; NoInstance when there is none
	By   Caller  // who reports it, or of whom it is said, as a set
	If   Fact    // all of these hold
	Not  Fact    // none of these holds
	Do   Deed
	// To are the states that the deed can leave the ordinary instance in. Where it leaves none, a wanted
	// slot gets a new UNCLAIMED one in the same step.
	To []State
	// Keep lets the container of an evacuated instance run on.
	Keep bool
}

// NoInstance stands for the state of an ordinary instance that does not exist.
const NoInstance State = ""

// Caller says how whoever an event names stands to the slot. Constants can be joined to sets.
type Caller uint8

// The callers. Exactly one fits each event and group; the first that does counts.
const (
	SuspectOne    Caller = 1 << iota // the suspect instance of the slot
	EvacuatingOne                    // the evacuating instance of the slot
	Foreigner                        // a report of another domain than that of the records of the slot
	Nobody                           // the event names no instance
	Holder                           // the ordinary instance itself
	Stranger                         // any other instance

	Sibling = SuspectOne | EvacuatingOne
	Anyone  = Sibling | Foreigner | Nobody | Holder | Stranger
)

// Fact is something that is so or not. Constants can be joined to sets.
type Fact uint16

// The facts.
const (
	IsWanted      Fact = 1 << iota // the slot is desired
	IsRetiring                     // the ordinary instance is to be stopped
	IsDue                          // the ordinary instance is CRASHED and its back-off is over
	IsSettled                      // the ordinary instance is CRASHED, or RUNNING and to stay: there is nothing to wait for
	IsLeaving                      // the caller is evacuating, and is to be stopped
	HasEvacuating                  // there is an evacuating instance that is to stay until it is replaced
	HasSuspect                     // there is a suspect instance
	HasSibling                     // there is an evacuating or suspect instance
	IsRecreate                     // the process must not run two instances of a slot while it moves
	IsComplete                     // as many ordinary instances of the process serve as are desired: Actual.Serves

	allFacts = IsComplete<<1 - 1
)

// Deed is what a rule does.
type Deed string

// The deeds. Any deed that changes the content of a record moves its tag, and Since unless it only
// changes its place.
const (
	DoNothing     Deed = "nothing"        // accepted, but nothing is written
	DoCreate      Deed = "create"         // a new UNCLAIMED record
	DoAssign      Deed = "assign"         // CLAIMED by the caller; addresses and placement error go
	DoReport      Deed = "report"         // the record of the caller, RUNNING as reported; without news nothing is written
	DoTakePlace   Deed = "take the place" // the caller is the ordinary instance, as reported; its siblings go
	DoCount       Deed = "count"          // the crash counts: UNCLAIMED or CRASHED by the crash policy
	DoNote        Deed = "note"           // the placement error is kept; the same one again writes nothing
	DoMark        Deed = "mark"           // the ordinary instance is retiring
	DoWindUp      Deed = "wind up"        // what has a cell that answers is retiring; other records go
	DoRemove      Deed = "remove"         // the ordinary record goes
	DoCrashRemove Deed = "remove, report" // the ordinary record goes, and the crash is reported
	DoDrop        Deed = "drop"           // the evacuating or suspect record of the caller goes
	DoUnclaim     Deed = "unclaim"        // UNCLAIMED again; the crash count stays
	DoEvacuate    Deed = "evacuate"       // the caller becomes evacuating, as reported; where it was ordinary its siblings go
	DoSuspect     Deed = "suspect"        // the ordinary instance becomes suspect
	DoReturn      Deed = "return"         // the suspect instance becomes ordinary; the record there goes
)

// rules is the whole life of an instance. No two rows overlap: TestRulesPartition proves it.
//
// While a cell is silent its instances are left where they are: what they report of themselves is
// kept, but they cannot take the slot before their cell is known to be back. That a suspect or
// evacuating instance ended is believed at once.
var rules = []Rule{
	{On: on(Create), From: in(NoInstance), By: Anyone, If: IsWanted, Do: DoCreate, To: in(Unclaimed)},

	{On: on(Claim), From: anywhere(), By: Sibling, Do: DoNothing, To: anywhere()},
	{On: on(Claim), From: in(Unclaimed), By: Stranger, Do: DoAssign, To: in(Claimed)},
	{On: on(Claim), From: in(Claimed), By: Holder, Do: DoNothing, To: in(Claimed)},
	{On: on(Claim), From: in(Running), By: Holder, Do: DoAssign, To: in(Claimed)},

	{On: on(Start), From: in(NoInstance), By: Stranger | EvacuatingOne, If: IsWanted, Not: IsLeaving, Do: DoTakePlace, To: in(Running)},
	{On: on(Start), From: in(Unclaimed), By: Stranger | EvacuatingOne, Not: IsLeaving, Do: DoTakePlace, To: in(Running)},
	// A lost claim heals here: whoever runs first has the slot. The loser's next call is refused. An
	// evacuating instance that says Start is on a cell that is drained no longer.
	{On: on(Start), From: in(Claimed), By: Holder | Stranger | EvacuatingOne, Not: IsRetiring | IsLeaving, Do: DoTakePlace, To: in(Running)},
	{On: on(Start), From: in(Running), By: Holder, Not: IsRetiring, Do: DoTakePlace, To: in(Running)},
	// It is about to stop: it must not take the routes of siblings down with it.
	{On: on(Start), From: in(Claimed, Running), By: Holder, If: IsRetiring, Do: DoReport, To: in(Running)},
	{On: on(Start), From: anywhere(), By: SuspectOne, Do: DoReport, To: anywhere()},
	{On: on(Start), From: anywhere(), By: EvacuatingOne, If: IsLeaving, Do: DoReport, To: anywhere()},
	{On: on(Start), From: in(Claimed, Running), By: EvacuatingOne, If: IsRetiring, Not: IsLeaving, Do: DoReport, To: in(Claimed, Running)},

	{On: on(Crash, Remove, EvacuateClaimed, EvacuateCrashed, EvacuateStopped), From: anywhere(), By: Sibling, Do: DoDrop, To: anywhere()},
	{On: on(RemoveEvacuating), From: anywhere(), By: EvacuatingOne, Do: DoDrop, To: anywhere()},

	{On: on(Crash, EvacuateCrashed), From: in(Claimed, Running), By: Holder, If: IsWanted, Not: IsRetiring, Do: DoCount, To: in(Unclaimed, Crashed)},
	{On: on(Crash, EvacuateCrashed), From: in(Claimed, Running), By: Holder, Not: IsWanted | IsRetiring, Do: DoCrashRemove, To: in(NoInstance)},
	// Told to stop, many programs end with an error. That is no crash.
	{On: on(Crash, EvacuateCrashed), From: in(Claimed, Running), By: Holder, If: IsRetiring, Do: DoRemove, To: in(NoInstance)},

	{On: on(Fail), From: in(NoInstance), By: Anyone, Do: DoNothing, To: in(NoInstance)},
	{On: on(Fail), From: in(Unclaimed), By: Anyone, Do: DoNote, To: in(Unclaimed)},

	{On: on(Retire), From: in(Unclaimed, Crashed), By: Anyone, If: IsWanted, Do: DoRemove, To: in(NoInstance)},
	{On: on(Retire), From: in(Claimed, Running), By: Anyone, If: IsWanted, Not: IsRetiring, Do: DoMark, To: in(Claimed, Running)},
	{On: on(Retire), From: in(Claimed, Running), By: Anyone, If: IsWanted | IsRetiring, Do: DoNothing, To: in(Claimed, Running)},
	// Of a slot that nobody wants all instances are to go, wherever they are.
	{On: on(Retire), From: in(Unclaimed, Claimed, Running, Crashed), By: Anyone, Not: IsWanted, Do: DoWindUp, To: in(NoInstance, Claimed, Running)},
	{On: on(Retire), From: in(NoInstance), By: Anyone, If: HasSibling, Not: IsWanted, Do: DoWindUp, To: in(NoInstance)},

	{On: on(Remove), From: in(Unclaimed, Crashed), By: Nobody, Do: DoRemove, To: in(NoInstance)},
	{On: on(Remove), From: in(Claimed, Running), By: Nobody | Holder, Do: DoRemove, To: in(NoInstance)},

	{On: on(Restart), From: in(Crashed), By: Anyone, If: IsWanted | IsDue, Do: DoUnclaim, To: in(Unclaimed)},
	// A plan made from an older snapshot: somebody else was faster, or nobody wants it any more.
	{On: on(Restart), From: in(Crashed), By: Anyone, If: IsWanted, Not: IsDue, Do: DoNothing, To: in(Crashed)},
	{On: on(Restart), From: in(Crashed), By: Anyone, Not: IsWanted, Do: DoNothing, To: in(Crashed)},
	{On: on(Restart), From: in(Unclaimed, Claimed, Running), By: Anyone, Do: DoNothing, To: in(Unclaimed, Claimed, Running)},

	{On: on(EvacuateClaimed), From: in(Claimed, Running), By: Holder, If: IsWanted, Not: IsRetiring, Do: DoUnclaim, To: in(Unclaimed)},
	{On: on(EvacuateClaimed), From: in(Claimed, Running), By: Holder, If: IsWanted | IsRetiring, Do: DoRemove, To: in(NoInstance)},
	{On: on(EvacuateClaimed), From: in(Claimed, Running), By: Holder, Not: IsWanted, Do: DoRemove, To: in(NoInstance)},

	{On: on(EvacuateStopped), From: in(Claimed, Running), By: Holder, Do: DoRemove, To: in(NoInstance)},

	// The ordinary instance has to move. It keeps its routes until another one runs.
	{On: on(EvacuateRunning), From: in(Running), By: Holder, If: IsWanted, Not: IsRetiring | IsRecreate, Do: DoEvacuate, To: in(Unclaimed), Keep: true},
	{On: on(EvacuateRunning), From: in(Claimed), By: Holder, If: IsWanted, Not: IsRetiring | IsRecreate | HasEvacuating, Do: DoEvacuate, To: in(Unclaimed), Keep: true},
	// It is the replacement of one that evacuates too. First it takes its place; the next call moves it.
	{On: on(EvacuateRunning), From: in(Claimed), By: Holder, If: IsWanted | HasEvacuating, Not: IsRetiring | IsRecreate, Do: DoTakePlace, To: in(Running), Keep: true},
	// Where two must never run, it stops first; but only while all others run, so that one is down at a time.
	{On: on(EvacuateRunning), From: in(Running), By: Holder, If: IsWanted | IsRecreate | IsComplete, Not: IsRetiring, Do: DoUnclaim, To: in(Unclaimed)},
	{On: on(EvacuateRunning), From: in(Running), By: Holder, If: IsWanted | IsRecreate, Not: IsRetiring | IsComplete, Do: DoReport, To: in(Running), Keep: true},
	{On: on(EvacuateRunning), From: in(Claimed), By: Holder, If: IsWanted | IsRecreate, Not: IsRetiring, Do: DoTakePlace, To: in(Running), Keep: true},
	// It is to stop in any case. The record goes when its cell says that it did.
	{On: on(EvacuateRunning), From: in(Claimed, Running), By: Holder, If: IsRetiring, Do: DoNothing, To: in(Claimed, Running)},
	{On: on(EvacuateRunning), From: in(Claimed, Running), By: Holder, Not: IsWanted | IsRetiring, Do: DoMark, To: in(Claimed, Running)},

	// Siblings go when nobody waits for them: not wanted, told to stop, not allowed, or replaced.
	{On: on(EvacuateRunning), From: anywhere(), By: Sibling, Not: IsWanted, Do: DoDrop, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: Sibling, If: IsWanted | IsLeaving, Do: DoDrop, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: Sibling, If: IsWanted | IsRecreate, Not: IsLeaving, Do: DoDrop, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: Sibling, If: IsWanted | IsSettled, Not: IsLeaving | IsRecreate, Do: DoDrop, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: EvacuatingOne, If: IsWanted, Not: IsLeaving | IsRecreate | IsSettled, Do: DoReport, To: anywhere(), Keep: true},
	{On: on(EvacuateRunning), From: anywhere(), By: SuspectOne, If: IsWanted, Not: IsLeaving | IsRecreate | IsSettled | HasEvacuating, Do: DoEvacuate, To: anywhere(), Keep: true},
	// One evacuating instance is enough.
	{On: on(EvacuateRunning), From: anywhere(), By: SuspectOne, If: IsWanted | HasEvacuating, Not: IsLeaving | IsRecreate | IsSettled, Do: DoDrop, To: anywhere()},

	// An instance without a record, of a slot that has nothing better.
	{On: on(EvacuateRunning), From: in(Unclaimed, Claimed, Running), By: Stranger, If: IsWanted, Not: IsRecreate | IsSettled | HasEvacuating, Do: DoEvacuate, To: in(Unclaimed, Claimed, Running), Keep: true},
	{On: on(EvacuateRunning), From: in(NoInstance), By: Stranger, If: IsWanted, Not: IsRecreate | IsSettled | HasEvacuating, Do: DoNothing, To: in(NoInstance), Keep: true},
	{On: on(EvacuateRunning), From: anywhere(), By: Stranger, If: IsWanted | HasEvacuating, Not: IsRecreate | IsSettled, Do: DoNothing, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: Stranger, If: IsWanted | IsSettled, Not: IsRecreate, Do: DoNothing, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: Stranger, If: IsWanted | IsRecreate, Do: DoNothing, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: Stranger, Not: IsWanted, Do: DoNothing, To: anywhere()},
	{On: on(EvacuateRunning), From: anywhere(), By: Foreigner, Do: DoNothing, To: anywhere()},

	{On: on(Lose), From: in(Claimed, Running), By: Holder, If: IsWanted, Not: IsRetiring | HasSuspect, Do: DoSuspect, To: in(Unclaimed)},
	// The cell of a replacement is lost too. The older instance is the one that may still serve.
	{On: on(Lose), From: in(Claimed, Running), By: Holder, If: IsWanted | HasSuspect, Not: IsRetiring, Do: DoUnclaim, To: in(Unclaimed)},
	// Nobody waits for it. Should its cell return, it stops what has no record.
	{On: on(Lose), From: in(Claimed, Running), By: Holder, If: IsWanted | IsRetiring, Do: DoRemove, To: in(NoInstance)},
	{On: on(Lose), From: in(Claimed, Running), By: Holder, Not: IsWanted, Do: DoRemove, To: in(NoInstance)},
	{On: on(Lose), From: anywhere(), By: Anyone &^ Holder, Do: DoNothing, To: anywhere()},

	// Whichever side runs first wins: a false alarm costs a start, never an outage.
	{On: on(Return), From: in(NoInstance, Unclaimed, Claimed, Crashed), By: SuspectOne, Do: DoReturn, To: in(Claimed, Running)},
	{On: on(Return), From: in(Running), By: SuspectOne, If: IsRetiring, Do: DoReturn, To: in(Claimed, Running)},
	{On: on(Return), From: in(Running), By: SuspectOne, Not: IsRetiring, Do: DoDrop, To: in(Running)},
	{On: on(Return), From: anywhere(), By: Anyone &^ SuspectOne, Do: DoNothing, To: anywhere()},

	{On: on(Discard), From: anywhere(), By: EvacuatingOne, Do: DoDrop, To: anywhere()},
	{On: on(Discard), From: anywhere(), By: SuspectOne, Not: IsWanted, Do: DoDrop, To: anywhere()},
	{On: on(Discard), From: in(Running), By: SuspectOne, If: IsWanted, Do: DoDrop, To: in(Running)},
	// The replacement that the plan saw is gone again.
	{On: on(Discard), From: in(NoInstance, Unclaimed, Claimed, Crashed), By: SuspectOne, If: IsWanted, Do: DoNothing, To: in(NoInstance, Unclaimed, Claimed, Crashed)},
	{On: on(Discard), From: anywhere(), By: Anyone &^ Sibling, Do: DoNothing, To: anywhere()},
}

// refusals says why an event is refused that no rule covers: without and with an ordinary instance.
func refusals(on EventName) (absent, otherwise Why) {
	switch on {
	case Create:
		return NotFound, Exists // absent: a slot that nobody wants is not created
	case Claim:
		return NotFound, CannotBeClaimed
	case Start:
		return CannotBeStarted, CannotBeStarted
	case Crash:
		return NotFound, CannotBeCrashed
	case Fail:
		return NotFound, CannotBeFailed
	default: // nothing there that the event could mean
		return NotFound, NotFound
	}
}

// EventNames lists all events: those of a life, of an evacuation and of convergence.
func EventNames() []EventName {
	return []EventName{
		Create, Claim, Start, Crash, Fail, Retire, Remove, Restart,
		EvacuateClaimed, EvacuateRunning, EvacuateCrashed, EvacuateStopped, RemoveEvacuating,
		Lose, Return, Discard,
	}
}

// KeepUndecided is what an evacuating cell is told about the container when its event could not be
// decided: it was invalid, or the store did not answer. While that is so nobody may take an instance
// down that runs, and a claim may be given back later; what has ended is not to be kept in any case.
func (on EventName) KeepUndecided() bool { return on == EvacuateRunning || on == EvacuateClaimed }

// Sources lists the states of an ordinary instance that an event can change, for statements that
// narrow before Go decides. An event that creates a record has none.
func Sources(on EventName) []State {
	var found []State
	for _, state := range in(Unclaimed, Claimed, Running, Crashed) {
		for _, r := range rules {
			if slices.Contains(r.On, on) && slices.Contains(r.From, state) && r.changesOrdinary() {
				found = append(found, state)
				break
			}
		}
	}
	return found
}

// changesOrdinary tells whether the deed of the rule is about the ordinary record. Reports are about
// that of the caller.
func (r Rule) changesOrdinary() bool {
	switch r.Do {
	case DoNothing, DoDrop:
		return false
	case DoReport, DoEvacuate:
		return r.By&Holder != 0
	}
	return true
}

// covers tells whether the rule is about a situation.
func (r Rule) covers(on EventName, from State, by Caller, facts Fact) bool {
	return r.By&by != 0 && facts&r.If == r.If && facts&r.Not == 0 && slices.Contains(r.On, on) && slices.Contains(r.From, from)
}

func on(names ...EventName) []EventName { return names }

func in(states ...State) []State { return states }

// anywhere is every state of an ordinary instance, none included.
func anywhere() []State { return in(NoInstance, Unclaimed, Claimed, Running, Crashed) }
