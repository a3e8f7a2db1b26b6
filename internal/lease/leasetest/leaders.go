package leasetest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"muster/internal/lease"
)

// guarded is what is guarded by a lease: it sees who works, and which tokens there were.
type guarded struct {
	t testing.TB

	mu      sync.Mutex
	working context.Context // of the last term
	newest  uint64

	terms chan term
}

// term is told when somebody begins to work.
type term struct {
	holder string
	token  uint64
	ctx    context.Context
}

func newGuarded(t testing.TB) *guarded { return &guarded{t: t, terms: make(chan term, 1000)} }

// floor is the newest token seen.
func (g *guarded) floor(context.Context) (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.newest, nil
}

// lead has somebody lead until the test ends or stop is called.
func (g *guarded) lead(s lease.Store, holder string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = lease.Lead(ctx, slog.New(slog.DiscardHandler), s, lease.Campaign{
			Name: "guarded", Holder: holder, TTL: ttl, Floor: g.floor,
			Work: func(ctx context.Context, token uint64) error {
				g.begin(ctx, holder, token)
				<-ctx.Done()
				return nil
			},
		}) // that ctx ended
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	g.t.Cleanup(stop)
	return stop
}

// begin checks that the one before is told to stop, and that its token was smaller.
func (g *guarded) begin(ctx context.Context, holder string, token uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.working != nil && g.working.Err() == nil {
		g.t.Errorf("%s works with token %d, and who had token %d was not told to stop", holder, token, g.newest)
	}
	if token <= g.newest {
		g.t.Errorf("%s got token %d after %d", holder, token, g.newest)
	}
	g.working, g.newest = ctx, token
	g.terms <- term{holder, token, ctx}
}

// next waits until somebody begins.
func (g *guarded) next() term {
	g.t.Helper()
	select {
	case m := <-g.terms:
		return m
	case <-time.After(patience):
		g.t.Fatal("nobody leads")
		return term{}
	}
}

// ended waits until a term is told to stop.
func (g *guarded) ended(m term) {
	g.t.Helper()
	select {
	case <-m.ctx.Done():
	case <-time.After(patience):
		g.t.Fatalf("%s was not told to stop", m.holder)
	}
}

func outage(t *testing.T, w Breakable) {
	g := newGuarded(t)
	g.lead(w.Open(t), "a")
	first := g.next()
	g.lead(w.Open(t), "b")
	w.Stop(t)
	g.ended(first)
	w.Start(t)
	second := g.next()
	w.Stop(t)
	g.ended(second)
	w.Start(t)
	g.next()
}

// silence is an outage in which connections stay open and nobody answers.
func silence(t *testing.T, w Breakable) {
	g := newGuarded(t)
	g.lead(w.Open(t), "a")
	first := g.next()
	g.lead(w.Open(t), "b")
	w.Freeze(t)
	g.ended(first)
	w.Thaw(t)
	g.next()
}

func wiped(t *testing.T, w Breakable) {
	g := newGuarded(t)
	stop := g.lead(w.Open(t), "a")
	first := g.next()
	stop()
	w.Wipe(t)
	g.lead(w.Open(t), "b")
	if second := g.next(); second.token <= first.token {
		t.Errorf("token %d after %d", second.token, first.token)
	}
	// Not even one that nobody has seen comes back.
	unseen := acquire(t, w.Open(t), claim("unseen", "c"))
	w.Wipe(t)
	if next := acquire(t, w.Open(t), claim("unseen", "d")); next.Token() <= unseen.Token() {
		t.Errorf("token %d after %d, which was not used", next.Token(), unseen.Token())
	}
}
