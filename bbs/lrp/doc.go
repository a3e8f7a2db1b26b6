// Package lrp holds what the BBS knows about long-running processes, and every rule about them:
// what may be desired (Desired, Validate), what runs (Actual, Group), and how an instance moves from
// state to state (rules, Apply).
//
// It is a CORE: plain data in, plain data out. Nothing here reads a clock, does I/O, draws a random
// number, starts a goroutine or logs; time and new identities are arguments. The store, the
// convergence planner, the simulator and docs/actual-lrp.md all use the same rule table.
//
// # Words
//
// A slot is a process GUID and an index. An instance is one attempt to fill a slot: an instance GUID
// on a cell. A group is all that is known about a slot: its ordinary, evacuating and suspect
// instances together.
//
// # Invariants
//
// Group.Check reports a group that breaks one of these; tests cite them by number.
//
//	I1  Since is never zero.
//	I2  UNCLAIMED and CRASHED instances have no instance key and no net info.
//	I3  CLAIMED instances have an instance key, no net info, no placement error and no explanation of one.
//	I4  RUNNING instances have an instance key, an address, no placement error and no explanation of one.
//	I5  Only CLAIMED and RUNNING instances can be retiring.
//	I6  UNCLAIMED and CRASHED instances are ordinary.
//	I7  All instances of a group carry the key of their slot, and the presence of their place.
//	I8  The state is one of the four.
//
// The next are about several records at once, so a group that was put together by hand can break them,
// but not one that came about by Apply:
//
//	I9   No instance is in two places.
//	I10  No two records have the same epoch. A record follows its instance from place to place.
//	I11  A RUNNING ordinary instance that is not retiring has no suspect sibling.
//	I12  An evacuating instance is RUNNING. A suspect one is not retiring.
//
// # Reading on
//
// machine.go has the picture and the rules, apply.go runs them, crash.go knows how long a crashed
// instance waits. group.go compares groups and checks them. validate.go and its siblings say what may
// be asked. docs/actual-lrp.md shows all of it on one page, testdata/machine.txt the answer to every
// event in every situation, and evacuation_test.go the cases of evacuation and of silent cells by hand.
//
// # Where this differs from Diego
//
// On purpose, and each with a test that says so:
//
//   - Stopping is a mark on the record (Retiring), not a call to a cell. The mark is written together
//     with what caused it, so it cannot get lost, and routers see it before the program ends.
//   - A wanted slot never lacks a record: whatever removes one makes the next in the same step.
//   - A Start without record is refused unless the slot is wanted. Diego inserts one for anybody.
//   - An instance that ends while it is retiring is removed and not counted: programs that are told
//     to stop often end with an error. One that nobody wants is removed and reported.
//   - The same placement error again writes nothing.
//   - A suspect instance that is removed by its own cell is gone. Diego keeps its record, and may
//     promote it later. What it reports of itself is kept, where Diego ignores it.
//   - A suspect instance whose cell is back gets the slot only if no replacement is RUNNING: whichever
//     side runs first wins.
//   - A record follows its instance from place to place, with its epoch, and its tag grows. What takes
//     its place is a new record, which goes on counting the crashes of the slot.
//   - All records of a slot change in one step. None is left behind, overwritten or announced wrongly.
//   - An instance that evacuates is not given up for a replacement that is itself to be stopped.
//   - When nobody wants a slot any more, one event winds up all of its instances.
//   - A Start takes the place of evacuating and suspect siblings, but not that of a retiring instance.
//     An evacuating instance that says Start is ordinary again, if no replacement is RUNNING.
//   - Reasons are cut between characters and hold nothing that a database refuses.
//   - Instances, nesting of actions and ports have an upper bound, HTTP routes must be readable and go
//     to a port that is open.
package lrp
