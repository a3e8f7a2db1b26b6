package hub

import (
	"context"

	"muster/bbs/internal/store"
)

// Watch is a place in the log that moves forward. One goroutine uses it.
type Watch struct {
	hub    *Hub
	filter Filter
	pacer  *pacer
	ready  chan struct{} // capacity 1

	// cursor is the revision up to which everything has been returned. It can be ahead of the ring,
	// which hears of commits of other replicas later than whoever reads the log.
	cursor uint64
	live   bool

	// Under the lock of the hub, once live:
	pending []*store.Record
	bytes   int  // how large they are
	waiting bool // for the pacer
	idle    int  // ticks since something was taken
	remind  bool // it is time for a bookmark
	err     error
	failed  chan struct{} // closed when there is an err
}

// Watch opens a watch of what comes after a revision. Close it.
func (h *Hub) Watch(ctx context.Context, after uint64, f Filter) (*Watch, error) {
	if !h.knows(after) {
		// Another replica may have committed it, and its notification is on its way.
		newest, err := h.store.Revision(ctx)
		if err != nil {
			return nil, err // not knowing is no answer
		}
		if newest < after {
			return nil, ErrFuture
		}
		h.look()
	}
	w := &Watch{hub: h, filter: f, pacer: h.narrow, ready: make(chan struct{}, 1), failed: make(chan struct{}), cursor: after}
	if f == (Filter{}) {
		w.pacer = h.wide
	}
	if err := w.goLive(); err != nil {
		return nil, err
	}
	if !w.live {
		// A revision that is no longer there must be refused at once, not with the first answer.
		if _, _, err := h.store.Events(ctx, after, 1); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// goLive joins the watches that are told at once, if the ring reaches back far enough and what is to
// be caught up leaves room on the list of the watch.
func (w *Watch) goLive() error {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	if !h.ring.reaches(w.cursor) {
		return nil
	}
	var due []*store.Record
	size := 0
	h.ring.after(w.cursor, func(r *store.Record) bool {
		if w.filter.passes(r) {
			due, size = append(due, r), size+r.Size
		}
		return len(due) <= pendingLimit/2
	})
	if len(due) > pendingLimit/2 {
		return nil
	}
	w.live, w.pending, w.bytes = true, due, size
	s := w.filter.shelf()
	if h.watches[s] == nil {
		h.watches[s] = map[*Watch]struct{}{}
	}
	h.watches[s][w] = struct{}{}
	h.open++
	if h.ring.newest > w.cursor {
		// If nothing passes, it is told so at once: it may be gone before a bookmark is due, and begin
		// at the same place again.
		w.remind = true
		w.wake()
	}
	return nil
}

// Close ends the watch.
func (w *Watch) Close() {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s := w.filter.shelf()
	if _, there := h.watches[s][w]; !there {
		return
	}
	h.open--
	delete(h.watches[s], w)
	if len(h.watches[s]) == 0 {
		delete(h.watches, s)
	}
	w.pending, w.bytes = nil, 0 // the pacer may hold the watch for a moment longer
}

// Next waits for entries and returns as many as one message carries, with the revision to resume after. When
// nothing comes for a while it returns none: a bookmark.
func (w *Watch) Next(ctx context.Context) ([]*store.Record, uint64, error) {
	if !w.live {
		return w.fromLog(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-w.ready:
			records, revision, bookmark, err := w.take()
			if err != nil || len(records) > 0 || bookmark {
				return records, revision, err
			}
		}
	}
}

// take returns what has been offered, and whether a bookmark is due if that is nothing.
func (w *Watch) take() (records []*store.Record, revision uint64, bookmark bool, err error) {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.err != nil {
		return nil, 0, false, w.err
	}
	bookmark, w.remind = w.remind, false
	if len(w.pending) > 0 || bookmark {
		w.idle = 0
	}
	if records = w.portion(); len(w.pending) > 0 {
		w.cursor = records[len(records)-1].Revision
		w.wake()
	} else {
		w.cursor = max(w.cursor, h.ring.newest)
	}
	return records, w.cursor, bookmark, nil
}

// load is what one message carries.
type load struct{ entries, bytes int }

// takes tells whether an entry goes into it too; the first one does, however large.
func (l *load) takes(r *store.Record) bool {
	if l.entries == takeEntries || l.entries > 0 && l.bytes+r.Size > takeBytes {
		return false
	}
	l.entries, l.bytes = l.entries+1, l.bytes+r.Size
	return true
}

// portion takes the first entries off the list, one at least: what is not taken yet still counts. The caller
// holds the lock of the hub.
func (w *Watch) portion() []*store.Record {
	var l load
	for l.entries < len(w.pending) && l.takes(w.pending[l.entries]) {
	}
	n := l.entries
	records := w.pending[:n:n]
	w.pending, w.bytes = w.pending[n:], w.bytes-l.bytes
	if len(w.pending) == 0 {
		w.pending = nil
	}
	return records
}

// Failed is closed when the watch has been cut off, which its reader may not notice while it is kept waiting.
func (w *Watch) Failed() <-chan struct{} { return w.failed }

// fromLog returns the next portion of the log, and joins the live watches once it has met the ring.
func (w *Watch) fromLog(ctx context.Context) ([]*store.Record, uint64, error) {
	records, _, err := w.hub.store.Events(ctx, w.cursor, readPortion)
	if err != nil {
		return nil, 0, err
	}
	var passed []*store.Record
	var l load
	for i := range records {
		r := &records[i]
		if w.filter.passes(r) {
			if !l.takes(r) {
				break
			}
			passed = append(passed, r)
		}
		w.cursor = r.Revision
	}
	revision := w.cursor
	if err := w.goLive(); err != nil {
		return nil, 0, err
	}
	return passed, revision, nil
}

// offer puts an entry on the list of the watch. The caller holds the lock of the hub.
func (w *Watch) offer(r *store.Record) {
	if w.err != nil || r.Revision <= w.cursor || !w.filter.passes(r) {
		return
	}
	if len(w.pending) >= pendingLimit || w.bytes+r.Size > pendingBytes {
		w.fail(ErrSlow)
	} else {
		w.pending, w.bytes = append(w.pending, r), w.bytes+r.Size
	}
	if w.err != nil || w.filter.urgent(r) || r.Revision-w.pending[0].Revision > unhurried {
		w.pacer.add(w)
	}
}

// tick looks after a watch every quarter of the time between bookmarks. A watch that has left
// something untaken for so long that the ring no longer holds it is cut off, so that all the watches
// together hold little more than the ring does. The caller holds the lock of the hub.
func (w *Watch) tick() {
	if w.err == nil && len(w.pending) > 0 && !w.hub.ring.reaches(w.pending[0].Revision-1) {
		w.fail(ErrSlow)
		w.wake()
	}
	if w.idle++; w.idle >= ticksPerBookmark {
		w.idle, w.remind = 0, true
		w.wake()
	}
}

// fail ends the watch with an error. The caller holds the lock of the hub.
func (w *Watch) fail(err error) {
	if w.err == nil {
		w.err, w.pending, w.bytes = err, nil, 0
		close(w.failed)
	}
}

func (w *Watch) wake() { signal(w.ready) }
