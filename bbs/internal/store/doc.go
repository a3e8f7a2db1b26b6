// Package store keeps the records of the BBS in PostgreSQL: desired and actual LRPs, tasks,
// domains, cells, and the log of every change.
//
// It is an EDGE of one shape: read, decide, write. Calls queue; a writer drains the queue and makes
// one transaction of what it finds (group commit):
//
//	lock the processes, tasks, cells, requests and leases concerned, in one order
//	read their rows
//	run the pure rules of bbs/lrp and bbs/task over them, call by call, in the order of arrival
//	write the rows that changed, with one set statement for each kind of change
//	append the events and take their revisions from the sequencer row, as the last thing
//	commit, and only then answer each caller
//
// What it promises:
//
//	S1  A call that was answered without an error is committed; one that was refused changed nothing.
//	S2  Revisions have no gaps, and their order is the order of commits, on any number of replicas.
//	S3  Replaying the log from the beginning gives the contents of the tables.
//	S4  A call that changes nothing writes nothing.
//	S5  A call that cannot be stored fails alone; the others of its batch do not notice.
//	S6  A list shows exactly the state at the revision it names.
//	S7  A creating call that is repeated under its request id has no second effect, for an hour.
//	S8  Once a call under a newer token of a lease is committed, none under an older one has an effect.
//	S9  A call is one transaction, however much it changes. Items of a bulk call are calls of their own.
//	S10 A call whose outcome is not known is not made again: its caller gets ErrUnavailable.
//
// No SQL is built here and none decides anything: the statements are in query/, by name.
package store
