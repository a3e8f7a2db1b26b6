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
	id       int64  // names the transaction in the log
	pass     func() // lets another writer begin

	answers []error  // of the newest attempt, to the first of the requests
	records []Record // what it committed
	lookup  bool     // it committed something, but its revisions are not known
	// unknown is set when an attempt was interrupted while it committed; since is where the log
	// stood before it.
	unknown bool
	since   uint64
}

// commit makes transactions of some calls, in their order, and answers them: one, unless they change
// too much for that.
func (s *Store) commit(ctx context.Context, requests []*request, pass func()) {
	for size := len(requests); len(requests) > 0; {
		b := &batch{s: s, requests: requests[:min(size, len(requests))], id: rand.Int64(), pass: pass}
		requests = requests[len(b.requests):]
		b.dropAbandoned()
		if len(b.requests) == 0 {
			continue
		}
		taken := b.commit(ctx)
		size *= 2
		if taken < len(b.requests) {
			requests = slices.Concat(b.requests[taken:], requests)
			// About how many fit is known now. To read for all of them again and again would be in vain.
			size = 2 * taken
		}
	}
}

// commit makes a transaction of the first calls of a batch, answers them, and returns how many.
func (b *batch) commit(ctx context.Context) int {
	start := time.Now()
	err := b.run(ctx)
	if isRejected(err) && !b.unknown {
		if len(b.requests) > 1 {
			// One of them cannot be stored. Halves of halves find it, so that only that one fails.
			half := len(b.requests) / 2
			b.s.commit(ctx, b.requests[:half], b.pass)
			b.s.commit(ctx, b.requests[half:], b.pass)
			return len(b.requests)
		}
		err = invalid(err)
	}
	if err != nil {
		var inv *lrp.Invalid
		if !errors.As(err, &inv) {
			b.s.Failed()
			b.s.Log.Error("batch not committed", "error", err, "calls", len(b.requests), "outcome_unknown", b.unknown)
		}
		b.answerAll(err)
		return len(b.requests)
	}
	if len(b.records) > 0 || b.lookup {
		b.s.Published(b.records)
	}
	for i, err := range b.answers {
		b.requests[i].reply(err)
	}
	b.s.Committed(Commit{Calls: len(b.answers), Events: len(b.records), Took: time.Since(start)})
	return len(b.answers)
}

// dropAbandoned answers calls whose callers no longer wait. They had no effect.
func (b *batch) dropAbandoned() {
	kept := b.requests[:0:0]
	for _, r := range b.requests {
		if err := r.ctx.Err(); err != nil {
			r.reply(err)
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
		r.reply(err)
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
		case errors.Is(err, errForgotten):
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		case errors.Is(err, errOutdated):
			continue // what made it fail is known now
		case !isRetryable(err):
			return err
		case try == attempts, b.abandoned():
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		b.pass()
		b.s.Retried()
		b.s.Log.Debug("batch is tried again", "error", err, "attempt", try, "calls", len(b.requests))
		t := time.NewTimer(pause)
		<-t.C
		pause *= 4
	}
}

// attempt is the transaction: read, decide, write.
func (b *batch) attempt(ctx context.Context) error {
	reading, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	conn, err := b.s.Pools.Write.Acquire(reading)
	if err != nil {
		return err
	}
	defer b.s.release(conn)
	w, earlier, err := b.read(reading, conn)
	if err != nil {
		return fmt.Errorf("read for a batch: %w", err)
	}
	switch earlier {
	case committed:
		b.lookup = true // and the answers are those of that attempt
		return b.s.rollback(reading, conn)
	case forgotten:
		return fmt.Errorf("%w: %w", errForgotten, b.s.rollback(reading, conn))
	}
	b.unknown = false
	b.decide(w)
	writes, err := b.s.plan(w)
	if err != nil {
		return err
	}
	if writes.empty() {
		b.records = nil
		b.s.fences.recorded(w.fences)
		return b.s.rollback(reading, conn)
	}
	writing, cancel := context.WithTimeout(ctx, batchTime*time.Duration(1+len(writes.records)/changeLimit))
	defer cancel()
	if err := b.write(writing, conn, writes); err != nil {
		return err
	}
	b.s.fences.recorded(w.fences)
	return nil
}

// release gives a connection back. One that cannot be brought out of its transaction is thrown away.
func (s *Store) release(conn *pgxpool.Conn) {
	defer conn.Release()
	if c := conn.Conn().PgConn(); c.IsClosed() || c.IsBusy() || c.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	s.rollback(ctx, conn) // if that fails, the connection is closed
}

func (s *Store) rollback(ctx context.Context, conn *pgxpool.Conn) error {
	_, err := conn.Exec(ctx, s.sql["rollback"])
	return err
}

// earlier says what became of an attempt whose commit was interrupted.
type earlier int

const (
	absent    earlier = iota // it did not commit, or there was none
	committed                // it did
	forgotten                // the log has been pruned since, so nobody knows
)

// errForgotten says that nobody knows whether an interrupted commit took place.
var errForgotten = errors.New("an interrupted commit cannot be found out about: the log was pruned meanwhile")

// read locks and reads what the batch is about, in one round trip. It tells what became of an earlier
// attempt.
func (b *batch) read(ctx context.Context, conn *pgxpool.Conn) (w *world, was earlier, err error) {
	subj := newSubjects()
	for _, r := range b.requests {
		r.needs(&subj)
	}
	w = newWorld(b.s.now())
	w.batch = b.id
	var pb pgx.Batch
	sql := b.s.sql
	pb.Queue(sql["begin_batch"])
	queuePlanning(&pb, conn.Conn(), sql)
	// The right to seal with the active key is held until the end of the transaction, too.
	sealing := keyLock(b.s.Sealer.Active())
	if len(subj.leases) == 0 {
		pb.Queue(sql["lock_subjects"], subj.lockKeys(), usesClass, sealing)
	} else {
		keys, shared := b.s.fences.locks(subj, b.requests, w)
		pb.Queue(sql["lock_fenced"], keys, shared, usesClass, sealing)
	}
	if b.unknown {
		pb.Queue(sql["batch_committed"], int64(b.since), b.id).QueryRow(func(r pgx.Row) error {
			var found, whole bool
			err := r.Scan(&found, &whole)
			switch {
			case found:
				was = committed
			case !whole:
				was = forgotten
			}
			return err
		})
	}
	b.s.queueReads(&pb, subj, w)
	b.s.queueOtherReads(&pb, subj, w)
	if err := conn.SendBatch(ctx, &pb).Close(); err != nil {
		return nil, absent, err
	}
	return w, was, b.s.fences.outdated(w)
}

// decide runs the calls over the world, in their order, until they change too much for one
// transaction.
func (b *batch) decide(w *world) {
	b.answers = make([]error, 0, len(b.requests))
	for _, r := range b.requests {
		err := w.unreadable(r)
		if err == nil {
			err = r.decide(w)
		}
		b.answers = append(b.answers, err)
		if len(w.events) >= changeLimit {
			return
		}
	}
}

// write writes, takes the revisions and commits. While it commits, another writer makes the next batch.
func (b *batch) write(ctx context.Context, conn *pgxpool.Conn, p *plan) error {
	var pb pgx.Batch
	p.queue(&pb, b.s.sql)
	records := p.records
	base, noticed := int64(0), func(bool) {}
	if len(records) > 0 {
		var now bool
		now, noticed = b.s.notices.take()
		active := b.s.Sealer.Active()
		pb.Queue(b.s.sql["append_events"], append(p.events.args(), p.at, b.id, now, active)...).QueryRow(func(r pgx.Row) error {
			var closed bool
			if err := r.Scan(&base, nil, &closed); err != nil {
				return err
			}
			if closed {
				return fmt.Errorf("%w: %q", errKeyClosed, active)
			}
			for i := range records {
				records[i].stamp(uint64(base)+uint64(i)+1, p.at, p.events.traces[i])
			}
			return nil
		})
	}
	if err := conn.SendBatch(ctx, &pb).Close(); err != nil {
		noticed(false)
		return fmt.Errorf("write a batch: %w", err)
	}
	if len(b.s.queue) >= overlapFrom {
		b.pass()
	}
	if _, err := conn.Exec(ctx, b.s.sql["commit"], pgx.QueryExecModeSimpleProtocol); err != nil {
		noticed(false)
		if outcomeUnknown(err) && len(records) > 0 {
			b.unknown, b.since = true, uint64(base)
		}
		return fmt.Errorf("commit a batch: %w", err)
	}
	noticed(true)
	b.records = records
	return nil
}

// isRejected tells whether a statement failed because of what it was given: a value that a column
// cannot hold, or that breaks a constraint.
func isRejected(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return isUnstorable(err)
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
	var row *Unreadable
	if !errors.As(err, &pg) {
		return !errors.As(err, &row) // the connection, or none to be had
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
	if !errors.As(err, &pg) {
		return notStorable("", err.Error())
	}
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
