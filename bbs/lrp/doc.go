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
// Check reports a group that breaks one of these; tests cite them by number.
//
//	I1  Since is never zero.
//	I2  UNCLAIMED and CRASHED instances have no instance key and no net info.
//	I3  CLAIMED instances have an instance key, no net info and no placement error.
//	I4  RUNNING instances have an instance key, an address and no placement error.
//	I5  Only CLAIMED and RUNNING instances can be retiring.
//	I6  UNCLAIMED and CRASHED instances are ordinary.
//	I7  All instances of a group carry the key of their slot, and the presence of their place.
package lrp
