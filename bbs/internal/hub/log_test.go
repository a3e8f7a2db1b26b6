package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/bbs/internal/seal"
	"muster/bbs/internal/store"
	"muster/internal/pgcluster"
	"muster/internal/pgtest"
)

// silent puts entries into the log and tells nobody, as if the notifications were lost.
const silent = `with s as (update sequencer set revision = revision + $1::bigint returning revision)
	insert into events (revision, committed_at, batch, trace_id, process_guid, domain, cell_before, cell_after, payload)
	select revision - $1::bigint + n, now(), 0, '', 'p', 'd', '', '', '' from s, generate_series(1, $1::bigint) as n`

// run runs a statement on a connection of its own: those of a pool may have been cut.
func run(t *testing.T, url, sql string, args ...any) int64 {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tag, err := conn.Exec(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	return tag.RowsAffected()
}

// A log that is cut while a watch reads it ends the watch with ErrPruned, because nobody knows what it
// missed; so does one that begins behind the cut. What is newer can be watched.
func TestPrunedWhileReading(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, store.Migrate)
	run(t, url, silent, 3*readPortion)
	s, h := replica(t, url, 16)
	w, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	records, at, err := w.Next(t.Context())
	if err != nil || len(records) != readPortion || at != readPortion {
		t.Fatalf("first portion: %d entries up to %d (%v), want %d", len(records), at, err, readPortion)
	}
	if _, err := s.Prune(t.Context(), time.Hour, readPortion); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Next(t.Context()); !errors.Is(err, ErrPruned) {
		t.Errorf("second portion: %v, want %v", err, ErrPruned)
	}
	if _, err := h.Watch(t.Context(), at, Filter{}); !errors.Is(err, ErrPruned) {
		t.Errorf("a watch from revision %d: %v, want %v", at, err, ErrPruned)
	}
	w2, err := h.Watch(t.Context(), 2*readPortion, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	if records, _, err := w2.Next(t.Context()); err != nil || len(records) != readPortion {
		t.Errorf("what was kept: %d entries (%v), want %d", len(records), err, readPortion)
	}
}

// A replica whose listening connection is cut listens again, and misses nothing: neither what was
// committed in between nor what comes later. The poll does not help here.
func TestListenIsLost(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, store.Migrate)
	heard := make(chan string, 64)
	h := listening(t, url, heard)
	w, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const cut = `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and application_name = 'muster-bbs-listen'`
	for run(t, url, cut) == 0 { // it is about to listen
	}
	run(t, url, silent, 1)
	await(t, heard, "the hub has trouble with the database: listen")
	await(t, heard, "the hub gets on with the database again: listen")
	want := uint64(1)
	upTo(t, w, want) // by listening again
	for range 3 {
		want++
		run(t, url, silent, 1)
		run(t, url, "select pg_notify('bbs_events', $1)", fmt.Sprint(want))
		upTo(t, w, want)
	}
}

// An outage of the database makes two lines in the log for each of what the hub does there, one when it
// begins and one when it is over, and watches go on afterwards. Which of the two gets on first is open: a look
// that was asked for during the outage may come after it.
func TestOutageInTheLog(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	heard := make(chan string, 64)
	url := pgtest.DatabaseOn(t, c, store.Migrate)
	h := listening(t, url, heard)
	w, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, heard, "the hub has trouble with the database: listen")
	h.look()
	await(t, heard, "the hub has trouble with the database: read")
	for range 5 {
		h.look() // says nothing more
	}
	if _, err := pgcluster.Open(t.Context(), pgcluster.Config{Dir: c.Dir(), FastUnsafe: true}); err != nil {
		t.Fatal(err)
	}
	run(t, url, silent, 1)
	h.look()
	upTo(t, w, 1)
	again := []string{await(t, heard, "the hub gets on with the database again"), await(t, heard, "the hub gets on with the database again")}
	if again[0] == again[1] {
		t.Errorf("twice: %s", again[0])
	}
	select {
	case line := <-heard:
		t.Errorf("one line more: %s", line)
	default:
	}
}

// A network that swallows what is sent makes nothing wait for ever: the log is read, and listened to, on
// connections that are new as soon as those get through, and whoever opens a watch meanwhile is told that the
// database does not answer.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, store.Migrate)
	link := pgtest.NewLink(t, url)
	defer link.Close()
	heard := make(chan string, 64)
	h := listening(t, link.URL, heard) // which probes each 100 ms
	w, err := h.Watch(t.Context(), 0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	run(t, url, silent, 1)
	run(t, url, "select pg_notify('bbs_events', '1')")
	upTo(t, w, 1)
	link.Silence()
	if _, err := h.Watch(t.Context(), 2, Filter{}); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a watch of what only the database knows is told %v, want %v", err, store.ErrUnavailable)
	}
	h.look()
	for range 2 { // in any order
		if line := <-heard; !strings.HasPrefix(line, "the hub has trouble with the database") {
			t.Errorf("logged %q", line)
		}
	}
	run(t, url, silent, 1)
	link.Heal()
	upTo(t, w, 2) // by listening again
	run(t, url, silent, 1)
	run(t, url, "select pg_notify('bbs_events', '3')")
	upTo(t, w, 3)
}

// upTo takes from a watch until it has got so far.
func upTo(t *testing.T, w *Watch, want uint64) {
	t.Helper()
	for at := uint64(0); at < want; {
		var err error
		if _, at, err = w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits for the next line of the log and compares how it begins.
func await(t *testing.T, heard chan string, want string) string {
	t.Helper()
	select {
	case line := <-heard:
		if !strings.HasPrefix(line, want) {
			t.Fatalf("logged %q, want %q", line, want)
		}
		return line
	case <-t.Context().Done():
		return ""
	}
}

// lines is a handler of logs that hands on each message with what was attempted.
type lines struct {
	slog.Handler
	to chan string
}

// Handle hands on one message.
func (l lines) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "attempt_to" {
			line += ": " + a.Value.String()
		}
		return true
	})
	l.to <- line
	return nil
}

// listening runs the hub of a replica that never polls, and hands on what it logs.
func listening(t *testing.T, url string, heard chan string) *Hub {
	t.Helper()
	pools, err := store.OpenPools(context.Background(), url, 8)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(lines{slog.NewTextHandler(io.Discard, nil), heard})
	h := New(log, 20*time.Millisecond)
	h.poll, h.probe = time.Hour, 100*time.Millisecond
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
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait(); pools.Close() })
	return h
}
