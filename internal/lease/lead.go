package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"muster/internal/wait"
)

// Pauses and shares of Lead.
const (
	// firstPause is the wait after the first failed campaign; it doubles up to maxPause.
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	// renewShare: a lease is renewed this many times in its TTL.
	renewShare = 4
	// retryShare: a failed renewal is tried again after this part of the TTL.
	retryShare = 20
	// remindTime is how often an outage that goes on is logged; everything between is for debugging.
	remindTime = time.Minute
	// releaseTime bounds the giving back of a lease.
	releaseTime = 2 * time.Second
)

// Campaign is a claim, and the work to do under it.
type Campaign struct {
	Name, Holder string
	TTL          time.Duration
	Floor        func(context.Context) (uint64, error)
	// Work is done while the lease is held. Its context ends before the lease could be somebody else's,
	// and its Err is exact even right after the process was stopped and woke up. It must return soon after
	// that: Lead waits for it. When it returns earlier, the lease is given back and, after a pause,
	// campaigned for again.
	Work func(ctx context.Context, token uint64) error
	// Lost is told of each term that ended because the lease was lost or not renewed in time, NotRenewed of
	// each attempt to renew it that failed; for metrics. nil: nobody.
	Lost, NotRenewed func()
}

func (c Campaign) claim() Claim {
	return Claim{Name: c.Name, Holder: c.Holder, TTL: c.TTL, Floor: c.Floor}
}

// Lead campaigns for a lease and does the work under it, again and again, until ctx ends; then it waits for
// the work, gives the lease back and returns the error of ctx. Outages of the store are survived. It
// returns early only for a campaign that is not valid. It logs one line when the lease is acquired, and one
// when it is lost or given back.
func Lead(ctx context.Context, log *slog.Logger, s Store, c Campaign) error {
	if err := c.claim().Validate(); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	if c.Work == nil {
		return fmt.Errorf("campaign for lease %q: no work", c.Name)
	}
	if c.Lost == nil {
		c.Lost = func() {}
	}
	if c.NotRenewed == nil {
		c.NotRenewed = func() {}
	}
	log = log.With("lease", c.Name)
	pause := firstPause
	var warned time.Time // that there is no lease; zero: it went well since
	for {
		started := time.Now()
		held, err := s.Acquire(ctx, c.claim())
		if err == nil {
			err = hold(ctx, log, held, c)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(started) > maxPause {
			pause = firstPause // it went well for a while
		}
		apart := Jitter(pause)
		if err == nil {
			warned = time.Time{}
		} else {
			level := slog.LevelDebug
			if time.Since(warned) > remindTime {
				level, warned = slog.LevelWarn, time.Now()
			}
			log.Log(ctx, level, "no lease; campaigning on", "error", err, "pause", apart)
		}
		if !wait.For(ctx, apart) {
			return ctx.Err()
		}
		pause = min(2*pause, maxPause)
	}
}

// hold does the work under a lease, and gives it back.
func hold(ctx context.Context, log *slog.Logger, held Held, c Campaign) error {
	work := newTerm(ctx, held.Since().Add(c.TTL-Margin(c.TTL)))
	log.Info("lease acquired", "token", held.Token(), "holder", c.Holder)
	kept := make(chan struct{})
	keeping, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(kept)
		keep(keeping, log, work, held, c)
	}()
	err := c.Work(work, held.Token())
	why := context.Cause(work)
	stopKeeping()
	<-kept
	work.end(errEnded)
	// Not under ctx: a clean stop is when it matters most.
	releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	released := held.Release(releasing)
	switch {
	case why == nil:
		why = errEnded
	case ctx.Err() != nil:
		why = ctx.Err()
	case errors.Is(why, ErrLost), errors.Is(why, errExpired):
		c.Lost()
	}
	if errors.Is(err, context.Canceled) {
		err = nil // it was told to
	}
	log.Info("lease ended", "token", held.Token(), "why", why, "work", err, "release", released)
	return err
}

var (
	errEnded   = errors.New("the work returned")
	errExpired = errors.New("the lease was not renewed in time")
)

// keep renews a lease until ctx ends or the lease is lost, which ends the term. It goes on while the work
// winds down after the end of its context, so that nobody else begins meanwhile.
func keep(ctx context.Context, log *slog.Logger, t *term, held Held, c Campaign) {
	ttl := c.TTL
	wait := Jitter(ttl / renewShare)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-held.Lost():
			timer.Stop()
			t.end(ErrLost)
			return
		case <-timer.C:
		}
		if t.over() {
			t.end(errExpired)
			return
		}
		sent := time.Now()
		err := renew(ctx, held, ttl)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrLost):
			t.end(ErrLost)
			return
		case err != nil:
			c.NotRenewed()
			log.Warn("renew the lease", "error", err)
			wait = Jitter(ttl / retryShare)
		case !t.extend(sent.Add(ttl - Margin(ttl))):
			return // the answer came too late: the work was told to stop
		default:
			wait = Jitter(ttl / renewShare)
		}
	}
}

// renew bounds one attempt, so that one lost answer does not cost the lease.
func renew(ctx context.Context, held Held, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, ttl/renewShare)
	defer cancel()
	return held.Renew(ctx)
}

// term is the context of work under a lease: it ends with its parent, with the loss of the lease, and at a
// deadline that renewals move. The deadline is compared with the clock whenever Err is asked: a process that
// was stopped and wakes up does not have to wait for a timer to learn that its time is over.
type term struct {
	context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	deadline time.Time
	timer    *time.Timer
}

func newTerm(parent context.Context, deadline time.Time) *term {
	t := &term{deadline: deadline}
	t.Context, t.cancel = context.WithCancelCause(parent)
	t.mu.Lock() // the timer may fire at once
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(time.Until(deadline), t.expire)
	return t
}

// Err returns why the term is over, nil while it is not.
func (t *term) Err() error {
	if t.over() {
		t.end(errExpired)
	}
	return t.Context.Err()
}

// over tells whether the deadline has passed.
func (t *term) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return passed(t.deadline, time.Now())
}

// passed compares both readings of the clock: the monotonic one cannot be set back, but stands still while
// the machine sleeps.
func passed(deadline, now time.Time) bool {
	return !now.Before(deadline) || !now.Round(0).Before(deadline.Round(0))
}

// expire ends the term if its deadline was not moved meanwhile.
func (t *term) expire() {
	if t.over() {
		t.end(errExpired)
	}
}

// end ends the term for good.
func (t *term) end(why error) {
	t.mu.Lock()
	t.timer.Stop()
	t.mu.Unlock()
	t.cancel(why)
}

// extend moves the deadline, and reports false if the old one has passed: what was lost stays lost, even
// when the store still had it.
func (t *term) extend(to time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if passed(t.deadline, now) || passed(to, now) {
		return false
	}
	t.deadline = to
	t.timer.Reset(to.Sub(now))
	return true
}

// Jitter returns a random duration from d/2 to d, so that those who wait do not all come at once.
func Jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d/2)+1))
}
