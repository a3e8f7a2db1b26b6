// Package rep is one cell's daemon. It announces the cell to the BBS, takes on the work that the
// auctioneer gives it, makes and starts containers, checks their health, tells the BBS what became of
// them, and stops what is to go.
//
//	           Perform, WatchState               Logs
//	auctioneer ──────────────► internal/server ◄────── operators
//	                                 │
//	     Heartbeat ◄── heartbeat     ▼                       decides
//	bbs  List, Watch ────► internal/runner.Cell ────► align, cells/container, ledger, recipe
//	     Claim, Start, ◄──── one runner per instance
//	     Crash, Remove               │           ╲
//	                                 ▼            ╲ internal/probe ──► containers
//	                         cells/engine (containerd)
//
// It owns nothing durable: what it has to know after a restart is on the containers' labels and in the
// BBS. It leaves containers running when it ends, and adopts them when it starts.
package rep
