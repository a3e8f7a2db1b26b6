// Package auction decides which cell gets which work: work, the states of the cells and weights go
// in; placements and refusals with reasons come out.
//
// It is a CORE: plain data in, plain data out, no I/O, no clock, no randomness. Equal arguments give
// equal results, whatever the order of the states. A Fleet keeps the cells between auctions and is told
// what changes; Run is one auction over states that are given with it.
//
// # Rules
//
// Work is placed one by one: instances of index 0, then tasks, then the other instances by index; in
// each the larger memory first, then by process or task GUID, domain, and position in the work. So every
// process has its first instance before any has its second. For each piece:
//
//	A1  When as many containers are starting as may start at once, nothing more is placed. Instances
//	    and tasks count alike.
//	A2  A cell fits when it offers the root file system, has the volume drivers and accepts the
//	    placement tags. Nothing fits: the reason names the constraint that failed last on the cell
//	    that came furthest.
//	A3  The zone with the fewest instances of the process wins over everything else; zones with
//	    equally many compete as one; a zone without room is passed over. Tasks do not mind zones.
//	A4  Within that, the lowest score wins: the mean share of memory, disk and containers in use
//	    afterwards, a weight for each starting container, 1000 for each instance of the process
//	    already there, and for bin packing a weight for each position in the zone.
//	A5  Equal scores: the smaller cell id wins, in whatever zone.
//	A6  What was placed is reserved, the proxy's memory included, before the next piece is looked at.
//	A7  A task has no proxy and no position: its score is the mean share, the weight for starting
//	    containers, and 1000 for each task, of whatever kind, already there.
//	A8  The reason for a refusal holds for the cells as they are after the auction. Only that the start
//	    limit was reached, or that there are no cells, is said as it was found.
//	A9  What makes no sense is read as the nearest that does, and named in an error: weights as 0 to
//	    MaxWeight, requests, proxies and starting containers as 0 or more. A total of 0 or less counts as
//	    all in use, and what is available there is believed. Less than nothing available fits nothing. A
//	    cell without an id is none; of two states of one cell the later counts.
//	A10 A move that evens out a fleet places a running instance anew by these rules. It is worth it when
//	    the zones' numbers of the process get closer; or those of the cells, with the zones as they were; or
//	    the shares in use, with both as they were.
//
// Instances count for their process in any state, on cells that do not fit too. Cells that are
// evacuating or unhealthy take no part at all. Scores are whole numbers of 2^-30, each term rounded down.
//
// # The index
//
// The score of a cell is its load, which does not depend on the work, plus what the need takes of each of its
// totals, plus 1000 for each instance of the process. So the cells of a zone that offer the same are
// the leaves of a tree; each node knows the least load, the most available and the largest totals
// of what is below it. Their sum is less than or equal to the score of everything there, and what has less available
// than the need has no room anywhere below. A search goes down the side that promises more and leaves out what
// cannot beat the best it has: what it finds is what looking at every cell would find, for any arrangement of the
// leaves. Cells that look alike are neighbours, so that the promises are close to the truth; when they turn out not to
// be, the leaves are arranged anew. A process with instances on very many cells gets, per node, the
// fewest instances below it, so that its searches need not visit each of them to find out.
//
// With n cells in a zone, a placement takes O(log n) as a rule, and so does Set for a cell whose offers stay, plus
// the size of its state; sorting n pieces of work takes O(n log n). Constraints are matched once with each
// set of offers, not with each cell. Reasons are computed once for each different need, after the auction.
//
// Package naive is the rule without the index; a test compares them on random worlds.
package auction
