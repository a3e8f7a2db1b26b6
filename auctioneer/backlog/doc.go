// Package backlog knows which slots wait for a cell, which are on their way to one, and when to try
// again those for which there was none. It is the auctioneer without its connections: what happened
// goes in, calls to make come out.
//
// It is a CORE: no I/O, no clock, no goroutines; time is an argument. It is not safe for concurrent use.
//
// # Invariants
//
//	K1  A slot is ordered from one cell at a time: after an order it waits until the BBS shows it
//	    claimed, the cell refuses it or drops it, the cell is gone, or Limits.ClaimWait is over.
//	K2  What is on its way counts as reserved on its cell until the cell's own state shows it.
//	K3  The same placement error is reported once, however often the slot is tried.
//	K4  A cell that refused a slot is not asked again for it on the same state; when it goes on
//	    refusing, less and less often.
//	K5  Slots of processes that are not desired (any more), or only in another domain, are left alone.
//	K6  No cell holds up another: a cell without a current state simply takes no part.
package backlog
