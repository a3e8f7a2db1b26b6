// Package task holds what the BBS knows about tasks, which run once, and every rule about them: what
// may be desired (Definition, Validate) and how a task moves from state to state (Apply). It is a
// CORE: plain data in, plain data out; time is an argument.
package task
