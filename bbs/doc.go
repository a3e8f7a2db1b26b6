// Package bbs is the BBS, assembled: the daemon that owns what should run and what does run. Any
// number of replicas work on one database at once; none has state of its own.
//
//	gRPC ─► server ─► store ─► PostgreSQL
//	          │         │ commits
//	          └─ hub ◄──┘        ◄─ notifications of other replicas
//	             watches
//
// Beside the calls it answers, every replica looks for cells that went silent, cuts the log and replaces
// encryption keys; each step is decided again under the locks of the store, so doing it twice does
// nothing more. The one that holds the lease converges: it compares everything every so often, follows the
// log in between, lets crashed instances restart the moment their back-off is over, and tells the owners
// of tasks. What it writes carries the token of the lease, and has no effect once somebody else has it.
package bbs
