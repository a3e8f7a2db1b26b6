// Package bbs is the BBS, assembled: the daemon that owns what should run and what does run. Any
// number of replicas work on one database at once; none has state of its own.
//
//	gRPC ─► server ─► store ─► PostgreSQL
//	          │         │ commits
//	          └─ hub ◄──┘        ◄─ notifications of other replicas
//	             watches
//
// Beside the calls it answers, a replica compares everything every so often (converger), lets crashed
// instances restart the moment their back-off is over, drops cells that went silent, and cuts the log.
// All of that may happen on several replicas at once: each step is decided again under the locks of
// the store, so doing it twice does nothing more.
package bbs
