package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster/bbs/lrp"
)

// batch is a transaction in the making; it lives through all its attempts.
type batch struct {
	s        *Store
	requests []*request
	id       int64 // names the transaction in the log

	answers []error  // of the newest attempt
	records []Record // what it committed
	lookup  bool     // it committed something, but its revisions are not known
	// base is where the log stood before the newest attempt.
	base uint64
	// unknown is set when an attempt was interrupted while it committed; since is where the log
	// stood before it.
	unknown bool
	since   uint64
}

// commit makes one transaction of some calls and answers them.
func (s *Store) commit(ctx context.Context, requests []*request) {
	b := &batch{s: s, requests: requests, id: rand.Int64()}
	b.dropAbandoned()
	if len(b.requests) == 0 {
		return
	}
	start := time.Now()
	err := b.run(ctx)
	if isRejected(err) && !b.unknown {
		if len(b.requests) > 1 {
			// One of them cannot be stored: each on its own, so that only that one fails.
			for _, r := range b.requests {
				s.commit(ctx, []*request{r})
			}
			return
		}
		err = invalid(err)
	}
	if err != nil {
		var inv *lrp.Invalid
		if !errors.As(err, &inv) {
			s.Log.Error("batch not committed", "error", err, "calls", len(b.requests), "outcome_unknown", b.unknown)
		}
		b.answerAll(err)
		return
	}
	if len(b.records) > 0 || b.lookup {
		s.Published(b.records)
	}
	for i, r := range b.requests {
		r.answer <- b.answers[i]
	}
	s.Committed(Commit{Calls: len(b.requests), Events: len(b.records), Took: time.Since(start)})
}

// dropAbandoned answers calls whose callers no longer wait. They had no effect.
func (b *batch) dropAbandoned() {
	kept := b.requests[:0:0]
	for _, r := range b.requests {
		if err := r.ctx.Err(); err != nil {
			r.answer <- err
			continue
		}
		kept = append(kept, r)
	}
	b.requests = kept
}

// abandoned tells whether nobody waits for the answers any more.
func (b *batch) abandoned() bool {
	return !slices.ContainsFunc(b.requests, func(r *request) bool { return r.ctx.Err() == nil })
}

func (b *batch) answerAll(err error) {
	for _, r := range b.requests {
		r.answer <- err
	}
}

// run tries until an attempt succeeds, is rejected, or was the last one, or nobody waits any more.
func (b *batch) run(ctx context.Context) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := b.attempt(ctx)
		switch {
		case err == nil, isRejected(err):
			return err
		case !isRetryable(err):
			return err
		case try == attempts, b.abandoned():
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		b.s.Log.Debug("batch is tried again", "error", err, "attempt", try, "calls", len(b.requests))
		t := time.NewTimer(pause)
		<-t.C
		pause *= 4
	}
}

// attempt is the transaction: read, decide, write.
func (b *batch) attempt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	conn, err := b.s.Pools.Write.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // a connection that is still in a transaction is thrown away
	w, done, err := b.read(ctx, conn)
	if err != nil {
		return fmt.Errorf("read for a batch: %w", err)
	}
	if done {
		b.lookup = true // and the answers are those of that attempt
		return b.s.rollback(ctx, conn)
	}
	b.unknown = false
	b.decide(w)
	writes, err := b.s.plan(w)
	if err != nil {
		return err
	}
	if writes.empty() {
		b.records = nil
		return b.s.rollback(ctx, conn)
	}
	return b.write(ctx, conn, writes)
}

func (s *Store) rollback(ctx context.Context, conn *pgxpool.Conn) error {
	_, err := conn.Exec(ctx, s.sql["rollback"])
	return err
}

// read locks and reads what the batch is about, in one round trip. It reports true when an earlier
// attempt turns out to have committed.
func (b *batch) read(ctx context.Context, conn *pgxpool.Conn) (w *world, committed bool, err error) {
	subj := newSubjects()
	for _, r := range b.requests {
		r.op.needs(&subj)
	}
	w = newWorld(b.s.now())
	var pb pgx.Batch
	sql := b.s.sql
	pb.Queue(sql["begin_batch"])
	pb.Queue(sql["lock_subjects"], subj.lockKeys())
	if b.unknown {
		pb.Queue(sql["batch_committed"], int64(b.since), b.id).QueryRow(func(r pgx.Row) error { return r.Scan(&committed) })
	}
	pb.Queue(sql["newest_revision"]).QueryRow(func(r pgx.Row) error { return r.Scan(&b.base) })
	b.s.queueReads(&pb, subj, w)
	if err := conn.SendBatch(ctx, &pb).Close(); err != nil {
		return nil, false, err
	}
	return w, committed, nil
}

// decide runs the calls over the world, in their order.
func (b *batch) decide(w *world) {
	b.answers = make([]error, len(b.requests))
	for i, r := range b.requests {
		b.answers[i] = r.op.decide(w, r.call)
	}
}

// write writes, takes the revisions and commits, in one round trip.
func (b *batch) write(ctx context.Context, conn *pgxpool.Conn, p *plan) error {
	var pb pgx.Batch
	p.queue(&pb, b.s.sql)
	records := p.records
	if len(records) > 0 {
		pb.Queue(b.s.sql["append_events"], append(p.events, p.at, b.id)...).QueryRow(func(r pgx.Row) error {
			var base int64
			if err := r.Scan(&base, nil); err != nil {
				return err
			}
			for i := range records {
				records[i].stamp(uint64(base) + uint64(i) + 1)
			}
			return nil
		})
	}
	pb.Queue(b.s.sql["commit"])
	if err := conn.SendBatch(ctx, &pb).Close(); err != nil {
		if outcomeUnknown(err) && len(records) > 0 {
			b.unknown, b.since = true, b.base
		}
		return fmt.Errorf("write a batch: %w", err)
	}
	b.records = records
	return nil
}

// isRejected tells whether a statement failed because of what it was given: a value that a column
// cannot hold, or that breaks a constraint.
func isRejected(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code[:2] {
	case "22", "23", "54": // data exception, integrity constraint, program limit
		return true
	}
	return false
}

// isRetryable tells whether the same transaction may succeed a moment later.
func isRetryable(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true // the connection, or none to be had
	}
	switch pg.Code[:2] {
	case "40", // serialization failure, deadlock
		"57", // shut down, starting up
		"53", // too many connections and the like
		"08", // connection
		"25", // read-only: the connection leads to what is a standby by now, and is not used again
		"55": // lock not available
		return true
	}
	return false
}

// outcomeUnknown tells whether a transaction whose commit was sent may have committed all the same:
// always, unless the server said that a statement failed while it stayed alive.
func outcomeUnknown(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true
	}
	return pg.Code[:2] == "57" || pg.Code[:2] == "08"
}

// invalid is the answer to a call whose values cannot be stored.
func invalid(err error) error {
	var pg *pgconn.PgError
	errors.As(err, &pg)
	field := pg.ColumnName
	if field == "" {
		field = pg.ConstraintName
	}
	return notStorable(field, pg.Message)
}

// notStorable names what the database refused to hold, as an invalid request.
func notStorable(field, problem string) error {
	if field == "" {
		field = "record"
	}
	return &lrp.Invalid{Fields: []lrp.FieldError{{Field: field, Problem: "cannot be stored: " + problem}}}
}
