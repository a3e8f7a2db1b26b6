package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/testing/protocmp"

	"muster/bbs/lrp"
	"muster/cells"
	"muster/internal/pgtest"
)

// A call whose caller has left before it is decided has no effect.
func TestAbandonedCall(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	left := &request{ctx: gone, call: &Call{}, op: &desireOp{desired: app("left", 1), epoch: newEpoch}, answer: make(chan error, 1)}
	stays := &request{ctx: t.Context(), call: &Call{}, op: &desireOp{desired: app("stays", 1), epoch: newEpoch}, answer: make(chan error, 1)}
	s.commit(t.Context(), []*request{left, stays}, func() {})
	if err := <-left.answer; !errors.Is(err, context.Canceled) {
		t.Errorf("the answer to nobody is %v, want %v", err, context.Canceled)
	}
	must(t, <-stays.answer)
	list, _, err := s.Scheduling(t.Context(), DesiredFilter{}, Page{})
	if err != nil || len(list) != 1 || list[0].Process != "stays" {
		t.Errorf("stored are %v (%v), want the one that somebody waited for", list, err)
	}
}

// While the database is away, nothing is tried again once nobody waits for it.
func TestNothingIsTriedForNobody(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	pools, err := OpenPools(t.Context(), pgtest.DatabaseOn(t, c, Migrate), 4)
	must(t, err)
	defer pools.Close()
	var log strings.Builder
	s, err := New(Options{Pools: pools, Sealer: sealer(t, "k"), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(t, err)
	must(t, c.Stop(t.Context()))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	b := &batch{s: s, requests: []*request{{ctx: ctx, op: &desireOp{desired: app("p", 1), epoch: newEpoch}}}, pass: func() {}}
	for _, again := range []bool{true, false} {
		if err := b.run(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("the batch ended with %v, want %v", err, ErrUnavailable)
		}
		if got := strings.Contains(log.String(), "tried again"); got != again {
			t.Errorf("tried again: %v, want %v", got, again)
		}
		log.Reset()
		leave()
	}
}

// Calls that wait when the store stops, and later ones, are told so. What was answered is stored.
func TestStoppedStore(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	pools, err := OpenPools(t.Context(), url, 4)
	must(t, err)
	defer pools.Close()
	s, err := New(Options{Pools: pools, Sealer: sealer(t, "k"), Log: quiet()})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	const callers = 16
	stored := make([]int, callers)
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() {
			for i := 0; ; i++ {
				err := s.Desire(t.Context(), app(fmt.Sprintf("p-%d-%d", n, i), 0), Call{})
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("%v, want %v", err, ErrClosed)
					}
					return
				}
				if stored[n]++; i == 3 && n == 0 {
					stop()
				}
			}
		})
	}
	wg.Wait()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the store ended with %v", err)
	}
	if errs := s.ApplyAll(t.Context(), []lrp.Event{claim("p", 0, lrp.InstanceKey{Instance: "i", Cell: "c"})}, Call{}); !errors.Is(errs[0], ErrClosed) {
		t.Errorf("a late call: %v, want %v", errs[0], ErrClosed)
	}
	acknowledged := 0
	for _, n := range stored {
		acknowledged += n
	}
	list, _, err := s.Scheduling(t.Context(), DesiredFilter{}, Page{})
	if err != nil || len(list) != acknowledged {
		t.Errorf("%d processes are stored (%v), %d were acknowledged", len(list), err, acknowledged)
	}
}

// collecting returns a store, and what it has published so far.
func collecting(t *testing.T) (s *Store, published func() []Record) {
	t.Helper()
	var mu sync.Mutex
	var all []Record
	s = open(t, pgtest.Database(t, Migrate), Options{Published: func(records []Record) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, records...)
	}})
	return s, func() []Record {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// What is committed is published with its revisions before its callers are answered.
func TestPublishedBeforeAnswered(t *testing.T) {
	t.Parallel()
	s, publishedSoFar := collecting(t)
	must(t, s.Desire(t.Context(), app("p", 2), Call{}))
	published := publishedSoFar()
	if len(published) != 3 {
		t.Fatalf("%d changes were published, want 3", len(published))
	}
	for i, r := range published {
		if r.Revision != uint64(i)+1 || r.Wire.Revision != r.Revision || r.Event().Actual == nil && r.Event().Desired == nil || r.Process != "p" || r.Size == 0 {
			t.Errorf("change %d was published as %+v", i, r)
		}
	}
}

// An entry that is read from the log says of itself what the one that was published does.
func TestReadAsPublished(t *testing.T) {
	t.Parallel()
	s, publishedSoFar := collecting(t)
	ctx, a := t.Context(), lrp.InstanceKey{Instance: "i", Cell: "c"}
	must(t, s.Desire(ctx, app("p", 1), Call{TraceID: "t"}))
	must(t, s.Apply(ctx, claim("p", 0, a), Call{}))
	must(t, s.Apply(ctx, start("p", 0, a), Call{}))
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Lose, Key: slotKey("p", 0), By: a}, Call{})) // which is folded
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Return, Key: slotKey("p", 0), By: a}, Call{}))
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Crash, Key: slotKey("p", 0), By: a, Reason: "r"}, Call{}))
	must(t, s.RemoveDesired(ctx, "p", Call{}))
	published := publishedSoFar()
	read, _, err := s.Events(ctx, 0, 100)
	must(t, err)
	if len(read) != len(published) {
		t.Fatalf("%d entries were read of %d that were published", len(read), len(published))
	}
	told := 0
	for i := range read {
		if read[i].Told {
			told++
		}
		if diff := cmp.Diff(published[i], read[i], protocmp.Transform(), cmp.AllowUnexported(Record{})); diff != "" {
			t.Errorf("entry %d (-published +read):\n%s", i+1, diff)
		}
	}
	if told != 2 {
		t.Errorf("%d entries are what a cell told, want its claim and its start", told)
	}
}

// A list shows exactly what there was at the revision that it names, whatever is written meanwhile.
func TestListShowsItsRevision(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	const processes = 150
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range processes {
			if err := s.Desire(t.Context(), app(fmt.Sprint("p", i), 0), Call{}); err != nil { // one change each
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		list, at, err := s.Scheduling(t.Context(), DesiredFilter{}, Page{})
		must(t, err)
		if uint64(len(list)) != at.Revision {
			t.Fatalf("a list of %d processes says that it shows revision %d", len(list), at.Revision)
		}
	}
}

// A process that is removed and desired again in one batch is replaced in one transaction.
func TestReplacedInOneBatch(t *testing.T) {
	t.Parallel()
	var commits []Commit
	s := open(t, pgtest.Database(t, Migrate), Options{Committed: func(c Commit) { commits = append(commits, c) }})
	var requests []*request
	for _, o := range []op{
		&desireOp{desired: app("p", 1), epoch: newEpoch}, &deleteOp{process: "p", epoch: newEpoch}, &desireOp{desired: app("p", 2), epoch: newEpoch},
	} {
		requests = append(requests, &request{ctx: t.Context(), call: &Call{}, op: o, answer: make(chan error, 1)})
	}
	s.commit(t.Context(), requests[:1], func() {})
	s.commit(t.Context(), requests[1:], func() {})
	for _, r := range requests {
		must(t, <-r.answer)
	}
	if len(commits) != 2 || commits[1].Calls != 2 {
		t.Errorf("commits: %+v, want one of 1 call and one of 2", commits)
	}
	checkReplay(t, s)
}

// What an error of PostgreSQL means, by its class: nothing is retried or given up by mistake.
func TestMeaningOfErrors(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]struct{ rejected, retryable, unknown bool }{
		"22021": {rejected: true},                 // no text
		"23505": {rejected: true},                 // already there
		"54000": {rejected: true},                 // too large
		"40001": {retryable: true},                // serialization failure
		"40P01": {retryable: true},                // deadlock
		"53300": {retryable: true},                // too many connections
		"55P03": {retryable: true},                // lock not available
		"25006": {retryable: true},                // read-only: a standby
		"57P01": {retryable: true, unknown: true}, // shutting down
		"08006": {retryable: true, unknown: true}, // connection failure
		"42601": {},                               // our own mistake
	} {
		err := fmt.Errorf("while at it: %w", &pgconn.PgError{Code: code})
		if isRejected(err) != want.rejected || isRetryable(err) != want.retryable || outcomeUnknown(err) != want.unknown {
			t.Errorf("%s: rejected %v, retryable %v, outcome unknown %v; want %+v", code, isRejected(err), isRetryable(err), outcomeUnknown(err), want)
		}
	}
	if err := io.ErrUnexpectedEOF; isRejected(err) || !isRetryable(err) || !outcomeUnknown(err) {
		t.Error("a broken connection may have committed, and can be tried again")
	}
}

// What waits for the writers is told, by kind, and so is each attempt that failed.
func TestWaitingAndFailures(t *testing.T) {
	t.Parallel()
	retried, failed := 0, 0
	url := pgtest.Database(t, Migrate)
	pools, err := OpenPools(t.Context(), url, 4)
	must(t, err)
	defer pools.Close()
	s, err := New(Options{Pools: pools, Log: quiet(), Sealer: sealer(t, "k"), Retried: func() { retried++ }, Failed: func() { failed++ }})
	must(t, err)
	ctx, leave := context.WithCancel(t.Context()) // and nobody writes
	var calls sync.WaitGroup
	calls.Go(func() { s.Desire(ctx, app("p", 1), Call{}) })
	calls.Go(func() { s.Heartbeat(ctx, cells.Presence{Cell: "c"}, time.Second, Call{}) })
	calls.Go(func() { s.DesireAll(ctx, []lrp.Desired{app("q", 1)}, Call{}) })
	for s.Waiting() != (Waiting{Calls: 1, Signs: 1, Chunks: 1}) {
		runtime.Gosched()
	}
	leave()
	calls.Wait()
	if got := s.Waiting().Chunks; got != 0 {
		t.Errorf("%d chunks wait that nobody waits for", got)
	}
	pools.Write.Close() // which is as good as a database that is away
	r := &request{ctx: t.Context(), call: &Call{}, op: &desireOp{desired: app("p", 1), epoch: newEpoch}, answer: make(chan error, 1)}
	s.commit(t.Context(), []*request{r}, func() {})
	if err := <-r.answer; !errors.Is(err, ErrUnavailable) || retried != attempts-1 || failed != 1 {
		t.Errorf("%v after %d attempts more, and %d batches given up; want %d and 1", err, retried, failed, attempts-1)
	}
}
