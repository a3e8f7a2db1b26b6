package hub

import "muster/bbs/internal/store"

// ring holds the newest entries of the log, without gaps: so many, and of so many bytes, at most.
type ring struct {
	entries []*store.Record // entry of revision r is at r modulo its length; older ones are nil
	newest  uint64
	held    uint64 // how many of them are there
	bytes   int    // how large they are
}

// newRing returns a ring that goes on after a revision.
func newRing(revision uint64, size int) ring {
	return ring{entries: make([]*store.Record, size), newest: revision}
}

// at returns the place of a revision.
func (r *ring) at(revision uint64) **store.Record {
	return &r.entries[revision%uint64(len(r.entries))]
}

// add appends the entry of revision newest+1.
func (r *ring) add(rec *store.Record) {
	for r.held > 0 && (r.held == uint64(len(r.entries)) || r.bytes+rec.Size > ringBytes) {
		oldest := r.at(r.newest - r.held + 1)
		r.bytes -= (*oldest).Size
		*oldest = nil
		r.held--
	}
	r.newest = rec.Revision
	*r.at(r.newest) = rec
	r.held++
	r.bytes += rec.Size
}

// reaches tells whether everything after a revision is there.
func (r *ring) reaches(after uint64) bool { return after+r.held >= r.newest }

// after calls f for each entry after a revision, in order, until it returns false.
func (r *ring) after(revision uint64, f func(*store.Record) bool) {
	for v := revision + 1; v <= r.newest && f(*r.at(v)); v++ {
	}
}
