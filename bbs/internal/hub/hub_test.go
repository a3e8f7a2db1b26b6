package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// records makes entries of the log, all of one cell.
func records(from, to uint64, cell lrp.CellID) []store.Record {
	var all []store.Record
	for r := from; r <= to; r++ {
		all = append(all, store.Record{Revision: r, CellAfter: cell, Wire: &bbsv1.Event{Revision: r}})
	}
	return all
}

// started returns a hub at the beginning of a log, which wakes its watches and does nothing else.
func started(t *testing.T) *Hub {
	h := New(slog.New(slog.NewTextHandler(io.Discard, nil)), 0)
	h.ring, h.started = newRing(0, ringSize), true
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, p := range []*pacer{h.wide, h.narrow} {
		wg.Go(func() { p.run(ctx, h) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

// A watch that takes nothing is cut off; one of another cell does not notice, and the commit does
// not wait for either.
func TestSlowWatchIsCut(t *testing.T) {
	t.Parallel()
	h := started(t)
	slow, err := h.Watch(t.Context(), 0, Filter{Cell: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.Watch(t.Context(), 0, Filter{Cell: "c2"})
	if err != nil {
		t.Fatal(err)
	}
	h.Publish(records(1, pendingLimit+1, "c1"))
	h.Publish(records(pendingLimit+2, pendingLimit+2, "c2"))
	if _, _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("the slow watch got %v, want %v", err, ErrSlow)
	}
	got, revision, err := other.Next(t.Context())
	if err != nil || len(got) != 1 || revision != pendingLimit+2 {
		t.Errorf("the other watch got %d entries up to %d (%v), want 1 up to %d", len(got), revision, err, pendingLimit+2)
	}
}

// A watch that resumes from what the ring still holds gets each entry once, in order.
func TestResumeFromRing(t *testing.T) {
	t.Parallel()
	h := started(t)
	h.Publish(records(1, 10, "c1"))
	w, err := h.Watch(t.Context(), 4, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	h.Publish(records(8, 12, "c1")) // partly known
	next := uint64(5)
	for next <= 12 {
		got, _, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got {
			if r.Revision != next {
				t.Fatalf("revision %d, want %d", r.Revision, next)
			}
			next++
		}
	}
}

// A watch joins from the ring however far back it stands, if little of what is there is for it; one for
// which there is much begins with the log. Neither asks the database whether a revision exists of which the
// hub has heard.
func TestResumeFromFarBack(t *testing.T) {
	t.Parallel()
	h := started(t)
	h.Publish(records(1, 1, "c1"))
	h.Publish(records(2, ringSize, "c2"))
	h.Publish(records(ringSize+5, ringSize+5, "c1")) // what is between comes later
	for name, tc := range map[string]struct {
		after  uint64
		filter Filter
		live   bool
		due    int
	}{
		"little of it":                   {0, Filter{Cell: "c1"}, true, 1},
		"all of it":                      {0, Filter{}, false, 0},
		"as much as may be":              {ringSize - pendingLimit/2, Filter{}, true, pendingLimit / 2},
		"one more":                       {ringSize - pendingLimit/2 - 1, Filter{}, false, 0},
		"from what is still on its way":  {ringSize + 5, Filter{}, true, 0},
		"from where the ring is by now":  {ringSize, Filter{}, true, 0},
		"from what is between these two": {ringSize + 2, Filter{Cell: "c1"}, true, 0},
	} {
		if !h.knows(tc.after) {
			t.Errorf("%s: the hub has not heard of revision %d", name, tc.after)
		}
		w := &Watch{hub: h, filter: tc.filter, pacer: h.narrow, ready: make(chan struct{}, 1), cursor: tc.after}
		if err := w.goLive(); err != nil || w.live != tc.live || len(w.pending) != tc.due {
			t.Errorf("%s: live %v with %d entries (%v), want %v with %d", name, w.live, len(w.pending), err, tc.live, tc.due)
		}
	}
	if h.knows(ringSize + 6) {
		t.Error("the hub knows a revision of which nobody has told")
	}
	if w, err := h.Watch(t.Context(), ringSize+5, Filter{}); err != nil || !w.live { // there is no database here
		t.Errorf("a watch from a revision that was heard of: %v", err)
	}
}

// A watch that has read the log further than the ring goes gets nothing twice when the ring follows,
// and its place never moves back.
func TestWatchAheadOfTheRing(t *testing.T) {
	t.Parallel()
	h := started(t)
	h.Publish(records(1, 3, "c1"))
	w := &Watch{hub: h, pacer: h.wide, ready: make(chan struct{}, 1), cursor: 5} // as fromLog leaves it
	if err := w.goLive(); err != nil || !w.live {
		t.Fatalf("live: %v (%v)", w.live, err)
	}
	if got, revision, _, err := w.take(); err != nil || len(got) != 0 || revision != 5 {
		t.Errorf("before the ring follows: %d entries up to %d (%v), want none and revision 5", len(got), revision, err)
	}
	h.Publish(records(4, 7, "c1"))
	got, revision, _, err := w.take()
	if err != nil || revision != 7 || len(got) != 2 || got[0].Revision != 6 {
		t.Errorf("then: %d entries up to %d (%v), want 6 and 7 alone", len(got), revision, err)
	}
}

// Large entries push older ones out of the ring before it is full, and cut off a watch that leaves
// them untaken.
func TestLargeEntries(t *testing.T) {
	t.Parallel()
	h := started(t)
	slow, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 9
	all := records(1, n, "c1")
	for i := range all {
		all[i].Size = ringBytes / 4
	}
	reader, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		h.Publish(all[i : i+1])
		if got, _, _, err := reader.take(); err != nil || len(got) != 1 {
			t.Errorf("a watch that takes each entry got %d (%v)", len(got), err)
		}
	}
	if h.ring.held != 4 || h.ring.bytes != ringBytes || h.ring.reaches(n-5) || !h.ring.reaches(n-4) {
		t.Errorf("the ring holds %d entries of %d bytes, want 4 of %d", h.ring.held, h.ring.bytes, ringBytes)
	}
	if _, _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("a watch with more than %d bytes untaken got %v, want %v", pendingBytes, err, ErrSlow)
	}
	h.Publish(records(n+1, n+1, "c1")) // a small one needs no room
	if h.ring.held != 5 {
		t.Errorf("the ring holds %d entries, want 5", h.ring.held)
	}
}

// A hub whose log went on without it ends all watches: nobody knows what they missed.
func TestRestartEndsWatches(t *testing.T) {
	t.Parallel()
	h := started(t)
	h.Publish(records(1, 10, "c1"))
	w, err := h.Watch(t.Context(), 10, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	cell, err := h.Watch(t.Context(), 10, Filter{Cell: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	h.restart(1000)
	h.Publish(records(1001, 1001, "c1"))
	for _, w := range []*Watch{w, cell} {
		if _, _, err := w.Next(t.Context()); !errors.Is(err, ErrPruned) {
			t.Errorf("an older watch got %v, want %v", err, ErrPruned)
		}
		w.Close()
	}
	if n := h.Watches(); n != 0 {
		t.Errorf("%d watches are left after all were closed", n)
	}
	h.close()
	if _, err := h.Watch(t.Context(), 1001, Filter{}); !errors.Is(err, ErrClosed) {
		t.Errorf("a watch of a closed hub: %v, want %v", err, ErrClosed)
	}
}

// Each watch gets what its filter is about, once; changes of cells only without a filter.
func TestFilters(t *testing.T) {
	t.Parallel()
	h := started(t)
	all := []store.Record{
		{Revision: 1, Process: "p", Domain: "d"},                                    // a process
		{Revision: 2, Process: "p", Domain: "d", CellAfter: "c1"},                   // claimed
		{Revision: 3, Process: "p", Domain: "d", CellBefore: "c1", CellAfter: "c1"}, // started
		{Revision: 4, Process: "p", Domain: "d", CellBefore: "c1", CellAfter: "c2"}, // moved
		{Revision: 5, Process: "p2", Domain: "d2", CellBefore: "c2"},                // removed
		{Revision: 6},                                                              // a cell
		{Revision: 7, Task: "t", Domain: "d"},                                      // a task
		{Revision: 8, Task: "t", Domain: "d", CellAfter: "c1"},                     // started
		{Revision: 9, Task: "t2", Domain: "d2", CellBefore: "c1", CellAfter: "c1"}, // another
	}
	want := map[Filter][]uint64{
		{}:                           {1, 2, 3, 4, 5, 6, 7, 8, 9},
		{Cell: "c1"}:                 {2, 3, 4, 8, 9},
		{Cell: "c2"}:                 {4, 5},
		{Domain: "d2"}:               {5, 9},
		{Task: "t"}:                  {7, 8},
		{Task: "t", Cell: "c1"}:      {8},
		{Task: "t", Process: "p"}:    nil,
		{Process: "p"}:               {1, 2, 3, 4},
		{Cell: "c2", Process: "p"}:   {4},
		{Cell: "c1", Domain: "d2"}:   {9},
		{Process: "p", Domain: "d2"}: nil,
	}
	live, later := map[Filter]*Watch{}, map[Filter]*Watch{}
	open := func(to map[Filter]*Watch) {
		for f := range want {
			w, err := h.Watch(t.Context(), 0, f)
			if err != nil {
				t.Fatal(err)
			}
			to[f] = w
		}
	}
	open(live)
	h.Publish(all)
	open(later)
	for f, revisions := range want {
		for how, w := range map[string]*Watch{"live": live[f], "from the ring": later[f]} {
			records, revision, _, err := w.take()
			var got []uint64
			for _, r := range records {
				got = append(got, r.Revision)
			}
			if err != nil || revision != 9 || !slices.Equal(got, revisions) {
				t.Errorf("%+v %s: %v up to %d (%v), want %v up to 9", f, how, got, revision, err, revisions)
			}
		}
	}
}

// Commits of two writers that arrive in the wrong order are put into order without reading the log,
// whatever comes first, and what never comes is asked for.
func TestCommitsOutOfOrder(t *testing.T) {
	t.Parallel()
	h := started(t)
	w, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, span := range [][2]uint64{{7, 9}, {4, 6}, {1, 3}, {12, 12}} {
		h.Publish(records(span[0], span[1], "c1"))
	}
	got, revision, _, err := w.take()
	if err != nil || revision != 9 || len(got) != 9 {
		t.Fatalf("%d entries up to %d (%v), want 9 up to 9", len(got), revision, err)
	}
	for i, r := range got {
		if r.Revision != uint64(i)+1 {
			t.Errorf("entry %d has revision %d", i, r.Revision)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.behind() || h.ring.newest != 9 {
		t.Errorf("at %d and behind: %v, want 9 and true: 10 and 11 are missing", h.ring.newest, h.behind())
	}
}

// More commits than can wait beyond a gap are forgotten, not lost: the hub knows that it is behind.
func TestTooMuchComesEarly(t *testing.T) {
	t.Parallel()
	h := started(t)
	for r := uint64(2); r < 2*earlyLimit; r++ {
		h.Publish(records(r, r, "c1"))
	}
	h.Publish(records(1, 1, "c1"))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ring.newest != earlyLimit+1 || len(h.early) != 0 || !h.behind() {
		t.Errorf("at %d with %d commits waiting, behind: %v; want %d, none and true", h.ring.newest, len(h.early), h.behind(), earlyLimit+1)
	}
}

// Watches are woken at once as long as they are few. When they are many, the next round waits, no
// longer than maxLinger, and then brings everything that came in between.
func TestRounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := started(t)
		const many = 4000
		watches := make([]*Watch, many)
		for i := range watches {
			w, err := h.Watch(t.Context(), 0, Filter{Cell: lrp.CellID(fmt.Sprint("c", i))})
			if err != nil {
				t.Fatal(err)
			}
			watches[i] = w
		}
		everything, err := h.Watch(t.Context(), 0, Filter{})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		next := uint64(1)
		commit := func() {
			for i := range many {
				h.Publish(records(next, next, lrp.CellID(fmt.Sprint("c", i))))
				next++
			}
		}
		take := func(w *Watch, want int) {
			t.Helper()
			for got := 0; got < want; {
				records, _, err := w.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got += len(records)
			}
		}
		commit()
		take(everything, many)
		if took := time.Since(begin); took > 2*perWideWake {
			t.Errorf("a watch of everything waited for %v", took)
		}
		for _, w := range watches {
			take(w, 1)
		}
		for range 3 {
			commit()
		}
		for _, w := range watches {
			take(w, 3)
		}
		if took := time.Since(begin); took > 2*maxLinger {
			t.Errorf("watches of cells waited for %v, want %v at most", took, 2*maxLinger)
		}
	})
}

// An idle watch gets a bookmark when it is time for one, and one that resumes from behind what its filter
// passes is told at once where it stands.
func TestBookmarks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := started(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.tick(ctx) })
		defer wg.Wait()
		defer cancel()
		h.Publish(records(1, 5, "c1"))
		begin := time.Now()
		w, err := h.Watch(t.Context(), 2, Filter{Cell: "c2"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for i, after := range []time.Duration{0, DefaultBookmark, 2 * DefaultBookmark} {
			records, revision, err := w.Next(t.Context())
			if err != nil || len(records) != 0 || revision != 5 {
				t.Fatalf("%d entries up to %d (%v), want a bookmark at 5", len(records), revision, err)
			}
			if took := time.Since(begin); took < after || took > after+DefaultBookmark/ticksPerBookmark {
				t.Errorf("bookmark %d came after %v, want %v", i, took, after)
			}
		}
	})
}

// A watch that leaves entries untaken until the ring has let them go is cut off: it would keep them in
// memory alone. It resumes where it was.
func TestNobodyHoldsMoreThanTheRing(t *testing.T) {
	t.Parallel()
	h := started(t)
	h.ring = newRing(0, 8)
	slow, err := h.Watch(t.Context(), 0, Filter{Cell: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	h.Publish(records(1, 1, "c1"))
	h.Publish(records(2, 8, "c2"))
	h.mu.Lock()
	slow.tick() // the ring still has it
	h.mu.Unlock()
	if slow.err != nil {
		t.Fatalf("cut off too early: %v", slow.err)
	}
	h.Publish(records(9, 9, "c2"))
	h.mu.Lock()
	slow.tick()
	h.mu.Unlock()
	if _, _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("a watch that holds what the ring does not: %v, want %v", err, ErrSlow)
	}
	if len(slow.pending) != 0 {
		t.Error("it still holds it")
	}
}
