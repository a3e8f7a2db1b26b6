package lrp

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
// Create makes an UNCLAIMED record. Retire marks a CLAIMED or RUNNING one as retiring, upon which
// its cell stops the container and calls Remove; any other record it removes at once. Whatever
// removes the record of a wanted slot leaves a new UNCLAIMED one in its place.

// Rule says what one event does in some situations. An event that no rule covers is refused.
type Rule struct {
	On   EventName
	From []State // states of the ordinary instance; NoInstance when there is none
	By   Caller  // who reports it, as a set
	If   Fact    // all of these hold
	Not  Fact    // none of these holds
	Do   Deed
	// To are the states that the deed can leave the ordinary instance in. Where it leaves none, a wanted
	// slot gets a new UNCLAIMED one in the same step.
	To []State
}

// NoInstance stands for the state of an ordinary instance that does not exist.
const NoInstance State = ""

// Caller says how whoever reports an event stands to the slot. Constants can be joined to sets.
type Caller uint8

// The callers. Exactly one fits each event and group; the first that does counts.
const (
	SuspectOne Caller = 1 << iota // the suspect instance of the slot
	Foreigner                     // a Start that names another domain than the records of the slot
	Nobody                        // the event names no instance
	Holder                        // the ordinary instance itself
	Stranger                      // any other instance

	Anyone = SuspectOne | Foreigner | Nobody | Holder | Stranger
)

// Fact is something that is so or not. Constants can be joined to sets.
type Fact uint8

// The facts.
const (
	IsWanted   Fact = 1 << iota // the slot is desired
	IsRetiring                  // the ordinary instance is to be stopped
	IsDue                       // the ordinary instance is CRASHED and its back-off is over

	allFacts = IsWanted | IsRetiring | IsDue
)

// Deed is what a rule does.
type Deed string

// The deeds. Any deed that changes the content of a record moves Since and the tag.
const (
	DoNothing     Deed = "nothing"        // accepted, but nothing is written
	DoCreate      Deed = "create"         // a new UNCLAIMED record
	DoAssign      Deed = "assign"         // CLAIMED by the caller; addresses and placement error go
	DoReport      Deed = "report"         // RUNNING as reported; a report without news writes nothing
	DoTakePlace   Deed = "take the place" // as report; evacuating and suspect instances go
	DoCount       Deed = "count"          // the crash counts: UNCLAIMED or CRASHED by the crash policy
	DoNote        Deed = "note"           // the placement error is kept; the same one again writes nothing
	DoMark        Deed = "mark"           // the instance is retiring
	DoRemove      Deed = "remove"         // the record goes
	DoCrashRemove Deed = "remove, report" // the record goes, and the crash is reported
	DoDropSuspect Deed = "drop suspect"   // the record of the suspect instance goes
	DoUnclaim     Deed = "unclaim"        // UNCLAIMED again; the crash count stays
)

// rules is the whole life of an instance. No two rows overlap: TestRulesPartition proves it.
//
// A suspect instance is left alone while nobody knows whether its cell will return: what it reports
// of its life is ignored, but its end is believed.
var rules = []Rule{
	{On: Create, From: in(NoInstance), By: Anyone, If: IsWanted, Do: DoCreate, To: in(Unclaimed)},

	{On: Claim, From: anywhere(), By: SuspectOne, Do: DoNothing, To: anywhere()},
	{On: Claim, From: in(Unclaimed), By: Stranger, Do: DoAssign, To: in(Claimed)},
	{On: Claim, From: in(Claimed), By: Holder, Do: DoNothing, To: in(Claimed)},
	{On: Claim, From: in(Running), By: Holder, Do: DoAssign, To: in(Claimed)},

	{On: Start, From: anywhere(), By: SuspectOne, Do: DoNothing, To: anywhere()},
	{On: Start, From: in(NoInstance), By: Stranger, If: IsWanted, Do: DoTakePlace, To: in(Running)},
	{On: Start, From: in(Unclaimed), By: Stranger, Do: DoTakePlace, To: in(Running)},
	// A lost claim heals here: whoever runs first has the slot. The loser's next call is refused.
	{On: Start, From: in(Claimed), By: Holder | Stranger, Not: IsRetiring, Do: DoTakePlace, To: in(Running)},
	{On: Start, From: in(Running), By: Holder, Not: IsRetiring, Do: DoTakePlace, To: in(Running)},
	// It is about to stop: it must not take the routes of siblings down with it.
	{On: Start, From: in(Claimed, Running), By: Holder, If: IsRetiring, Do: DoReport, To: in(Running)},

	{On: Crash, From: anywhere(), By: SuspectOne, Do: DoDropSuspect, To: anywhere()},
	{On: Crash, From: in(Claimed, Running), By: Holder, If: IsWanted, Not: IsRetiring, Do: DoCount, To: in(Unclaimed, Crashed)},
	{On: Crash, From: in(Claimed, Running), By: Holder, Not: IsWanted | IsRetiring, Do: DoCrashRemove, To: in(NoInstance)},
	// Told to stop, many programs end with an error. That is no crash.
	{On: Crash, From: in(Claimed, Running), By: Holder, If: IsRetiring, Do: DoRemove, To: in(NoInstance)},

	{On: Fail, From: in(NoInstance), By: Anyone, Do: DoNothing, To: in(NoInstance)},
	{On: Fail, From: in(Unclaimed), By: Anyone, Do: DoNote, To: in(Unclaimed)},

	{On: Retire, From: in(Unclaimed, Crashed), By: Anyone, Do: DoRemove, To: in(NoInstance)},
	{On: Retire, From: in(Claimed, Running), By: Anyone, Not: IsRetiring, Do: DoMark, To: in(Claimed, Running)},
	{On: Retire, From: in(Claimed, Running), By: Anyone, If: IsRetiring, Do: DoNothing, To: in(Claimed, Running)},

	{On: Remove, From: anywhere(), By: SuspectOne, Do: DoDropSuspect, To: anywhere()},
	{On: Remove, From: in(Unclaimed, Crashed), By: Nobody, Do: DoRemove, To: in(NoInstance)},
	{On: Remove, From: in(Claimed, Running), By: Nobody | Holder, Do: DoRemove, To: in(NoInstance)},

	{On: Restart, From: in(Crashed), By: Anyone, If: IsWanted | IsDue, Do: DoUnclaim, To: in(Unclaimed)},
	// A plan made from an older snapshot: somebody else was faster, or nobody wants it any more.
	{On: Restart, From: in(Crashed), By: Anyone, If: IsWanted, Not: IsDue, Do: DoNothing, To: in(Crashed)},
	{On: Restart, From: in(Crashed), By: Anyone, Not: IsWanted, Do: DoNothing, To: in(Crashed)},
	{On: Restart, From: in(Unclaimed, Claimed, Running), By: Anyone, Do: DoNothing, To: in(Unclaimed, Claimed, Running)},
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
	default: // Retire, Remove, Restart: nothing there that the event could mean
		return NotFound, NotFound
	}
}

// EventNames lists all events, in the order in which they happen to an instance.
func EventNames() []EventName {
	return []EventName{Create, Claim, Start, Crash, Fail, Retire, Remove, Restart}
}

// Sources lists the states of an ordinary instance that an event can change, for statements that
// narrow before Go decides. An event that creates a record has none.
func Sources(on EventName) []State {
	var found []State
	for _, state := range in(Unclaimed, Claimed, Running, Crashed) {
		for _, r := range rules {
			if r.On == on && r.Do != DoNothing && r.Do != DoDropSuspect && contains(r.From, state) {
				found = append(found, state)
				break
			}
		}
	}
	return found
}

// covers tells whether the rule is about a situation.
func (r Rule) covers(on EventName, from State, by Caller, facts Fact) bool {
	return r.On == on && contains(r.From, from) && r.By&by != 0 && facts&r.If == r.If && facts&r.Not == 0
}

func in(states ...State) []State { return states }

// anywhere is every state of an ordinary instance, none included.
func anywhere() []State { return in(NoInstance, Unclaimed, Claimed, Running, Crashed) }

func contains(states []State, s State) bool {
	for _, other := range states {
		if other == s {
			return true
		}
	}
	return false
}
