package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster/internal/pgtest"
)

// What happens to the next transaction on a connection.
const (
	nothing    int32 = iota
	loseAnswer       // it commits, but the connection breaks before that is known
	loseWrites       // the connection breaks before what it writes is sent
	loseCommit       // it breaks before the commit is sent
)

var errBroken = errors.New("the connection is broken on purpose")

// brokenConn is a connection to PostgreSQL that breaks when told to.
type brokenConn struct {
	net.Conn
	next *atomic.Int32
}

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.next.CompareAndSwap(loseWrites, nothing) || bytes.Contains(p, []byte("commit\x00")) && c.next.CompareAndSwap(loseCommit, nothing) {
		c.Conn.Close()
		return 0, errBroken
	}
	return c.Conn.Write(p)
}

func (c *brokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	// The answer to a commit is short, and comes alone.
	if err != nil || !bytes.Contains(p[:n], []byte("COMMIT\x00")) || !c.next.CompareAndSwap(loseAnswer, nothing) {
		return n, err
	}
	c.Conn.Close()
	return 0, io.ErrUnexpectedEOF
}

// hookedOp is a call that tells when it has been decided for the first time.
type hookedOp struct {
	op
	once    sync.Once
	decided func()
}

func (o *hookedOp) decide(w *world, c Call) error {
	o.once.Do(o.decided)
	return o.op.decide(w, c)
}

// A call whose commit was interrupted has its effect once, whether the commit took place or not, and
// its caller is told the truth. Watches learn of it.
func TestInterruptedCommit(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]int32{"it took place": loseAnswer, "it was not written": loseWrites, "it was not committed": loseCommit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var next atomic.Int32
			url := pgtest.Database(t, Migrate)
			var told atomic.Int32
			s := openWith(t, url, &next, Options{Published: func([]Record) { told.Add(1) }})
			must(t, s.Desire(t.Context(), app("first", 1), Call{})) // the statements are known to the connection now
			o := &hookedOp{op: &desireOp{desired: app("p", 1), epoch: newEpoch}, decided: func() { next.Store(fault) }}
			if err := s.do(t.Context(), o, Call{}); err != nil {
				t.Errorf("the caller was told %v", err)
			}
			if next.Load() != nothing {
				t.Fatal("the connection did not break")
			}
			if n := len(history(t, s)); n != 4 {
				t.Errorf("the log has %d entries, want 2 for each process", n)
			}
			if told.Load() != 2 {
				t.Errorf("the watches were told %d times, want twice", told.Load())
			}
			checkReplay(t, s)
		})
	}
}

// secondLook is a call that acts before its batch is tried for the second time.
type secondLook struct {
	op
	looks int
	act   func()
}

func (o *secondLook) needs(s *subjects) {
	if o.looks++; o.looks == 2 {
		o.act()
	}
	o.op.needs(s)
}

// The log is pruned before it can be asked what became of an interrupted commit. Then nobody knows, the
// caller is told so, and the call is not made again.
func TestInterruptedCommitIsForgotten(t *testing.T) {
	t.Parallel()
	var next atomic.Int32
	url := pgtest.Database(t, Migrate)
	other := open(t, url, Options{})
	s := openWith(t, url, &next, Options{})
	must(t, s.Desire(t.Context(), app("first", 1), Call{}))
	prune := &secondLook{op: &desireOp{desired: app("p", 1), epoch: newEpoch}, act: func() {
		must(t, other.Desire(t.Context(), app("q", 1), Call{}))
		_, err := other.Prune(t.Context(), 0, 1)
		must(t, err)
	}}
	o := &hookedOp{op: prune, decided: func() { next.Store(loseAnswer) }}
	if err := s.do(t.Context(), o, Call{}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errForgotten) {
		t.Errorf("the caller was told %v, want %v and why", err, ErrUnavailable)
	}
	wantRevision(t, s, "two for each process", 6)
	if got := tables(t, s); len(got.Desired) != 3 {
		t.Errorf("%d processes are stored, want 3", len(got.Desired))
	}
}

// openWith is open with one connection for writing, which breaks when told to.
func openWith(t *testing.T, url string, next *atomic.Int32, o Options) *Store {
	t.Helper()
	pools, err := OpenPools(t.Context(), url, 4)
	must(t, err)
	pc := pools.Write.Config()
	pools.Write.Close()
	pc.MaxConns = 1
	pc.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		return &brokenConn{conn, next}, err
	}
	pools.Write, err = pgxpool.NewWithConfig(t.Context(), pc)
	must(t, err)
	return run(t, pools, o)
}
