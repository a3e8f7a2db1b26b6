// Package routes knows which endpoints a request may go to. A Table is an immutable value: every
// change returns another one that shares nearly everything with it, so a reader holds a consistent
// table for as long as it likes, and one registration among 100,000 routes copies a few hundred bytes.
// Only the age of a registration is not part of the value: see Endpoint.
//
// A route is a host and perhaps a path; the host may be a wildcard (*.example.com). Its endpoints form
// a pool. What a pool and an endpoint are linked to (counters, connections) is the caller's: the table
// only carries it, as P and E.
//
// Invariants:
//
//  1. Keys are lower-case, without query, and without one leading and one trailing slash.
//  2. An exact host on any of its path prefixes wins over every wildcard; a longer wildcard wins over
//     a shorter one; on one host the longest prefix with endpoints wins.
//  3. Within a pool an address occurs once.
//  4. The last registration of an address wins; an unregistration that names another instance than
//     the one registered is ignored, since the address then belongs to somebody new.
//  5. Nothing is pruned before its time, counted from its last registration or from the last Freshen,
//     whichever is later.
package routes
