package hub

import "muster/bbs/internal/store"

// ring holds the newest entries of the log, without gaps.
type ring struct {
	entries []*store.Record // entry of revision r is at r modulo its length
	newest  uint64
	held    uint64 // how many of them are there
}

// newRing returns a ring that goes on after a revision.
func newRing(revision uint64, size int) ring {
	return ring{entries: make([]*store.Record, size), newest: revision}
}

// add appends the entry of revision newest+1.
func (r *ring) add(rec *store.Record) {
	r.newest = rec.Revision
	r.entries[r.newest%uint64(len(r.entries))] = rec
	r.held = min(r.held+1, uint64(len(r.entries)))
}

// reaches tells whether everything after a revision is there.
func (r *ring) reaches(after uint64) bool { return after+r.held >= r.newest }

// after calls f for each entry after a revision, in order.
func (r *ring) after(revision uint64, f func(*store.Record)) {
	for v := revision + 1; v <= r.newest; v++ {
		f(r.entries[v%uint64(len(r.entries))])
	}
}
