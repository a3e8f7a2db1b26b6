// Package backlog knows which work waits for a cell, which is on its way to one, and when to try again
// what found none. It is the auctioneer without its connections: what happened goes in, calls to make
// come out.
//
// It is a CORE: no I/O, no clock, no goroutines; time is an argument. It is not safe for concurrent use.
//
// # Invariants
//
//	K1  A piece of work is ordered from one cell at a time: after an order it waits until the BBS shows
//	    it claimed, the cell refuses it or drops it, the cell is gone, or Limits.ClaimWait is over. A
//	    cell that is heard of and has accepted it is given Limits.HeldWait: when very much is started at
//	    once, claims have to queue.
//	K2  What is on its way counts as reserved on its cell until the cell's own state shows it.
//	K3  The same placement error is reported once, however often the slot is tried; its explanation is
//	    renewed now and then. A task is rejected at most once in Limits.RetryInterval, because rejections
//	    are counted, and never for the start limit, which is not the task's fault.
//	K4  A cell that refused work is not asked again for it on the same state; when it goes on refusing,
//	    less and less often.
//	K5  Slots of processes that are not desired (any more), or only in another domain, are left alone.
//	K6  No cell holds up another: a cell without a current state simply takes no part.
//	K7  Work that fits nowhere holds up nobody: it is tried again when there may be more room, together,
//	    and the less often the more of it there is. What an event costs does not depend on how much waits.
package backlog
