package hub

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"muster/bbs/internal/store"
	bbsv1 "muster/proto/bbs/v1"
)

// entry makes an entry of the log about cell c.
func entry(revision uint64, told bool, size int) store.Record {
	return store.Record{Revision: revision, CellAfter: "c", Told: told, Size: size, Wire: &bbsv1.Event{Revision: revision}}
}

// What a cell has told is no news to it: it comes with what is, or with a bookmark, or before the ring lets
// it go. Others are told at once.
func TestToldByTheCell(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		filter Filter
		then   func(h *Hub) // after one entry that the cell told
		within time.Duration
		want   int
	}{
		"somebody else":   {Filter{Cell: "c"}, func(*Hub) {}, maxLinger, 1},
		"with news":       {Filter{Cell: "c", ByCell: true}, func(h *Hub) { h.Publish([]store.Record{entry(2, false, 1)}) }, maxLinger, 2},
		"with a bookmark": {Filter{Cell: "c", ByCell: true}, func(*Hub) {}, DefaultBookmark + DefaultBookmark/ticksPerBookmark, 1},
		"not at once":     {Filter{Cell: "c", ByCell: true}, func(*Hub) {}, DefaultBookmark / 2, 0},
		"before it is let go": {Filter{Cell: "c", ByCell: true}, func(h *Hub) {
			h.Publish(records(2, unhurried+1, "d"))
			h.Publish([]store.Record{entry(unhurried+2, true, 1)})
		}, maxLinger, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := started(t)
				w, err := h.Watch(t.Context(), 0, tc.filter)
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				stop := make(chan struct{})
				defer close(stop)
				go func() { // as Run has it
					for tick := time.NewTicker(DefaultBookmark / ticksPerBookmark); ; {
						select {
						case <-stop:
							tick.Stop()
							return
						case <-tick.C:
							h.mu.Lock()
							h.each((*Watch).tick)
							h.mu.Unlock()
						}
					}
				}()
				h.Publish([]store.Record{entry(1, true, 1)})
				tc.then(h)
				time.Sleep(tc.within)
				synctest.Wait()
				got := 0
				select {
				case <-w.ready:
					records, _, _, err := w.take()
					if err != nil {
						t.Fatal(err)
					}
					got = len(records)
				default:
				}
				if got != tc.want {
					t.Errorf("%d entries within %v, want %d", got, tc.within, tc.want)
				}
			})
		})
	}
}

// Changes travel in messages of bounded number and size, and with each comes a revision from which a watch
// resumes without loss.
func TestWhatAMessageCarries(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		count, size int
		want        []int // changes in each message
	}{
		"a few":                        {3, 10, []int{3}},
		"as many as fit":               {takeEntries, 1, []int{takeEntries}},
		"one more":                     {takeEntries + 1, 1, []int{takeEntries, 1}},
		"large ones":                   {5, takeBytes / 2, []int{2, 2, 1}},
		"each larger than the message": {2, takeBytes + 1, []int{1, 1}},
	} {
		h := started(t)
		w, err := h.Watch(t.Context(), 0, Filter{})
		if err != nil {
			t.Fatal(err)
		}
		var all []store.Record
		for i := range tc.count {
			all = append(all, entry(uint64(i)+1, false, tc.size))
		}
		h.Publish(append(all, store.Record{Revision: uint64(tc.count) + 1, CellAfter: "c", Size: takeBytes, Wire: &bbsv1.Event{}}))
		var got []int
		for sent := 0; sent < tc.count; {
			records, revision, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, sent = append(got, len(records)), sent+len(records)
			if revision != uint64(sent) {
				t.Errorf("%s: after %d changes the watch names revision %d", name, sent, revision)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: messages of %v changes, want %v", name, got, tc.want)
		}
	}
}

// A watch takes what a message carries; what it leaves still counts, and is cut off when it is left too long.
func TestTakesAreBounded(t *testing.T) {
	t.Parallel()
	h := started(t)
	w, err := h.Watch(t.Context(), 0, Filter{Cell: "c"})
	if err != nil {
		t.Fatal(err)
	}
	var all []store.Record
	for r := uint64(1); r <= takeEntries+1; r++ {
		all = append(all, entry(r, false, 1))
	}
	for _, size := range []int{takeBytes - 1, 2 * takeBytes, 1} {
		all = append(all, entry(uint64(len(all))+1, false, size))
	}
	h.Publish(all)
	for _, want := range []struct {
		entries  int
		revision uint64
	}{{takeEntries, takeEntries}, {2, takeEntries + 2}, {1, takeEntries + 3}, {1, takeEntries + 4}} {
		got, revision, err := w.Next(t.Context())
		if err != nil || len(got) != want.entries || revision != want.revision {
			t.Errorf("%d entries up to %d (%v), want %d up to %d", len(got), revision, err, want.entries, want.revision)
		}
	}
	if w.bytes != 0 || w.pending != nil {
		t.Errorf("%d bytes in %d entries are left of nothing", w.bytes, len(w.pending))
	}
	h.Publish(records(takeEntries+5, takeEntries+6+takeEntries, "c"))
	if _, _, err := w.Next(t.Context()); err != nil { // and then it is kept waiting by its caller
		t.Fatal(err)
	}
	for range 2 {
		from := h.Newest() + 1
		h.Publish(records(from, from+ringSize-1, "d"))
	}
	h.mu.Lock()
	w.tick()
	h.mu.Unlock()
	select {
	case <-w.Failed():
	default:
		t.Error("a watch that left something that the ring has let go was not cut off")
	}
}
