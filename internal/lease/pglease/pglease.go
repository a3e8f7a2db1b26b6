// Package pglease keeps leases in a table of PostgreSQL.
//
// A lease is a row: who has it, its token, and when it ends by the clock of the database, which is the only
// clock that is asked. It does not belong to a connection: one that breaks costs nothing, as long as another
// gets through before the TTL is over. A holder that gives its lease back notifies those who wait; the death
// of one is noticed when its time is over.
//
// The table is in a schema of its own, muster_lease, made when it is first needed, so any database will do.
// Leases are as durable as commits are: with synchronous_commit off, or after a failover to a standby that
// lags, a lease may be given away twice, and only its tokens help then. A clock of the database that jumps
// ahead ends leases early.
package pglease

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster/internal/lease"
)

const (
	// connectTime bounds one attempt to connect.
	connectTime = 2 * time.Second
	// callTime bounds each step of a campaign but the waiting: a network that swallows what is sent on it must
	// not end a campaign for good. The taking and renewing of a lease are bounded by its TTL.
	callTime = 5 * time.Second
	// connections is how many a store has at most: one for each campaign that waits, and one for the others.
	connections = 8
	// pollTime is the longest wait before a lease is looked at again: notifications can be lost with their
	// connection, which may be gone without a sign.
	pollTime = time.Minute
	// schemaLock serialises the making of the schema, in PostgreSQL's space of advisory locks.
	schemaLock = 0x6d757374_6c656173
)

//go:embed schema.sql
var schema string

// Store is a lease store on a database.
type Store struct {
	pool  *pgxpool.Pool
	ready atomic.Bool // the table is there
}

// Open returns a store on a database, without connecting yet.
func Open(ctx context.Context, url string) (*Store, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the URL of the lease database: %w", err)
	}
	pc.MaxConns = connections
	pc.ConnConfig.ConnectTimeout = connectTime
	pc.ConnConfig.RuntimeParams["application_name"] = "muster-lease"
	// A lease that was granted must survive a crash of the database, whatever its default.
	pc.ConnConfig.RuntimeParams["synchronous_commit"] = "on"
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("make a pool for the lease database: %w", err)
	}
	return &Store{pool: pool}, nil
}

// Close closes the connections, once nothing uses the store any more.
func (s *Store) Close() { s.pool.Close() }

// Acquire waits until the lease is free and takes it.
func (s *Store) Acquire(ctx context.Context, claim lease.Claim) (lease.Held, error) {
	if err := claim.Validate(); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("make the table of leases: %w", err)
	}
	conn, err := s.listen(ctx)
	if err != nil {
		s.pool.Reset() // the other connections are no better, most likely
		return nil, fmt.Errorf("listen for lease %q: %w", claim.Name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		held, err := s.try(ctx, conn, claim)
		if held != nil || err != nil {
			return held, err
		}
		if err := wait(ctx, conn, claim.Name); err != nil {
			return nil, fmt.Errorf("wait for lease %q: %w", claim.Name, err)
		}
	}
}

// listen returns a connection that listens, which must not go back into the pool.
func (s *Store) listen(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	pooled, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the lease database: %w", err)
	}
	conn := pooled.Hijack()
	if _, err := conn.Exec(ctx, "listen muster_lease"); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// prepare makes the schema unless this store has done so, or found it, before.
func (s *Store) prepare(ctx context.Context) error {
	if s.ready.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var there bool
		if err := tx.QueryRow(ctx, "select to_regclass('muster_lease.leases') is not null").Scan(&there); err != nil || there {
			return err
		}
		// "if not exists" alone fails when two do it at the same time.
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(schemaLock)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, schema)
		return err
	})
	s.ready.Store(err == nil)
	return err
}

// try takes the lease if nobody has it; nil if somebody does.
func (s *Store) try(ctx context.Context, conn *pgx.Conn, claim lease.Claim) (lease.Held, error) {
	floor, err := claim.FloorOf(ctx)
	if err != nil {
		return nil, err
	}
	since := time.Now()
	ctx, cancel := context.WithTimeout(ctx, claim.TTL)
	defer cancel()
	var token int64
	err = conn.QueryRow(ctx, acquire, claim.Name, claim.Holder, lease.NextToken(0, floor, since), claim.TTL.Microseconds(), floor+1).Scan(&token)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		s.forget(err)
		// If it was granted after all, it ends by itself: nobody renews it.
		return nil, fmt.Errorf("take lease %q: %w", claim.Name, err)
	}
	return &held{store: s, name: claim.Name, token: uint64(token), ttl: claim.TTL, since: since, lost: make(chan struct{})}, nil
}

// forget has the schema made again when the table has gone: the database was replaced under us.
func (s *Store) forget(err error) {
	const undefinedTable, invalidSchema = "42P01", "3F000"
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == undefinedTable || pg.Code == invalidSchema) {
		s.ready.Store(false)
	}
}

// wait waits until somebody gives a lease back, or the lease's time is over. Those who wait for the same
// one come a little apart.
func wait(ctx context.Context, conn *pgx.Conn, name string) error {
	var micros int64
	asking, stop := context.WithTimeout(ctx, callTime)
	defer stop()
	err := conn.QueryRow(asking, remaining, name).Scan(&micros)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	const apart = 20 * time.Millisecond
	left := min(max(0, time.Duration(micros)*time.Microsecond), pollTime) + lease.Jitter(apart)
	ctx2, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(ctx2)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case ctx2.Err() != nil && pgconn.Timeout(err):
			return nil
		case err != nil:
			return err
		case n.Payload == name:
			return nil
		}
	}
}

// held is a lease that was taken.
type held struct {
	store *Store
	name  string
	token uint64
	ttl   time.Duration
	since time.Time
	lost  chan struct{} // never closed: nobody takes a lease before its time is over
}

// Token returns the fencing token.
func (h *held) Token() uint64 { return h.token }

// Since returns the moment from which the TTL counts.
func (h *held) Since() time.Time { return h.since }

// Lost returns a channel that is never closed: before its time is over nobody takes a lease, and what an
// operator does to the row is seen by the next renewal.
func (h *held) Lost() <-chan struct{} { return h.lost }

// Renew makes the lease last for its TTL from now on.
func (h *held) Renew(ctx context.Context) error {
	tag, err := h.store.pool.Exec(ctx, renew, h.name, int64(h.token), h.ttl.Microseconds())
	if err != nil {
		h.store.forget(err)
		if ctx.Err() != nil {
			h.store.pool.Reset() // the next attempt must not have to find out about each connection
		}
		return fmt.Errorf("renew lease %q: %w", h.name, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("renew lease %q: %w", h.name, lease.ErrLost)
	}
	return nil
}

// Release gives the lease back, and tells those who wait.
func (h *held) Release(ctx context.Context) error {
	if _, err := h.store.pool.Exec(ctx, release, h.name, int64(h.token)); err != nil {
		return fmt.Errorf("release lease %q: %w", h.name, err)
	}
	return nil
}
