// Package auction decides which cell gets which work: work, the states of the cells and weights go
// in; placements and refusals with reasons come out.
//
// It is a CORE: plain data in, plain data out, no I/O, no clock, no randomness. Equal arguments give
// equal results, whatever the order of the states.
//
// # Rules
//
// Work is placed one by one: lower indexes first, larger memory first among equal indexes, so that
// every process has its first instance before any has its second. For each piece:
//
//	A1  When as many containers are starting as may start at once, nothing more is placed.
//	A2  A cell fits when it offers the root file system, has the volume drivers and accepts the
//	    placement tags. Nothing fits: the reason names the constraint that failed last on the cell
//	    that came furthest.
//	A3  The zone with the fewest instances of the process wins over everything else; zones with
//	    equally many compete as one; a zone without room is passed over.
//	A4  Within that, the lowest score wins: the mean share of memory, disk and containers in use
//	    afterwards, a weight for each starting container, 1000 for each instance of the process
//	    already there, and for bin packing a weight for each position in the zone.
//	A5  Equal scores: the smaller cell id wins.
//	A6  What was placed is reserved, the proxy's memory included, before the next piece is looked at.
//
// Instances count for their process in any state, on cells that do not fit too. Cells that are
// evacuating or unhealthy take no part at all.
//
// scan.go finds the winner by looking at every cell. Whatever finds it faster has to agree with it.
package auction
