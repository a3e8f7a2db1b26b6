package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"muster/bbs/internal/seal"
	"muster/bbs/lrp"
	"muster/bbs/task"
)

// Limits of the writer.
const (
	// queueLimit is how many calls may wait for a writer; further ones wait to be queued.
	queueLimit = 8192
	// batchLimit is how many single calls go into one transaction.
	batchLimit = 512
	// chunkLimit is how many items of a bulk call go into one transaction.
	chunkLimit = 2048
	// changeLimit is how many changes a transaction makes before it takes no further call; they go into
	// the next one. A call is never divided: one that changes more is alone.
	changeLimit = 8192
	// Writers is how many transactions about LRPs and tasks are in the making at once: while one waits
	// for the disk, the next one is made. Each needs a connection. There is one writer more, for signs of
	// life.
	Writers = 2
	// fullBatch is how many calls are enough: nothing is won by waiting for more.
	fullBatch = 256
	// overlapFrom is how many waiting calls are worth a batch of their own while another one is still
	// waiting for the disk. What a batch costs hardly depends on how many calls are in it. Up: fewer and
	// larger batches; down: less waiting for slow disks.
	overlapFrom = 32
	// attempts is how often a transaction is tried while the database is out of order.
	attempts = 5
	// firstPause is the pause after the first failed attempt; it grows fourfold.
	firstPause = 10 * time.Millisecond
	// batchTime bounds the reading of one attempt, and the writing of changeLimit changes.
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
	// Sealer encrypts what is sensitive. Required.
	Sealer *seal.Sealer
	// Unreadable is told the table of each row that is met and cannot be read, for metrics. nil: nobody.
	Unreadable func(table string)
	// Resealed is told how many rows of a table were sealed with another key, for metrics. nil: nobody.
	Resealed func(table string, rows int)
	// Published is told the changes of each commit of this store, right after it. Batches of several
	// writers may arrive in any order. An empty list says that something was committed whose
	// revisions are not known: look into the log. It must not block. nil: nobody.
	Published func([]Record)
	// Committed is told about each batch, for metrics. nil: nobody.
	Committed func(Commit)
	// Retried is told of each attempt to commit a batch that is to be made again, for metrics. nil: nobody.
	Retried func()
	// Failed is told of each batch that is given up, for metrics. nil: nobody.
	Failed func()
	// TaskPolicy are the limits of tasks; zero: the default ones.
	TaskPolicy task.Policy
	// Now is the clock; nil: the wall clock.
	Now func() time.Time
}

// Store is the records of the BBS. It is safe for concurrent use, but calls that write only return
// while Run runs.
type Store struct {
	Options
	sql     map[string]string
	queue   chan *request
	signs   chan *request // signs of life, and the lack of them: calls about cells, and only those
	chunks  chan *chunk
	turns   turns
	notices *notices
	fences  fences

	waitingChunks atomic.Int64 // that no writer has taken yet

	unreadables unreadables
	silentAt    atomic.Pointer[time.Time] // when connections were thrown away because nothing came back

	closed chan struct{} // closed when Run has ended
}

// request is a call, or one item of a bulk call, that waits for its answer.
type request struct {
	ctx  context.Context
	op   op
	call *Call
	id   requestID // under which a success is remembered; empty: it is not
	// answer is told the answer, unless the request belongs to a chunk. Buffered: the writer never waits.
	answer chan error
	chunk  *chunk
	place  int // in the chunk
}

// New returns a store on a database that Migrate has prepared.
func New(o Options) (*Store, error) {
	if o.Sealer == nil {
		return nil, errors.New("a store needs a sealer")
	}
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
	if o.Retried == nil {
		o.Retried = func() {}
	}
	if o.Failed == nil {
		o.Failed = func() {}
	}
	if o.TaskPolicy == (task.Policy{}) {
		o.TaskPolicy = task.DefaultPolicy()
	}
	s := &Store{
		Options: o, sql: sql, queue: make(chan *request, queueLimit), signs: make(chan *request, queueLimit),
		chunks: make(chan *chunk), turns: make(turns, 1), closed: make(chan struct{}),
	}
	s.notices = newNotices(s.notify)
	return s, nil
}

// Waiting is how much waits for the writers.
type Waiting struct {
	Calls  int // single calls
	Signs  int // signs of life of cells
	Chunks int // parts of bulk calls
}

// Waiting returns how much waits for the writers at this moment.
func (s *Store) Waiting() Waiting {
	return Waiting{Calls: len(s.queue), Signs: len(s.signs), Chunks: int(s.waitingChunks.Load())}
}

// now is the clock cut to what a timestamptz column keeps.
func (s *Store) now() time.Time { return s.Now().UTC().Truncate(time.Microsecond) }

// Run writes until ctx ends, once. Batches in hand are finished; calls that still wait get ErrClosed.
func (s *Store) Run(ctx context.Context) error {
	var wg, after sync.WaitGroup
	noticing, stop := context.WithCancel(context.WithoutCancel(ctx))
	after.Go(func() { s.notices.run(noticing) })
	for range Writers {
		wg.Go(func() { s.write(ctx, s.turns, s.queue, s.chunks) })
	}
	// Nothing makes a cell look silent that is not: its heartbeats wait for no process, however large.
	wg.Go(func() { s.write(ctx, make(turns, 1), s.signs, nil) })
	wg.Wait()
	stop()
	after.Wait()
	close(s.closed) // which answers those that still wait
	return ctx.Err()
}

// write drains a queue again and again. Chunks of bulk calls take turns with what single callers
// wait for, so that neither keeps the other waiting for long.
func (s *Store) write(ctx context.Context, turns turns, queue chan *request, chunks chan *chunk) {
	for {
		pass, ok := turns.take(ctx)
		if !ok {
			return
		}
		var batch []*request
		select {
		case <-ctx.Done():
			return
		case r := <-queue:
			batch = drain(queue, []*request{r})
		case c := <-chunks:
			batch = c.requests
		}
		if len(batch) >= fullBatch {
			pass()
		}
		stop := atLast(pass)
		// A batch in hand outlives the end of the store: its callers wait for the truth.
		s.commit(context.WithoutCancel(ctx), batch, pass)
		stop()
		pass()
	}
}

// drain adds to a batch what waits.
func drain(queue chan *request, batch []*request) []*request {
	for len(batch) < batchLimit {
		select {
		case r := <-queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// do queues a call and waits for its answer. A caller that stops waiting does not learn whether its
// call had an effect.
func (s *Store) do(ctx context.Context, o op, c Call) error {
	return s.send(ctx, s.queue, &request{op: o, call: &c})
}

// create is do for a call that its id makes safe to repeat.
func (s *Store) create(ctx context.Context, o op, c Call) error {
	return s.send(ctx, s.queue, &request{op: o, call: &c, id: requestID{id: c.RequestID}})
}

func (s *Store) send(ctx context.Context, queue chan *request, r *request) error {
	if err := s.enqueue(ctx, queue, r); err != nil {
		return err
	}
	return s.wait(ctx, r)
}

func (s *Store) enqueue(ctx context.Context, queue chan *request, r *request) error {
	if err := r.call.validate(); err != nil {
		return err
	}
	r.ctx, r.answer = ctx, make(chan error, 1)
	select {
	case <-s.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case queue <- r:
		return nil
	}
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

// reply answers a request.
func (r *request) reply(err error) {
	if r.chunk == nil {
		r.answer <- err
		return
	}
	r.chunk.reply(r.place, err)
}

// Desire creates a DesiredLRP, which the caller has validated, and the slots for its instances.
func (s *Store) Desire(ctx context.Context, d lrp.Desired, c Call) error {
	return s.create(ctx, &desireOp{desired: d, epoch: newEpoch}, c)
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
	_, err := s.Evacuate(ctx, ev, c)
	return err
}

// Evacuate is Apply for the events of an evacuation: keep tells the cell to let the container run on
// and to ask again, and has a meaning with an error too: see lrp.EventName.KeepUndecided.
func (s *Store) Evacuate(ctx context.Context, ev lrp.Event, c Call) (keep bool, err error) {
	if ev.Epoch == "" {
		ev.Epoch = newEpoch()
	}
	if ev.Validate() != nil { // the answer is known without troubling the database
		out, err := lrp.Apply(lrp.Group{}, ev, s.now())
		return out.Keep, err
	}
	o := &eventOp{ev: ev}
	err = s.do(ctx, o, c)
	if isDecision(err) {
		return o.keep, err
	}
	return ev.Name.KeepUndecided(), err // and the writer may still be at it
}

// isDecision tells whether an answer was decided by the rules, and not by circumstances.
func isDecision(err error) bool {
	var refusal *lrp.Refusal
	return err == nil || errors.As(err, &refusal)
}

// newEpoch returns a random epoch.
func newEpoch() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
