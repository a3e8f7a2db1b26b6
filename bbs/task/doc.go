// Package task holds what the BBS knows about tasks, which run once, and every rule about them: what
// may be desired (Definition, Validate), how a task moves from state to state (rules, Apply), and what
// becomes of one that nobody moves (Plan).
//
// It is a CORE: plain data in, plain data out; time is an argument. The store, convergence and
// docs/task.md all use the same rule table.
//
// # At most once
//
// A task that is RUNNING never runs again: its cell completes it, or it fails with its cell. The one way
// back is a Reject by that cell, which says so only of a task of which nothing has run. Before it is
// RUNNING, it may be offered to any number of cells; Start lets one of them have it.
//
// # Invariants
//
// Task.Check reports a task that breaks one of these; tests cite them by number.
//
//	T1  It has a GUID, a domain and a time of creation, and was not updated before that.
//	T2  The state is one of the four.
//	T3  RUNNING tasks have a cell, all others have none.
//	T4  COMPLETED and RESOLVING tasks have a time of completion, not after their last update; others have none.
//	T5  Only COMPLETED and RESOLVING tasks have failed.
//	T6  Only COMPLETED and RESOLVING tasks that did not fail have a result.
//	T7  Only failed tasks have a failure reason.
//	T8  The rejection count is not negative, and only rejected tasks have a rejection reason.
//
// # Reading on
//
// machine.go has the picture and the rules, apply.go runs them, policy.go knows the times, plan.go what
// is due. docs/task.md shows all of it on one page, and testdata/machine.txt the answer to every event
// in every situation.
//
// # Where this differs from Diego
//
// On purpose, and each with a test that says so:
//
//   - Only the cell that runs a task can reject it once it is RUNNING, and must be named. Diego takes
//     the word of anybody, so an auction without an answer can make a task run twice.
//   - A rejected task and one that lost its cell have no cell. Diego keeps the last one.
//   - The last rejection and the failure that follows from it are one change, and one event.
//   - A rejection of a task that is over writes and announces nothing.
//   - A task fails with its cell only if that cell is known to be lost for a grace time while another
//     is there.
//   - A task that fails has no result, and one that does not has no failure reason.
//   - Reasons are cut between characters, and texts hold nothing that a database refuses.
//
// As in Diego, and looking odd: Kick leaves UpdatedAt, so that the callback is due at once; Delete is
// refused with RESOLVING as its target; repeating a Complete is an invalid transition, since a COMPLETED
// task has no cell to compare with and clients rely on the refusal; a repeated Reject counts again.
package task
