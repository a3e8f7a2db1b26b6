// Package converge compares what is desired with what the BBS has records of, and plans the events
// that close the distance. It is a CORE: a snapshot and the time in, a list of steps out.
//
// It is the safety net, not the engine: whoever changes a DesiredLRP applies the events for its slots
// in the same transaction, so a quiet world needs no steps. What is left is time that passes (a
// back-off ends, a lost cell stays lost), cells that fall silent or come back, and what went wrong (a
// record got lost, a domain became fresh again).
//
// Each slot is decided by itself, from all its records together:
//
//	nobody wants it, its domain is fresh   it is wound up: told to stop, or lost with its cells
//	suspect, and its cell is back          it has the slot again, unless a replacement is RUNNING: then it goes
//	suspect, and a replacement is RUNNING  the suspect record goes
//	ordinary, and its cell is lost         it becomes suspect, and the slot is to be filled again
//	evacuating, and its cell is gone       the evacuating record goes
//	no ordinary record, but wanted         one is created
//	CRASHED, and its back-off is over      it restarts
//
// # Promises
//
//	C1  Equal snapshots and times give equal plans, in one stable order.
//	C2  Planning again after the plan was applied gives nothing, unless the plan was cut at MaxSteps;
//	    then repeating gets there.
//	C3  Without freshness nothing goes because it is not wanted, and no wanted slot is ever retired.
//	    Unknown freshness is an empty list of domains.
//	C4  Every step is accepted by the rules of bbs/lrp if nothing changed since the snapshot. If
//	    something did, the rules decide: a plan is a proposal, and names the instance that it means.
//	C5  Nothing that needs to know the cells is planned while they are not known.
//	C6  A record that cannot be had back goes because of its cell only when that cell was lost for the
//	    whole grace time, nobody still sees it, and some cell is present.
//	C7  Plan needs to see only processes that need something: those in the snapshot whole, the others
//	    not at all.
//
// Two rules of Diego have no counterpart, because cells and the auctioneer watch the log instead of
// waiting to be told: routes and metric tags that differ from what is desired are brought over by the
// cell, and slots that wait for a place are offered by the auctioneer.
package converge
