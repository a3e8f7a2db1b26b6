package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"muster/bbs/lrp"
)

// Settings say how probes are made. All fields are required.
type Settings struct {
	// Timeout of a probe whose check has none.
	Timeout time.Duration
	// Interval between probes of a healthy instance whose check has none.
	Interval time.Duration
	// StartupMax is the longest wait between probes until an instance is healthy or ready. The first
	// waits are shorter (firstWait): time to RUNNING matters, and an instance that is not ready after
	// a while is not helped by being asked more often.
	StartupMax time.Duration
	// Dial opens connections to containers.
	Dial Dial
	// Pool bounds the probes that are under way on the cell: each holds one element meanwhile.
	Pool chan struct{}
}

// firstWait is the wait after the first failed startup probe; each further one is waitGrowth longer.
const (
	firstWait  = 5 * time.Millisecond
	waitGrowth = 1.5
)

// Schedule makes the checks of one container.
type Schedule struct {
	Settings
	Address string // of the container
}

// Errors are the texts of failed checks, joined by "; ". It is what ends a Startup or a Liveness.
type Errors []string

// Error returns the texts.
func (e Errors) Error() string { return strings.Join(e, "; ") }

// Startup makes all checks until each has passed once. It returns nil then, Errors when timeout is
// over first (0: never), and the error of ctx when that ends.
func (s Schedule) Startup(ctx context.Context, checks []lrp.Check, timeout time.Duration) error {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	failures := make([]string, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			attempts, err := s.untilPass(limited, s.target(c))
			if err != nil {
				failures[i] = fmt.Sprintf("Timed out after %s (%d attempts) waiting for startup check to succeed: %v", timeout, attempts, err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return joined(failures)
}

// untilPass probes until one probe passes or ctx ends; it returns how often it did, and what the last
// probe that was not cut off said.
func (s Schedule) untilPass(ctx context.Context, t target) (attempts int, last error) {
	for wait := firstWait; ; wait = min(time.Duration(float64(wait)*waitGrowth), s.StartupMax) {
		attempts++
		err := s.probe(ctx, t)
		if err == nil {
			return attempts, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if !pause(ctx, min(wait, s.StartupMax)) {
			return attempts, last
		}
	}
}

// Liveness makes all checks again and again, at once and then each at its interval. It returns Errors
// as soon as one fails, and the error of ctx when that ends. It needs at least one check.
func (s Schedule) Liveness(ctx context.Context, checks []lrp.Check) error {
	return s.untilFailure(ctx, checks, "Liveness check unsuccessful: ")
}

// Readiness tells flip when the checks turn from not passing to passing and back, until ctx ends. ready
// is what was told before. A failing check changes nothing else: it never ends an instance.
func (s Schedule) Readiness(ctx context.Context, checks []lrp.Check, ready bool, flip func(ready bool)) {
	for ctx.Err() == nil {
		if !ready {
			if err := s.Startup(ctx, checks, 0); err != nil {
				return // only the end of ctx is left
			}
			ready = true
			flip(true)
		}
		err := s.untilFailure(ctx, checks, "Readiness check unsuccessful: ")
		var failed Errors
		if !errors.As(err, &failed) {
			return
		}
		ready = false
		flip(false)
	}
}

// untilFailure probes each check at its interval until one fails or ctx ends.
func (s Schedule) untilFailure(ctx context.Context, checks []lrp.Check, prefix string) error {
	all, cancel := context.WithCancel(ctx)
	defer cancel()
	failures := make([]string, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			for {
				err := s.probe(all, s.target(c))
				if all.Err() != nil {
					return // cut off: says nothing about the instance
				}
				if err != nil {
					failures[i] = prefix + err.Error()
					cancel()
					return
				}
				if !pause(all, s.interval(c)) {
					return
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return joined(failures)
}

func joined(failures []string) error {
	var all Errors
	for _, f := range failures {
		if f != "" {
			all = append(all, f)
		}
	}
	if all == nil {
		return nil
	}
	return all
}

// probe makes one probe when the pool has room.
func (s Schedule) probe(ctx context.Context, t target) error {
	select {
	case s.Pool <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.Pool }()
	return t.probe(ctx)
}

func (s Schedule) target(c lrp.Check) target {
	ms := uint64(0)
	if c.TCP != nil {
		ms = c.TCP.ConnectTimeoutMS
	} else {
		ms = c.HTTP.RequestTimeoutMS
	}
	return target{check: c, address: s.Address, timeout: orDefault(ms, s.Timeout), dial: s.Dial}
}

func (s Schedule) interval(c lrp.Check) time.Duration {
	if c.TCP != nil {
		return orDefault(c.TCP.IntervalMS, s.Interval)
	}
	return orDefault(c.HTTP.IntervalMS, s.Interval)
}

// maxMS bounds the times that checks ask for, in milliseconds: larger ones would overflow and be short.
const maxMS = uint64(24 * time.Hour / time.Millisecond)

func orDefault(ms uint64, d time.Duration) time.Duration {
	if ms == 0 {
		return d
	}
	return time.Duration(min(ms, maxMS)) * time.Millisecond
}

// pause waits; it tells whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func insecureTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
