package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"muster/bbs/internal/seal"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/internal/pgtest"
)

// replica is a store with a hub that remembers little, on a database of several.
func replica(t *testing.T, url string, ringSize int) (*store.Store, *Hub) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	pools, err := store.OpenPools(context.Background(), url, 8)
	if err != nil {
		t.Fatal(err)
	}
	h := New(log, 20*time.Millisecond)
	sealer, err := seal.New("k", map[string]string{"k": "a passphrase"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.New(store.Options{Pools: pools, Log: log, Sealer: sealer, Published: h.Publish})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	h.ring = newRing(h.ring.newest, ringSize)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	wg.Go(func() { h.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait(); pools.Close() })
	return s, h
}

// Two replicas write at once, and watches move between them again and again: each sees every change
// that passes its filter once, in order.
func TestWatchesMoveBetweenReplicas(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, store.Migrate)
	var stores []*store.Store
	var hubs []*Hub
	for range 2 {
		s, h := replica(t, url, 64)
		stores, hubs = append(stores, s), append(hubs, h)
	}
	const writers, changes = 4, 150
	const last = writers * (changes + 1) // each desires a process and updates it
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			s, p := stores[n%2], lrp.ProcessGUID(fmt.Sprint("p", n))
			d := lrp.Desired{Process: p, Domain: "d", RootFS: "docker://r/i#t"}
			if err := s.Desire(t.Context(), d, store.Call{}); err != nil {
				t.Error(err)
			}
			for i := range changes {
				text := fmt.Sprint(i)
				if err := s.Update(t.Context(), p, lrp.Update{Annotation: &text}, store.Call{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := make([][]store.Record, 9)
	for n := range seen {
		if n == 6 { // the others come late: they must read the log, of which the rings hold little
			wg.Wait()
		}
		wg.Go(func() {
			var f Filter
			if n%3 == 2 {
				f.Process = "p1"
			}
			dice := rand.New(rand.NewPCG(uint64(n), 1))
			for at := uint64(0); at < last && !t.Failed(); {
				at = follow(t, hubs[dice.IntN(2)], at, f, dice.IntN(8), &seen[n])
			}
		})
	}
	wg.Wait()
	log, _, err := stores[0].Events(t.Context(), 0, 10*last)
	if err != nil || len(log) != last {
		t.Fatalf("the log has %d entries (%v), want %d", len(log), err, last)
	}
	for n, got := range seen {
		var want []uint64
		for _, r := range log {
			if n%3 != 2 || r.Process == "p1" {
				want = append(want, r.Revision)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("watch %d saw %d changes, want %d", n, len(got), len(want))
		}
		for i, r := range got {
			if r.Revision != want[i] {
				t.Fatalf("watch %d saw revision %d where %d was due", n, r.Revision, want[i])
			}
		}
	}
}

// follow opens a watch, takes some portions, and returns where to resume.
func follow(t *testing.T, h *Hub, at uint64, f Filter, portions int, seen *[]store.Record) uint64 {
	w, err := h.Watch(t.Context(), at, f)
	if err != nil {
		t.Error(err)
		return at
	}
	defer w.Close()
	for range portions {
		records, revision, err := w.Next(t.Context())
		if errors.Is(err, ErrSlow) {
			return at
		}
		if err != nil || revision < at {
			t.Errorf("watch at %d went to %d: %v", at, revision, err)
			return at
		}
		for _, r := range records {
			*seen = append(*seen, *r)
		}
		at = revision
	}
	return at
}

// What the other replica is not told of by notifications is found all the same.
func TestPollFindsWhatNotificationsMissed(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, store.Migrate)
	_, h := replica(t, url, 64)
	w, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	quiet, err := store.OpenPools(t.Context(), url, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	const sql = `with s as (update sequencer set revision = revision + 1 returning revision)
		insert into events (revision, committed_at, batch, trace_id, process_guid, domain, cell_before, cell_after, payload)
		select revision, now(), 0, '', 'p', 'd', '', '', '' from s`
	for want := range uint64(3) { // more than once: the hub also looks when it begins to listen
		if _, err := quiet.Read.Exec(t.Context(), sql); err != nil { // tells nobody
			t.Fatal(err)
		}
		for revision := uint64(0); revision <= want; {
			if _, revision, err = w.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A revision that another replica committed a moment ago can be watched from at once; one that does
// not exist cannot, and a database that does not answer is neither.
func TestWatchFromTheFuture(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, store.Migrate)
	s, _ := replica(t, url, 64)
	behind := New(slog.New(slog.NewTextHandler(io.Discard, nil)), 0)
	if err := behind.Start(t.Context(), s); err != nil { // and it never runs
		t.Fatal(err)
	}
	if err := s.Desire(t.Context(), lrp.Desired{Process: "p", Domain: "d", RootFS: "a:b"}, store.Call{}); err != nil {
		t.Fatal(err)
	}
	w, err := behind.Watch(t.Context(), 1, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := behind.Watch(t.Context(), 2, Filter{}); !errors.Is(err, ErrFuture) {
		t.Errorf("watch from revision 2: %v, want %v", err, ErrFuture)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := behind.Watch(ctx, 2, Filter{}); err == nil || errors.Is(err, ErrFuture) {
		t.Errorf("watch without an answer of the database: %v, want its error", err)
	}
}
