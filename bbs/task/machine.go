package task

// The life of a task:
//
//	Desire ──► PENDING ──── Start ────► RUNNING ─── Complete ───► COMPLETED ─── Resolve ──► RESOLVING
//	            │  ▲  ▲                  │   │                     ▲  ▲  │  ▲                 │    │
//	            │  │  └───── Reject ─────┘   └─ Cancel, Fail, Lose ┘  │  │  └───── Kick ──────┘  Delete
//	            │  └─ Reject, up to the limit                         │  │                         │
//	            └─────── Cancel, Fail, Expire, Reject at the limit ───┘  └──────── Forget ───────► gone
//
// A task runs at most once. The one way back from RUNNING is a Reject by the cell that has it, which
// says so only if nothing of the task has run.

// Rule says what one event does in some situations. An event that no rule covers is refused.
type Rule struct {
	On   EventName
	From []State // NoTask when there is none
	By   Caller  // which cell reports it, as a set
	If   Fact    // all of these hold
	Not  Fact    // none of these holds
	Do   Deed
	To   State // the state then; NoTask when the task is gone; ignored for DoNothing
}

// NoTask stands for the state of a task that does not exist.
const NoTask = Invalid

// Caller says how the cell that an event names stands to the task. Constants can be joined to sets.
type Caller uint8

// The callers. Exactly one fits each event and task.
const (
	Nobody   Caller = 1 << iota // the event names no cell
	Holder                      // the cell that runs the task
	Stranger                    // any other cell

	Anyone = Nobody | Holder | Stranger
)

// Fact is something that is so or not. Constants can be joined to sets.
type Fact uint8

// The facts.
const (
	IsWornOut Fact = 1 << iota // it was rejected as often as the policy allows
	IsDue                      // the policy's time for the state it is in is over

	allFacts = IsWornOut | IsDue
)

// Deed is what a rule does.
type Deed string

// The deeds. Any deed but DoNothing and DoKick moves UpdatedAt.
const (
	DoNothing  Deed = "nothing"  // accepted, but nothing is written
	DoCreate   Deed = "create"   // a new PENDING task
	DoStart    Deed = "start"    // RUNNING on the caller, which is told to start it
	DoComplete Deed = "complete" // COMPLETED as reported
	DoCancel   Deed = "cancel"   // COMPLETED, failed: ReasonCancelled
	DoFail     Deed = "fail"     // COMPLETED, failed for the reason given
	DoReturn   Deed = "return"   // the rejection counts; PENDING without a cell
	DoGiveUp   Deed = "give up"  // the rejection counts; COMPLETED, failed for its reason
	DoResolve  Deed = "resolve"  // RESOLVING
	DoDelete   Deed = "delete"   // the task is gone
	DoExpire   Deed = "expire"   // COMPLETED, failed: ReasonExpired
	DoLose     Deed = "lose"     // COMPLETED, failed: ReasonLost
	DoKick     Deed = "kick"     // COMPLETED again. UpdatedAt stays, so that the callback is due at once
)

// The failure reasons that the BBS makes up itself. The texts are Diego's: people search for them.
const (
	ReasonCancelled = "task was cancelled"
	ReasonExpired   = "not started within time limit"
	ReasonLost      = "cell disappeared before completion"
)

// rules is the whole life of a task. No two rows overlap: TestRulesPartition proves it.
var rules = []Rule{
	{On: Desire, From: in(NoTask), By: Anyone, Do: DoCreate, To: Pending},

	// The one place where two cells could both come to run a task, and only one may.
	{On: Start, From: in(Pending), By: Stranger, Do: DoStart, To: Running},
	{On: Start, From: in(Running), By: Holder, Do: DoNothing},

	{On: Complete, From: in(Running), By: Holder, Do: DoComplete, To: Completed},
	{On: Cancel, From: in(Pending, Running), By: Anyone, Do: DoCancel, To: Completed},
	{On: Fail, From: in(Pending, Running), By: Anyone, Do: DoFail, To: Completed},

	{On: Reject, From: in(Pending), By: Anyone, Not: IsWornOut, Do: DoReturn, To: Pending},
	{On: Reject, From: in(Pending), By: Anyone, If: IsWornOut, Do: DoGiveUp, To: Completed},
	// Only the cell that has it knows that nothing of it ran. An auctioneer that got no answer does not.
	{On: Reject, From: in(Running), By: Holder, Not: IsWornOut, Do: DoReturn, To: Pending},
	{On: Reject, From: in(Running), By: Holder, If: IsWornOut, Do: DoGiveUp, To: Completed},

	// Refused while RESOLVING: of several who want to tell, the first one does.
	{On: Resolve, From: in(Completed), By: Anyone, Do: DoResolve, To: Resolving},
	{On: Delete, From: in(Resolving), By: Anyone, Do: DoDelete, To: NoTask},

	// What convergence proposes. If the task moved on since the plan was made, nothing happens.
	{On: Expire, From: in(Pending), By: Anyone, If: IsDue, Do: DoExpire, To: Completed},
	{On: Expire, From: in(Pending), By: Anyone, Not: IsDue, Do: DoNothing},
	{On: Expire, From: in(Running, Completed, Resolving), By: Anyone, Do: DoNothing},
	{On: Lose, From: in(Running), By: Holder, Do: DoLose, To: Completed},
	{On: Lose, From: in(Running), By: Stranger, Do: DoNothing},
	{On: Lose, From: in(Pending, Completed, Resolving), By: Anyone, Do: DoNothing},
	{On: Kick, From: in(Resolving), By: Anyone, If: IsDue, Do: DoKick, To: Completed},
	{On: Kick, From: in(Resolving), By: Anyone, Not: IsDue, Do: DoNothing},
	{On: Kick, From: in(Pending, Running, Completed), By: Anyone, Do: DoNothing},
	{On: Forget, From: in(Completed), By: Anyone, If: IsDue, Do: DoDelete, To: NoTask},
	{On: Forget, From: in(Completed), By: Anyone, Not: IsDue, Do: DoNothing},
	{On: Forget, From: in(Pending, Running, Resolving), By: Anyone, Do: DoNothing},
}

// refusals says why an event is refused that no rule covers: the first row that fits. The last one
// fits always.
var refusals = []struct {
	On   []EventName // empty: any
	From []State     // empty: any
	By   Caller
	Why  Why
}{
	{On: []EventName{Desire}, By: Anyone, Why: Exists},
	{From: in(NoTask), By: Anyone, Why: NotFound},
	{On: []EventName{Complete}, From: in(Running), By: Anyone, Why: RunningOnDifferentCell},
	{On: []EventName{Reject}, From: in(Running), By: Stranger, Why: RunningOnDifferentCell},
	{On: []EventName{Reject}, From: in(Completed, Resolving), By: Anyone, Why: InvalidRequest},
	{By: Anyone, Why: InvalidStateTransition},
}

// targets are the states that events lead to, as refusals name them. That of Delete is Diego's: a task
// must be RESOLVING before it goes.
var targets = map[EventName]State{
	Desire: Pending, Start: Running, Complete: Completed, Cancel: Completed, Fail: Completed,
	Reject: Pending, Resolve: Resolving, Delete: Resolving,
	Expire: Completed, Lose: Completed, Kick: Completed, Forget: Resolving,
}

// EventNames lists all events, in the order in which they happen to a task.
func EventNames() []EventName {
	return []EventName{Desire, Start, Complete, Cancel, Fail, Reject, Resolve, Delete, Expire, Lose, Kick, Forget}
}

// Sources lists the states of a task that an event can change, for statements that narrow before Go
// decides. Desire, which creates one, has none.
func Sources(on EventName) []State {
	var found []State
	for _, state := range in(Pending, Running, Completed, Resolving) {
		for _, r := range rules {
			if r.On == on && r.Do != DoNothing && contains(r.From, state) {
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

// whyNot returns why an event is refused that no rule covers.
func whyNot(on EventName, from State, by Caller) Why {
	for _, r := range refusals {
		if (len(r.On) == 0 || contains(r.On, on)) && (len(r.From) == 0 || contains(r.From, from)) && r.By&by != 0 {
			return r.Why
		}
	}
	return InvalidStateTransition
}

func in(states ...State) []State { return states }

// anywhere is every state, that of no task included.
func anywhere() []State { return in(NoTask, Pending, Running, Completed, Resolving) }

func contains[T comparable](list []T, x T) bool {
	for _, other := range list {
		if other == x {
			return true
		}
	}
	return false
}
