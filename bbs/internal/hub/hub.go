// Package hub gives the log of changes to watches, in order, as soon as it is committed.
//
// A commit of this process arrives through Publish, in the goroutine of the writer, and is in the
// hands of the watches when Publish returns. Commits of other replicas arrive by notification, and a
// slow poll finds what a lost notification did not tell; both make the hub read the log. Publish may
// be called out of order: what comes too early is fetched from the log together with what it waits
// for, so watches see every revision once and in order.
//
// The hub keeps the newest entries in a ring. A watch that resumes from further back reads the log
// until it meets the ring. Each watch has a bounded list of entries that it has not taken yet; one
// that lets it overflow is cut off with ErrSlow. Nothing here waits for a watch.
package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
)

// Limits and times of the hub.
const (
	// ringSize is how many entries are kept at hand.
	ringSize = 16384
	// ringBytes is how large they are at most, so that many changes of large records do not eat the
	// memory. Their Go form takes about twice as much.
	ringBytes = 64 << 20
	// pendingLimit is how many entries a watch may leave untaken.
	pendingLimit = 8192
	// pendingBytes is how large they may be: more than the ring, which a watch may begin with.
	pendingBytes = 2 * ringBytes
	// readPortion is how many entries are read from the log at a time.
	readPortion = 1000
	// pollEvery is how often the log is looked at without being told to.
	pollEvery = time.Second
	// listenPause is the wait before listening again after a lost connection.
	listenPause = 200 * time.Millisecond
	// DefaultBookmark is how long a watch is idle before it is told where the log stands.
	DefaultBookmark = 5 * time.Second
)

// Why a watch ends.
var (
	// ErrSlow says that the watch left too much untaken. It may resume.
	ErrSlow = errors.New("the watch reads too slowly: resume from the last revision")
	// ErrPruned says that the log no longer reaches back far enough: list again.
	ErrPruned = store.ErrPruned
	// ErrFuture says that there is no such revision.
	ErrFuture = errors.New("the revision is newer than the newest one")
	// ErrClosed says that the hub has stopped.
	ErrClosed = errors.New("the hub is closed")
)

// Filter chooses changes; zero members choose all, set ones are combined with AND. With a cell only
// changes of instances pass that are or were on it; with any member set, no changes of cells do.
type Filter struct {
	Cell    lrp.CellID
	Domain  lrp.Domain
	Process lrp.ProcessGUID
}

// passes tells whether an entry passes the filter.
func (f Filter) passes(r *store.Record) bool {
	return (f.Cell == "" || r.CellBefore == f.Cell || r.CellAfter == f.Cell) &&
		(f.Domain == "" || r.Domain == f.Domain) &&
		(f.Process == "" || r.Process == f.Process)
}

// Hub distributes the log. Make one with New, then Run it.
type Hub struct {
	store    *store.Store
	log      *slog.Logger
	bookmark time.Duration

	poke chan struct{} // capacity 1: the log has something that is not in the ring

	reading   trouble // of Run
	listening trouble // of listen

	mu      sync.Mutex
	ring    ring
	all     map[*Watch]bool                // watches that name no cell
	byCell  map[lrp.CellID]map[*Watch]bool // watches of one cell
	started bool
	closed  bool
}

// New returns a hub; bookmark 0 means DefaultBookmark. Watches can be opened once Start has returned.
func New(log *slog.Logger, bookmark time.Duration) *Hub {
	if bookmark == 0 {
		bookmark = DefaultBookmark
	}
	return &Hub{
		log: log, bookmark: bookmark, poke: make(chan struct{}, 1),
		reading: trouble{what: "read the log"}, listening: trouble{what: "listen for commits of other replicas"},
		all: map[*Watch]bool{}, byCell: map[lrp.CellID]map[*Watch]bool{},
	}
}

// Start finds out where the log ends; the hub knows what comes after that. It takes the store here,
// not in New, because the store is given Publish when it is made.
func (h *Hub) Start(ctx context.Context, s *store.Store) error {
	revision, err := s.Revision(ctx)
	if err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store = s
	h.ring = newRing(revision, ringSize)
	h.started = true
	return nil
}

// Publish hands over the entries of one commit of this process. An empty list means that something
// was committed: look into the log.
func (h *Hub) Publish(records []store.Record) {
	h.mu.Lock()
	ok := h.started && h.add(records)
	h.mu.Unlock()
	if !ok {
		h.wake()
	}
}

// add appends entries that come next, skips what is known, and reports false when some are missing
// in between. The caller holds the lock.
func (h *Hub) add(records []store.Record) bool {
	if len(records) == 0 {
		return false
	}
	touched := map[*Watch]bool{}
	for i := range records {
		r := &records[i]
		switch next := h.ring.newest + 1; {
		case r.Revision < next:
			continue
		case r.Revision > next:
			h.wakeAll(touched)
			return false
		}
		h.ring.add(r)
		for w := range h.all {
			w.offer(r, touched)
		}
		for w := range h.byCell[r.CellBefore] {
			w.offer(r, touched)
		}
		if r.CellAfter != r.CellBefore {
			for w := range h.byCell[r.CellAfter] {
				w.offer(r, touched)
			}
		}
	}
	h.wakeAll(touched)
	return true
}

func (h *Hub) wakeAll(watches map[*Watch]bool) {
	for w := range watches {
		w.wake()
	}
}

// wake makes Run look into the log.
func (h *Hub) wake() {
	select {
	case h.poke <- struct{}{}:
	default: // it is going to look anyway
	}
}

// Run follows the log until ctx ends; then all watches end.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { h.listen(ctx) })
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-h.poke:
			h.catchUp(ctx)
		case <-tick.C:
			h.catchUp(ctx)
		}
	}
	wg.Wait()
	h.close()
	return ctx.Err()
}

// catchUp reads what the ring lacks.
func (h *Hub) catchUp(ctx context.Context) {
	for {
		h.mu.Lock()
		after := h.ring.newest
		h.mu.Unlock()
		records, newest, err := h.store.Events(ctx, after, readPortion)
		switch {
		case errors.Is(err, ErrPruned), err == nil && newest < after:
			// This process was away for longer than the log is kept, or the database was replaced.
			h.log.Warn("the log went on without this replica", "revision", after, "newest", newest)
			h.restart(newest)
			return
		case ctx.Err() != nil:
			return
		case err != nil:
			h.reading.failed(h.log, err)
			return
		}
		h.reading.worked(h.log)
		h.mu.Lock()
		h.add(records)
		done := h.ring.newest >= newest
		h.mu.Unlock()
		if done {
			return
		}
	}
}

// restart goes on from a revision; watches cannot know what they missed and are told so.
func (h *Hub) restart(revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endAll(ErrPruned)
	h.ring = newRing(revision, ringSize)
}

func (h *Hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.endAll(ErrClosed)
}

// endAll ends every watch. The caller holds the lock.
func (h *Hub) endAll(why error) {
	for w := range h.all {
		w.fail(why)
		w.wake()
	}
	for _, ws := range h.byCell {
		for w := range ws {
			w.fail(why)
			w.wake()
		}
	}
}

// listen waits for notifications of other replicas.
func (h *Hub) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := h.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		h.listening.failed(h.log, err)
		t := time.NewTimer(listenPause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (h *Hub) listenOnce(ctx context.Context) error {
	pooled, err := h.store.Pools.Read.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack() // it waits for ever, so it must not count against the pool
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "listen bbs_events"); err != nil {
		return err
	}
	h.listening.worked(h.log)
	h.wake() // what was committed before we listened
	return h.notified(ctx, conn)
}

func (h *Hub) notified(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		var revision uint64
		if _, err := fmt.Sscan(n.Payload, &revision); err != nil {
			return fmt.Errorf("notification %q: %w", n.Payload, err)
		}
		h.mu.Lock()
		known := revision <= h.ring.newest
		h.mu.Unlock()
		if !known {
			h.wake()
		}
	}
}

// Watches returns how many watches are open.
func (h *Hub) Watches() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.all)
	for _, ws := range h.byCell {
		n += len(ws)
	}
	return n
}

// Newest returns the newest revision that watches have been given.
func (h *Hub) Newest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ring.newest
}

// trouble makes two lines in the log of something that fails again and again: one when it begins and
// one when it is over. One goroutine uses it.
type trouble struct {
	what  string
	since time.Time // zero: all is well
}

func (t *trouble) failed(log *slog.Logger, err error) {
	if t.since.IsZero() {
		t.since = time.Now()
		log.Warn("the hub has trouble with the database", "attempt_to", t.what, "error", err)
	}
}

func (t *trouble) worked(log *slog.Logger) {
	if !t.since.IsZero() {
		log.Info("the hub gets on with the database again", "attempt_to", t.what, "took", time.Since(t.since))
		t.since = time.Time{}
	}
}
