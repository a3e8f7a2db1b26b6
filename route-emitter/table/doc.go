// Package table knows which routes lead to which instances, and what routers have to be told when
// that changes: changes of the BBS go in, messages come out.
//
// It is a CORE: no I/O, no clock, no goroutines. It is not safe for concurrent use.
//
// The table does not translate changes into messages one by one. It keeps the newest record of each
// DesiredLRP and of each instance, computes from them what should be registered, and compares that
// with what is. So the order in which records arrive cannot matter, and a full list is nothing special.
//
// # Invariants
//
//	T1  What is registered is a function of the newest records: the order of events leaves no trace.
//	T2  An older record never replaces a newer one (modification tags), also after a removal.
//	T3  Messages are in the order in which they must be published: what goes first, then what comes.
//	    No unregister names an address and URI that are registered after it.
//	T4  Only RUNNING, routable instances that are not retiring, below the wanted number, have routes.
//	T5  Missing information is not news: a DesiredLRP that a list lacks is forgotten only when its
//	    domain is fresh, and a list that would remove much at once must be confirmed.
//	T6  What was unregistered is unregistered again a number of times, unless it is registered again.
package table
