package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster/bbs/lrp"
)

// Limits of the writer.
const (
	// queueLimit is how many calls may wait for a writer; further ones wait to be queued.
	queueLimit = 8192
	// batchLimit is how many calls go into one transaction.
	batchLimit = 512
	// Writers is how many transactions are in the making at once: while one waits for the disk, the
	// next one is decided. Each needs a connection.
	Writers = 2
	// attempts is how often a transaction is tried while the database is out of order.
	attempts = 5
	// firstPause is the pause after the first failed attempt; it grows fourfold.
	firstPause = 10 * time.Millisecond
	// batchTime bounds one attempt.
	batchTime = 10 * time.Second
)

// Errors of the store beside *lrp.Refusal and *lrp.Invalid.
var (
	// ErrUnavailable says that the database does not answer. Whether the call had an effect is
	// unknown if it was a write.
	ErrUnavailable = errors.New("the database does not answer")
	// ErrClosed says that the store has stopped. The call had no effect.
	ErrClosed = errors.New("the store is closed")
	// ErrPruned says that the log no longer reaches back to the revision that was asked for.
	ErrPruned = errors.New("the revision is older than the retained log")
)

// Commit describes one committed batch, for metrics.
type Commit struct {
	Calls  int
	Events int
	Took   time.Duration
}

// Options are what a store is made of.
type Options struct {
	Pools Pools
	Log   *slog.Logger
	// Published is told the changes of each commit of this store, right after it. Batches of the two
	// writers may arrive in either order. An empty list says that something was committed whose
	// revisions are not known: look into the log. It must not block. nil: nobody.
	Published func([]Record)
	// Committed is told about each batch, for metrics. nil: nobody.
	Committed func(Commit)
	// Now is the clock; nil: the wall clock.
	Now func() time.Time
}

// Store is the records of the BBS. It is safe for concurrent use, but calls that write only return
// while Run runs.
type Store struct {
	Options
	sql   map[string]string
	queue chan *request

	closed chan struct{} // closed when Run has ended
}

// request is a call that waits for its answer.
type request struct {
	ctx    context.Context
	op     op
	call   Call
	answer chan error // buffered: the writer never waits
}

// New returns a store on a database that Migrate has prepared.
func New(o Options) (*Store, error) {
	sql, err := loadQueries()
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Published == nil {
		o.Published = func([]Record) {}
	}
	if o.Committed == nil {
		o.Committed = func(Commit) {}
	}
	return &Store{Options: o, sql: sql, queue: make(chan *request, queueLimit), closed: make(chan struct{})}, nil
}

// now is the clock cut to what a timestamptz column keeps.
func (s *Store) now() time.Time { return s.Now().UTC().Truncate(time.Microsecond) }

// Run writes until ctx ends, once. Batches in hand are finished; calls that still wait get ErrClosed.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range Writers {
		wg.Go(func() { s.write(ctx) })
	}
	wg.Wait()
	close(s.closed) // which answers those that still wait
	return ctx.Err()
}

// write drains the queue again and again.
func (s *Store) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.queue:
			batch := []*request{r}
			for more := true; more && len(batch) < batchLimit; {
				select {
				case r := <-s.queue:
					batch = append(batch, r)
				default:
					more = false
				}
			}
			// A batch in hand outlives the end of the store: its callers wait for the truth.
			s.commit(context.WithoutCancel(ctx), batch)
		}
	}
}

// do queues a call and waits for its answer. A caller that stops waiting does not learn whether its
// call had an effect.
func (s *Store) do(ctx context.Context, o op, c Call) error {
	return s.doAll(ctx, []op{o}, c)[0]
}

// doAll is do for many calls at once, in order; each has its own answer.
func (s *Store) doAll(ctx context.Context, ops []op, c Call) []error {
	answers := make([]error, len(ops))
	requests := make([]*request, len(ops))
	for i, o := range ops {
		r := &request{ctx: ctx, op: o, call: c, answer: make(chan error, 1)}
		select {
		case <-s.closed:
			answers[i] = ErrClosed
		case <-ctx.Done():
			answers[i] = ctx.Err()
		case s.queue <- r:
			requests[i] = r
		}
	}
	for i, r := range requests {
		if r != nil {
			answers[i] = s.wait(ctx, r)
		}
	}
	return answers
}

func (s *Store) wait(ctx context.Context, r *request) error {
	select {
	case err := <-r.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		// The answer may have come in the same moment.
		select {
		case err := <-r.answer:
			return err
		default:
			return ErrClosed
		}
	}
}

// Desire creates a DesiredLRP, which the caller has validated, and the slots for its instances.
func (s *Store) Desire(ctx context.Context, d lrp.Desired, c Call) error {
	return s.do(ctx, &desireOp{desired: d, epoch: newEpoch}, c)
}

// Update changes a DesiredLRP and scales it, if the update is valid for the record.
func (s *Store) Update(ctx context.Context, p lrp.ProcessGUID, u lrp.Update, c Call) error {
	return s.do(ctx, &updateOp{process: p, update: u, epoch: newEpoch}, c)
}

// RemoveDesired removes a DesiredLRP and stops its instances.
func (s *Store) RemoveDesired(ctx context.Context, p lrp.ProcessGUID, c Call) error {
	return s.do(ctx, &deleteOp{process: p, epoch: newEpoch}, c)
}

// Apply runs the rules for one event of a slot and stores what becomes of it. An empty epoch is
// filled in.
func (s *Store) Apply(ctx context.Context, ev lrp.Event, c Call) error {
	if ev.Epoch == "" {
		ev.Epoch = newEpoch()
	}
	if err := ev.Validate(); err != nil {
		return err // without troubling the database
	}
	return s.do(ctx, &eventOp{ev: ev}, c)
}

// ApplyAll is Apply for many events, in order; each has its own answer.
func (s *Store) ApplyAll(ctx context.Context, evs []lrp.Event, c Call) []error {
	ops := make([]op, len(evs))
	for i, ev := range evs {
		if ev.Epoch == "" {
			ev.Epoch = newEpoch()
		}
		ops[i] = &eventOp{ev: ev}
	}
	return s.doAll(ctx, ops, c)
}

// newEpoch returns a random epoch.
func newEpoch() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x", b)
}
