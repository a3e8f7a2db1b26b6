// Package hub gives the log of changes to watches, in order, as soon as it is committed.
//
// A commit of this process arrives through Publish, in the goroutine of the writer, and is in the
// hands of the watches when Publish returns. Commits of other replicas arrive by notification, and a
// slow poll finds what a lost notification did not tell; both make the hub read the log. Publish may
// be called out of order: what comes too early is fetched from the log together with what it waits
// for, so watches see every revision once and in order.
//
// The hub keeps the newest entries in a ring, encoded once for all watches. A watch that resumes from
// further back reads the log until it meets the ring. Each watch has a bounded list of entries that it
// has not taken yet; one that lets it overflow, or holds what the ring has long let go, is cut off with
// ErrSlow. Nothing here waits for a watch. Watches that are many are woken in rounds: see pacer.
package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"muster/bbs/internal/store"
	"muster/internal/wait"
)

// Limits and times of the hub.
const (
	// ringSize is how many entries are kept at hand.
	ringSize = 32768
	// ringBytes is how large they are at most, so that many changes of large records do not eat the
	// memory.
	ringBytes = 64 << 20
	// firstEntries is how many entries a hub reads when it starts: watches of a replica that was killed
	// come all at once to the others, or to the one that is there again, and each would read the log.
	firstEntries = ringSize / 4
	// pendingLimit is how many entries a watch may leave untaken.
	pendingLimit = ringSize / 2
	// pendingBytes is how large they may be: more than the ring, which a watch may begin with.
	pendingBytes = 2 * ringBytes
	// takeEntries and takeBytes are how much a watch takes at a time: what one message carries. It may be larger
	// when a single entry is. Far below what a connection carries, or a watch that met large changes would fail
	// for ever at the same place.
	takeEntries = 500
	takeBytes   = 4 << 20
	// earlyLimit is how many commits that came too early are kept until what is missing comes: as many as
	// there are writers, or, while others write, as this process commits within readPause.
	earlyLimit = 64
	// gapLinger is the wait before the log is read for what is missing. Commits of this process are on
	// their way, mostly: the notification of a commit overtakes its answer, and one writer the other.
	gapLinger = 2 * time.Millisecond
	// readPause is the least time between two readings of the log. Up: less work for the database while
	// other replicas commit again and again; down: their changes reach watches of this one sooner.
	readPause = 20 * time.Millisecond
	// perWake is the time that is granted for one message to a watch with a filter, and maxLinger how long
	// a change waits at most because of it: 2,000 messages a second, and then each carries more. Up: watches
	// cost the writers less; down: cells learn sooner of what happens while there is much to tell.
	perWake   = 500 * time.Microsecond
	maxLinger = 500 * time.Millisecond
	// perWideWake and maxWideLinger are the same for watches without one, whose messages are large.
	perWideWake   = 4 * time.Millisecond
	maxWideLinger = 20 * time.Millisecond
	// unhurried is how many entries further the log may be when a cell hears again what it has told itself.
	unhurried = ringSize / 4
	// handAtOnce is how many watches the writer wakes itself.
	handAtOnce = 16
	// readPortion is how many entries are read from the log at a time.
	readPortion = takeEntries
	// pollEvery is how often the log is looked at without being told to.
	pollEvery = time.Second
	// listenTime bounds what is asked of the listening connection, and the way to it.
	listenTime = 5 * time.Second
	// probeEvery is how often that connection is asked whether it is still there: when the network swallows
	// what is sent, a connection that only listens never learns of it. Up: notifications may be missing for
	// longer, and the poll makes up for them; down: more questions to the database.
	probeEvery = 5 * time.Second
	// listenPause is the wait before listening again after a lost connection.
	listenPause = 200 * time.Millisecond
	// ticksPerBookmark is how often watches are looked after in the time between two bookmarks.
	ticksPerBookmark = 4
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

// Hub distributes the log. Make one with New, Start it, then Run it.
type Hub struct {
	store    *store.Store
	log      *slog.Logger
	bookmark time.Duration
	poll     time.Duration
	probe    time.Duration

	poke chan struct{} // capacity 1: the log has something that is not in the ring

	reading   trouble // of Run
	listening trouble // of listen

	// wide wakes the watches without a filter, narrow the others.
	wide, narrow *pacer

	mu      sync.Mutex
	ring    ring
	early   [][]store.Record // commits of this process beyond a gap, by their first revision
	heard   uint64           // newest revision that somebody told of
	stale   bool             // the log must be read, whatever was heard
	watches map[shelf]map[*Watch]struct{}
	open    int // how many watches there are
	started bool
	closed  bool
}

// New returns a hub; bookmark 0 means DefaultBookmark. Watches can be opened once Start has returned.
func New(log *slog.Logger, bookmark time.Duration) *Hub {
	if bookmark == 0 {
		bookmark = DefaultBookmark
	}
	return &Hub{
		log: log, bookmark: bookmark, poll: pollEvery, probe: probeEvery, poke: make(chan struct{}, 1),
		reading: trouble{what: "read the log"}, listening: trouble{what: "listen for commits of other replicas"},
		wide: newPacer(perWideWake, maxWideLinger), narrow: newPacer(perWake, maxLinger), watches: map[shelf]map[*Watch]struct{}{},
	}
}

// Start finds out where the log ends; the hub knows what comes after that, and a little of what was
// before. It takes the store here, not in New, because the store is given Publish when it is made.
func (h *Hub) Start(ctx context.Context, s *store.Store) error {
	revision, err := s.Revision(ctx)
	if err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	r := newRing(revision-min(revision, firstEntries), ringSize)
	for r.newest < revision {
		records, _, err := s.Events(ctx, r.newest, readPortion)
		if errors.Is(err, ErrPruned) {
			r = newRing(revision, ringSize) // whoever wants what was before reads the log, and is told so
			break
		}
		if err != nil {
			return fmt.Errorf("start the hub: %w", err)
		}
		for i := range records {
			r.add(&records[i])
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store, h.ring, h.started = s, r, true
	return nil
}

// Publish hands over the entries of one commit of this process. An empty list means that something
// was committed: look into the log. The hub keeps the entries.
func (h *Hub) Publish(records []store.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started {
		return // Start reads them
	}
	h.stale = h.stale || len(records) == 0
	h.add(records)
	h.wide.hand()
	h.narrow.hand()
	if h.behind() {
		h.wake()
	}
}

// add appends entries that come next and those that waited for them, and skips what is known. What
// comes too early waits, or is forgotten when too much does: the log has it. The caller holds the lock.
func (h *Hub) add(records []store.Record) {
	if len(records) == 0 {
		return
	}
	h.heard = max(h.heard, records[len(records)-1].Revision)
	if records[0].Revision > h.ring.newest+1 {
		if len(h.early) < earlyLimit {
			h.early = append(h.early, records)
			slices.SortFunc(h.early, func(a, b []store.Record) int { return cmp.Compare(a[0].Revision, b[0].Revision) })
		}
		return
	}
	h.append(records)
	for len(h.early) > 0 && h.early[0][0].Revision <= h.ring.newest+1 {
		h.append(h.early[0])
		h.early = slices.Delete(h.early, 0, 1)
	}
}

// append appends entries without a gap before them.
func (h *Hub) append(records []store.Record) {
	for i := range records {
		r := &records[i]
		if r.Revision != h.ring.newest+1 {
			continue
		}
		h.ring.add(r)
		shelves(r, func(s shelf) {
			for w := range h.watches[s] {
				w.offer(r)
			}
		})
	}
}

// behind tells whether the log has something that the ring lacks. The caller holds the lock.
func (h *Hub) behind() bool { return h.stale || h.heard > h.ring.newest }

// wake makes Run look whether the log has something.
func (h *Hub) wake() { signal(h.poke) }

// look makes Run read the log, whatever was heard.
func (h *Hub) look() {
	h.mu.Lock()
	h.stale = true
	h.mu.Unlock()
	h.wake()
}

// Run follows the log until ctx ends; then all watches end.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { h.listen(ctx) })
	wg.Go(func() { h.wide.run(ctx, h) })
	wg.Go(func() { h.narrow.run(ctx, h) })
	wg.Go(func() { h.tick(ctx) })
	poll := time.NewTicker(h.poll)
	defer poll.Stop()
	var last time.Time // when the log was read
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-h.poke:
			if !wait.For(ctx, max(gapLinger, time.Until(last.Add(readPause)))) {
				break
			}
			h.mu.Lock()
			behind := h.behind()
			h.mu.Unlock()
			if behind {
				h.catchUp(ctx)
				last = time.Now()
			}
		case <-poll.C:
			h.catchUp(ctx)
		}
	}
	wg.Wait()
	h.close()
	return ctx.Err()
}

// tick looks after the watches again and again.
func (h *Hub) tick(ctx context.Context) {
	t := time.NewTicker(h.bookmark / ticksPerBookmark)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			h.mu.Lock()
			h.each((*Watch).tick)
			h.mu.Unlock()
		}
	}
}

// each calls f for every watch. The caller holds the lock.
func (h *Hub) each(f func(*Watch)) {
	for _, ws := range h.watches {
		for w := range ws {
			f(w)
		}
	}
}

// catchUp reads what the ring lacks.
func (h *Hub) catchUp(ctx context.Context) {
	for {
		h.mu.Lock()
		after := h.ring.newest
		h.stale = false // set again by whoever commits from now on
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
			return // the next poll tries again
		}
		h.reading.worked(h.log)
		h.mu.Lock()
		h.add(records)
		h.wide.hand()
		h.narrow.hand()
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
	h.ring, h.early, h.heard = newRing(revision, ringSize), nil, revision
}

func (h *Hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.endAll(ErrClosed)
}

// endAll ends every watch. The caller holds the lock.
func (h *Hub) endAll(why error) {
	h.each(func(w *Watch) {
		w.fail(why)
		w.wake()
	})
}

// listen waits for notifications of other replicas.
func (h *Hub) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := h.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		h.listening.failed(h.log, err)
		wait.For(ctx, listenPause)
	}
}

func (h *Hub) listenOnce(ctx context.Context) error {
	conn, err := h.listenConn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	h.listening.worked(h.log)
	h.look() // what was committed before we listened
	return h.notified(ctx, conn)
}

// listenConn returns a connection that listens.
func (h *Hub) listenConn(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, listenTime)
	defer cancel()
	pooled, err := h.store.Pools.Read.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	conn := pooled.Hijack() // it waits for ever, so it must not count against the pool
	// The name is for whoever looks at pg_stat_activity: what the connection did last is a probe.
	for _, sql := range []string{"set application_name to 'muster-bbs-listen'", "listen bbs_events"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			conn.Close(ctx)
			return nil, err
		}
	}
	return conn, nil
}

// notification waits for the next one, and asks from time to time whether the connection is still there.
func (h *Hub) notification(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	for {
		waiting, cancel := context.WithTimeout(ctx, h.probe)
		n, err := conn.WaitForNotification(waiting)
		silent := waiting.Err() != nil && pgconn.Timeout(err)
		cancel()
		if ctx.Err() != nil || !silent {
			return n, err
		}
		asking, cancel := context.WithTimeout(ctx, listenTime)
		err = conn.Ping(asking)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("ask whether the connection is still there: %w", err)
		}
	}
}

func (h *Hub) notified(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := h.notification(ctx, conn)
		if err != nil {
			return err
		}
		var revision uint64
		if _, err := fmt.Sscan(n.Payload, &revision); err != nil {
			return fmt.Errorf("notification %q: %w", n.Payload, err)
		}
		h.mu.Lock()
		h.heard = max(h.heard, revision)
		behind := h.behind()
		h.mu.Unlock()
		if behind {
			h.wake()
		}
	}
}

// Watches returns how many watches are open.
func (h *Hub) Watches() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// knows tells whether a revision exists, as far as was heard.
func (h *Hub) knows(revision uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return revision <= max(h.ring.newest, h.heard)
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
