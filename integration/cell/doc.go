// Package cell holds the tests of one cell on real parts: the rep as a process of its own, containerd,
// CNI, and a BBS on PostgreSQL. The auctioneer alone is played by the tests. Reps and containerd are
// killed at every step of an instance's life; what the machine holds is compared before and after.
//
// They need root, and change the host's network while they run.
package cell
