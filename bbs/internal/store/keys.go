package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrRefused says that a replica must not work on the database: with the keys it has, or at all. It
// does not pass by itself.
var ErrRefused = errors.New("the start is refused")

// Classes of advisory locks on keys. Session locks on the enrolment connection tell what the replicas
// that run know and use, without anybody's clock; the writers lock in each transaction as well,
// because the connection may be lost while they go on.
const (
	knowsClass    = 0x4d550001
	usesClass     = 0x4d550002
	rotationClass = 0x4d550003
)

// keyLock names the advisory lock of a label within a class.
func keyLock(label string) int32 {
	h := fnv.New32a()
	h.Write([]byte(label))
	return int32(h.Sum32())
}

// canaryContext is what the canary of a label is bound to.
func canaryContext(label string) string { return "encryption.canary\x00" + label }

// storedKey is a row of the table encryption. The rows are ordered: the last one was made active last.
type storedKey struct {
	label           string
	canary          []byte
	closed, retired bool
}

// enrolPause is the wait between attempts to enrol again.
const enrolPause = 500 * time.Millisecond

// Enrolment is the connection that shows the others which keys a replica knows and uses.
type Enrolment struct {
	s    *Store
	conn *pgx.Conn
}

// Enrol checks that this replica can read everything that is stored and that every other one will be
// able to read what it writes, and makes its active key known. To be called after Migrate and before
// anything is read or written. The error is ErrRefused when something must be changed first.
func (s *Store) Enrol(ctx context.Context) (*Enrolment, error) {
	e := &Enrolment{s: s}
	if err := e.enrol(ctx, true); err != nil {
		return nil, err
	}
	return e, nil
}

// Run keeps up the enrolment until ctx ends, and ends it then.
func (e *Enrolment) Run(ctx context.Context) error {
	for {
		_, err := e.conn.WaitForNotification(ctx) // there are none: it waits for the end of the connection
		e.Close()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.s.Log.Warn("connection that holds the encryption keys lost", "error", err)
		for err = e.enrol(ctx, false); err != nil; err = e.enrol(ctx, false) {
			if errors.Is(err, ErrRefused) {
				return err
			}
			t := time.NewTimer(enrolPause)
			select {
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			case <-t.C:
			}
		}
	}
}

// Close ends the enrolment.
func (e *Enrolment) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	e.conn.Close(ctx) // the server notices anyway
}

// enrol does it; first tells a start from a return after the connection was lost.
func (e *Enrolment) enrol(ctx context.Context, first bool) error {
	conn, err := e.s.connect(ctx)
	if err != nil {
		return unavailable("enrol encryption keys", err)
	}
	e.conn = conn
	if err := e.take(ctx, first); err != nil {
		e.Close()
		if errors.Is(err, ErrRefused) {
			return err
		}
		return unavailable("enrol encryption keys", err)
	}
	return nil
}

// connect opens a connection that is not one of the pools', set up like those of the writers.
func (s *Store) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, s.Pools.Write.Config().ConnConfig)
}

func (e *Enrolment) take(ctx context.Context, first bool) error {
	// Locked first, checked then: of two replicas that start, one sees the other.
	for _, label := range e.s.Sealer.Labels() {
		if _, err := e.conn.Exec(ctx, e.s.sql["know_key"], knowsClass, keyLock(label)); err != nil {
			return err
		}
	}
	active := e.s.Sealer.Active()
	if _, err := e.conn.Exec(ctx, e.s.sql["know_key"], usesClass, keyLock(active)); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, e.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, e.s.sql["lock_keys"]); err != nil {
			return err
		}
		stored, err := e.s.storedKeys(ctx, tx)
		if err != nil {
			return err
		}
		if err := e.s.checkKeys(stored); err != nil {
			return err
		}
		newest := stored[len(stored)-1]
		switch own := find(stored, active); {
		case first && newest.label == active && !newest.closed:
			return nil
		case first:
			return e.s.openKey(ctx, tx)
		case own == nil || own.closed:
			return fmt.Errorf("%w: the encryption key %q was retired while this replica was away: restart it with encryption.active_key_label %q",
				ErrRefused, active, newest.label)
		}
		return nil
	})
}

func find(stored []storedKey, label string) *storedKey {
	for i := range stored {
		if stored[i].label == label {
			return &stored[i]
		}
	}
	return nil
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (s *Store) storedKeys(ctx context.Context, q querier) ([]storedKey, error) {
	rows, err := q.Query(ctx, s.sql["read_keys"])
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (k storedKey, err error) {
		return k, r.Scan(&k.label, &k.canary, &k.closed, &k.retired)
	})
}

// checkKeys refuses what is missing to read all that is stored.
func (s *Store) checkKeys(stored []storedKey) error {
	for _, k := range stored {
		if k.retired || k.label == "" { // plain values, of version 1 of the schema, need no key
			continue
		}
		if !s.Sealer.Knows(k.label) {
			return fmt.Errorf("%w: the database holds values encrypted with the key %q, which is not in encryption.keys: "+
				"add it with its passphrase; it may go when the log says that it is retired", ErrRefused, k.label)
		}
		if _, err := s.Sealer.Open(k.canary, canaryContext(k.label)); err != nil {
			return fmt.Errorf("%w: the passphrase of the key %q in encryption.keys is not the one that the database was encrypted with: "+
				"correct it, or use another label for another passphrase", ErrRefused, k.label)
		}
	}
	return nil
}

// openKey makes the active key of this replica the newest, if all others could read what it writes.
func (s *Store) openKey(ctx context.Context, tx pgx.Tx) error {
	label := s.Sealer.Active()
	var without int
	err := tx.QueryRow(ctx, s.sql["replicas_without_key"], int64(usesClass), int64(knowsClass), int64(uint32(keyLock(label)))).Scan(&without)
	if err != nil {
		return err
	}
	if without > 0 {
		return fmt.Errorf("%w: %d running replicas do not know the encryption key %q: add it to encryption.keys of all of them "+
			"and restart them, before it becomes the active one anywhere", ErrRefused, without, label)
	}
	_, err = tx.Exec(ctx, s.sql["open_key"], label, s.Sealer.Seal([]byte("muster"), canaryContext(label)))
	return err
}

// errKeyClosed says that the active key of this replica was retired while it was away.
var errKeyClosed = errors.New("the active encryption key was retired")
