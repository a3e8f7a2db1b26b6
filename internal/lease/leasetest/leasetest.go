// Package leasetest is the suite that every lease store passes, on the real thing.
package leasetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"muster/internal/lease"
)

// patience is how long anything may take that must happen.
const patience = 30 * time.Second

// World is a place where leases are kept.
type World struct {
	// Open returns a store with connections of its own.
	Open func(t testing.TB) lease.Store
	// Environment is what a process of its own needs to open a store: see Helper.
	Environment []string
}

// Breakable is a World of one test alone.
type Breakable struct {
	World
	// Stop ends what keeps the leases, as a crash would; Start starts it again, with its memory.
	Stop, Start func(t testing.TB)
	// Wipe makes it forget everything.
	Wipe func(t testing.TB)
	// Freeze makes it not answer, with its connections open; Thaw ends that.
	Freeze, Thaw func(t testing.TB)
}

// TTL of the leases of the suite, as short as both stores allow with some room.
const ttl = time.Second

// Run runs the suite. shared and own return a world for one test; that of own may be broken.
func Run(t *testing.T, shared func(t testing.TB) World, own func(t testing.TB) Breakable) {
	for name, test := range map[string]func(*testing.T, World){
		"one holder among many":               oneHolder,
		"release hands over at once":          releaseHandsOver,
		"the dead are replaced":               deadHolder,
		"renewal keeps the lease":             renewal,
		"a late release frees nothing":        lateRelease,
		"names are independent":               names,
		"tokens exceed the floor":             floor,
		"bad claims are refused":              badClaims,
		"a stopped process wakes up too late": stoppedProcess,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, shared(t)) })
	}
	for name, test := range map[string]func(*testing.T, Breakable){
		"an outage makes no second holder":   outage,
		"silence makes no second holder":     silence,
		"a wiped store goes on from a floor": wiped,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, own(t)) })
	}
}

func claim(name, holder string) lease.Claim {
	return lease.Claim{Name: name, Holder: holder, TTL: ttl}
}

// long is a claim that does not end within a test.
func long(name, holder string) lease.Claim {
	c := claim(name, holder)
	c.TTL = 10 * patience
	return c
}

func acquire(t testing.TB, s lease.Store, c lease.Claim) lease.Held {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h, err := s.Acquire(ctx, c)
	if err != nil {
		t.Fatalf("%s acquires %s: %v", c.Holder, c.Name, err)
	}
	return h
}

func release(t testing.TB, h lease.Held) {
	t.Helper()
	if err := h.Release(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// busy checks that a lease cannot be had for a while.
func busy(t testing.TB, s lease.Store, c lease.Claim, while time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), while)
	defer cancel()
	h, err := s.Acquire(ctx, c)
	if err == nil {
		t.Fatalf("%s got %s, which is another's, with token %d", c.Holder, c.Name, h.Token())
	}
	if ctx.Err() == nil {
		t.Fatalf("%s waits for %s: %v", c.Holder, c.Name, err)
	}
}

func oneHolder(t *testing.T, w World) {
	const contenders, terms = 8, 3
	var mu sync.Mutex
	var holder string
	var tokens []uint64
	var wg sync.WaitGroup
	for i := range contenders {
		s, me := w.Open(t), fmt.Sprint("c", i)
		wg.Go(func() {
			for range terms {
				h, err := s.Acquire(t.Context(), long("only", me))
				if err != nil {
					t.Errorf("%s: %v", me, err)
					return
				}
				mu.Lock()
				if holder != "" {
					t.Errorf("%s and %s hold it", me, holder)
				}
				holder = me
				tokens = append(tokens, h.Token())
				mu.Unlock()
				if err := h.Renew(t.Context()); err != nil {
					t.Errorf("%s: %v", me, err)
				}
				mu.Lock()
				holder = ""
				mu.Unlock()
				if err := h.Release(t.Context()); err != nil {
					t.Errorf("%s: %v", me, err)
				}
			}
		})
	}
	wg.Wait()
	if len(tokens) != contenders*terms {
		t.Errorf("%d terms, want %d", len(tokens), contenders*terms)
	}
	for i := 1; i < len(tokens); i++ {
		if tokens[i] <= tokens[i-1] {
			t.Fatalf("tokens do not grow: %v", tokens)
		}
	}
}

// releaseHandsOver would take longer than the patience of acquire if the release did not count.
func releaseHandsOver(t *testing.T, w World) {
	a, b := w.Open(t), w.Open(t)
	first := acquire(t, a, long("x", "a"))
	busy(t, b, long("x", "b"), ttl/4)
	next := make(chan lease.Held, 1)
	go func() {
		h, err := b.Acquire(t.Context(), long("x", "b"))
		if err != nil {
			t.Error(err)
		}
		next <- h
	}()
	release(t, first)
	select {
	case h := <-next:
		if h.Token() <= first.Token() {
			t.Errorf("token %d after %d", h.Token(), first.Token())
		}
		release(t, h)
	case <-time.After(patience):
		t.Fatal("a lease that was given back is not taken over")
	}
	if h := acquire(t, a, long("x", "a")); h.Token() <= first.Token()+1 {
		t.Errorf("token %d in the third term, %d in the first", h.Token(), first.Token())
	}
}

func deadHolder(t *testing.T, w World) {
	a, b := w.Open(t), w.Open(t)
	dead := acquire(t, a, claim("x", "dead"))
	next := acquire(t, b, long("x", "b"))
	if early := time.Until(dead.Since().Add(ttl - lease.Margin(ttl))); early > 0 {
		t.Errorf("a holder who may still work lost its lease %v too early", early)
	}
	if next.Token() <= dead.Token() {
		t.Errorf("token %d after %d", next.Token(), dead.Token())
	}
	if err := dead.Renew(t.Context()); !errors.Is(err, lease.ErrLost) {
		t.Errorf("the dead one renews: %v", err)
	}
}

func renewal(t *testing.T, w World) {
	a, b := w.Open(t), w.Open(t)
	const renewed = 3 * ttl // a busy machine may be late
	began := make(chan struct{}, 10)
	ctx, stop := context.WithCancel(t.Context())
	led := make(chan error, 1)
	go func() {
		led <- lease.Lead(ctx, slog.New(slog.DiscardHandler), a, lease.Campaign{Name: "x", Holder: "a", TTL: renewed, Work: func(ctx context.Context, _ uint64) error {
			began <- struct{}{}
			<-ctx.Done()
			return nil
		}})
	}()
	<-began
	busy(t, b, claim("x", "b"), 2*renewed)
	stop()
	if err := <-led; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(began) > 0 {
		t.Error("the lease was lost although it was renewed")
	}
	acquire(t, b, claim("x", "b"))
}

func lateRelease(t *testing.T, w World) {
	a, b, c := w.Open(t), w.Open(t), w.Open(t)
	late := acquire(t, a, claim("x", "late"))
	next := acquire(t, b, long("x", "b"))
	release(t, late)
	busy(t, c, claim("x", "c"), ttl)
	if err := next.Renew(t.Context()); err != nil {
		t.Errorf("the holder after a late release: %v", err)
	}
	if err := late.Renew(t.Context()); !errors.Is(err, lease.ErrLost) {
		t.Errorf("renewed after a release: %v", err)
	}
}

func names(t *testing.T, w World) {
	a, b := w.Open(t), w.Open(t)
	x, y := acquire(t, a, long("x", "a")), acquire(t, b, long("y", "b"))
	release(t, x)
	busy(t, a, claim("y", "a"), ttl/4)
	if err := y.Renew(t.Context()); err != nil {
		t.Error(err)
	}
}

func floor(t *testing.T, w World) {
	s := w.Open(t)
	c := claim("x", "a")
	broken := errors.New("no answer")
	c.Floor = func(context.Context) (uint64, error) { return 0, broken }
	if _, err := s.Acquire(t.Context(), c); !errors.Is(err, broken) {
		t.Errorf("acquired without knowing the floor: %v", err)
	}
	const high = 1 << 60
	c.Floor = func(context.Context) (uint64, error) { return high, nil }
	for want := uint64(high + 1); want < high+4; want++ {
		h := acquire(t, s, c)
		if h.Token() != want {
			t.Errorf("token %d, want %d", h.Token(), want)
		}
		release(t, h)
	}
	c.Floor = nil
	if h := acquire(t, s, c); h.Token() != high+4 {
		t.Errorf("token %d without a floor, want %d", h.Token(), uint64(high+4))
	}
}

func badClaims(t *testing.T, w World) {
	s := w.Open(t)
	for _, c := range []lease.Claim{
		{Name: "", Holder: "h", TTL: ttl}, {Name: "A", Holder: "h", TTL: ttl}, {Name: "a/b", Holder: "h", TTL: ttl},
		{Name: "a", Holder: "", TTL: ttl}, {Name: "a", Holder: "h", TTL: lease.MinTTL - 1}, {Name: "a", Holder: "h", TTL: lease.MaxTTL + 1},
	} {
		if _, err := s.Acquire(t.Context(), c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
