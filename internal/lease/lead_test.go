package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/internal/lease"
)

const ttl = 10 * time.Second

// memory is a lease store under virtual time, which can be told to fail.
type memory struct {
	mu      sync.Mutex
	token   uint64
	expires time.Time
	freed   chan struct{}
	down    error         // what renewals and campaigns answer; nil: they are done
	delay   time.Duration // of answers to renewals
	lost    chan struct{}
}

func newMemory() *memory { return &memory{freed: make(chan struct{}), lost: make(chan struct{})} }

func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *memory) Acquire(ctx context.Context, c lease.Claim) (lease.Held, error) {
	for {
		m.mu.Lock()
		if m.down != nil {
			defer m.mu.Unlock()
			return nil, m.down
		}
		if !time.Now().Before(m.expires) {
			m.token++
			m.expires = time.Now().Add(c.TTL)
			h := &memoryHeld{m, m.token, time.Now(), c.TTL}
			m.mu.Unlock()
			return h, nil
		}
		freed, left := m.freed, time.Until(m.expires)
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-freed:
		case <-time.After(left):
		}
	}
}

type memoryHeld struct {
	*memory
	mine  uint64
	since time.Time
	ttl   time.Duration
}

func (h *memoryHeld) Token() uint64         { return h.mine }
func (h *memoryHeld) Since() time.Time      { return h.since }
func (h *memoryHeld) Lost() <-chan struct{} { return h.lost }

func (h *memoryHeld) Renew(ctx context.Context) error {
	delay, err := h.extend()
	if err != nil {
		return err
	}
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// extend does what is asked, even if the answer comes late.
func (h *memoryHeld) extend() (delay time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down != nil {
		return 0, h.down
	}
	if h.token != h.mine {
		return 0, lease.ErrLost
	}
	h.expires = time.Now().Add(h.ttl)
	return h.delay, nil
}

func (h *memoryHeld) Release(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.token == h.mine {
		h.expires = time.Time{}
		close(h.freed)
		h.freed = make(chan struct{})
	}
	return nil
}

// led is one who leads.
type led struct {
	began chan context.Context
	ended chan error
	stop  context.CancelFunc
}

// lead leads with work that ends with its context, after it had winding more time.
func lead(m *memory, winding time.Duration) *led {
	ctx, cancel := context.WithCancel(context.Background())
	l := &led{began: make(chan context.Context, 100), ended: make(chan error, 1), stop: cancel}
	go func() {
		l.ended <- lease.Lead(ctx, slog.New(slog.DiscardHandler), m, lease.Campaign{Name: "x", Holder: "h", TTL: ttl,
			Work: func(ctx context.Context, _ uint64) error {
				l.began <- ctx
				<-ctx.Done()
				time.Sleep(winding)
				return ctx.Err()
			}})
	}()
	return l
}

func TestWorkEndsBeforeTheStoreGivesTheLeaseAway(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*memory){
		"no answers":        func(m *memory) { m.down = errors.New("away") },
		"answers come late": func(m *memory) { m.delay = 2 * ttl },
		// The TTL counts from the question.
		"slow answers, then none": func(m *memory) {
			m.delay = ttl / 5
			time.AfterFunc(3*ttl, func() { m.set(func() { m.down = errors.New("away") }) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				l := lead(m, time.Second) // not given back before we have looked
				work := <-l.began
				time.Sleep(5 * ttl) // renewed all the time
				if err := work.Err(); err != nil {
					t.Fatal(err)
				}
				m.set(func() { fail(m) })
				<-work.Done()
				m.set(func() {
					if left := time.Until(m.expires); left < lease.Margin(ttl) {
						t.Errorf("work ended %v before the lease could be another's, want %v at least", left, lease.Margin(ttl))
					}
					m.down, m.delay = nil, 0
				})
				if again := <-l.began; again.Err() != nil || work.Err() == nil {
					t.Error("no second term")
				}
				l.stop()
				if err := <-l.ended; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// One failed renewal, or two, do not cost the lease.
func TestShortOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l := lead(m, 0)
		work := <-l.began
		for range 20 {
			m.set(func() { m.down = errors.New("away") })
			time.Sleep(ttl / 2)
			m.set(func() { m.down = nil })
			time.Sleep(ttl / 2)
		}
		if err := work.Err(); err != nil {
			t.Errorf("the lease was lost: %v", context.Cause(work))
		}
		l.stop()
		<-l.ended
	})
}

func TestLossThatIsToldEndsWorkAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l := lead(m, 0)
		work, began := <-l.began, time.Now()
		m.set(func() { m.expires = time.Now().Add(time.Hour); m.token++ })
		close(m.lost)
		<-work.Done()
		if took := time.Since(began); took != 0 {
			t.Errorf("after %v", took)
		}
		if !errors.Is(context.Cause(work), lease.ErrLost) {
			t.Errorf("cause %v", context.Cause(work))
		}
		l.stop()
		<-l.ended
	})
}

// While work winds down after a clean stop, the lease stays ours; then it is free at once.
func TestLeaseIsKeptWhileWorkWindsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l := lead(m, 3*ttl)
		<-l.began
		next := lead(m, 0)
		began := time.Now()
		l.stop()
		<-next.began
		if took := time.Since(began); took != 3*ttl {
			t.Errorf("taken over after %v, want %v", took, 3*ttl)
		}
		if err := <-l.ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		next.stop()
		<-next.ended
	})
}

// Work that fails gives the lease to others, and campaigns again with pauses that grow.
func TestWorkThatReturns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		ctx, stop := context.WithCancel(t.Context())
		terms := 0
		began := time.Now()
		err := lease.Lead(ctx, slog.New(slog.DiscardHandler), m, lease.Campaign{Name: "x", Holder: "h", TTL: ttl,
			Work: func(ctx context.Context, token uint64) error {
				if terms++; terms == 10 {
					stop()
				}
				if token != uint64(terms) {
					t.Errorf("token %d in term %d", token, terms)
				}
				return errors.New("broken")
			}})
		if !errors.Is(err, context.Canceled) || terms != 10 {
			t.Errorf("%v after %d terms", err, terms)
		}
		// Nine pauses: 0.1, 0.2, … 3.2, 5, 5, 5 s, each halved at most.
		if took := time.Since(began); took < 10*time.Second || took > 22*time.Second {
			t.Errorf("ten terms in %v", took)
		}
	})
}

func TestBadCampaigns(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	work := func(context.Context, uint64) error { return nil }
	for want, c := range map[string]lease.Campaign{
		"name of the lease": {Holder: "h", TTL: ttl, Work: work},
		"holder":            {Name: "x", TTL: ttl, Work: work},
		"TTL":               {Name: "x", Holder: "h", Work: work},
		"no work":           {Name: "x", Holder: "h", TTL: ttl},
	} {
		if err := lease.Lead(t.Context(), log, newMemory(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want a word about %s", err, want)
		}
	}
}

func TestNextToken(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1000)
	for _, tc := range []struct{ remembered, floor, want uint64 }{
		{5, 0, 6}, {5, 5, 6}, {5, 9, 10}, {0, 0, 1001}, {0, 2000, 2001}, {2, 0, 3},
	} {
		if got := lease.NextToken(tc.remembered, tc.floor, now); got != tc.want {
			t.Errorf("remembered %d, floor %d: got %d, want %d", tc.remembered, tc.floor, got, tc.want)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c := lease.Defaults()
	if errs := c.LeaseProblems(); len(errs) != 0 || c.UsesConsul() || c.TTL() != 3*time.Second {
		t.Errorf("%v, %v", errs, c.TTL())
	}
	c.Kind = lease.Consul
	if errs := c.LeaseProblems(); len(errs) != 0 || !c.UsesConsul() || c.TTL() != ttl {
		t.Errorf("%v, %v", errs, c.TTL())
	}
	c.Kind, c.LeaseTTL, c.Consul.Token = "etcd", 1, "t"
	got := errors.Join(c.LeaseProblems()...)
	for _, want := range []string{`lease "etcd"`, "lease_ttl 1ns", "consul.token"} {
		if got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("no word about %s in: %v", want, got)
		}
	}
	c.Kind, c.Consul.Address = lease.Consul, "nowhere"
	if got := errors.Join(c.LeaseProblems()...); got == nil || !strings.Contains(got.Error(), "consul.address") {
		t.Errorf("no word about consul.address in: %v", got)
	}
}

// Whoever is asked for the floor and does not answer keeps nobody waiting for ever.
func TestFloorThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := lease.Claim{Name: "l", Floor: func(ctx context.Context) (uint64, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}}
		begin := time.Now()
		if _, err := c.FloorOf(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// Renewals that fail are told of, each one, and so is the term that ends for it; one that ends by itself is not
// lost.
func TestLossIsToldOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		lost, failed := 0, 0
		ctx, stop := context.WithCancel(t.Context())
		began, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- lease.Lead(ctx, slog.New(slog.DiscardHandler), m, lease.Campaign{
				Name: "x", Holder: "h", TTL: ttl, Lost: func() { lost++ }, NotRenewed: func() { failed++ },
				Work: func(work context.Context, _ uint64) error {
					began <- struct{}{}
					<-work.Done()
					return work.Err()
				},
			})
		}()
		<-began
		m.set(func() { m.down = errors.New("away") })
		time.Sleep(2 * ttl)
		m.set(func() { m.down = nil })
		<-began
		if lost != 1 || failed < 2 {
			t.Errorf("%d terms and %d renewals are told of, want 1 and some", lost, failed)
		}
		stop()
		<-ended
		if lost != 1 {
			t.Errorf("a term that was given up counts as lost")
		}
	})
}
