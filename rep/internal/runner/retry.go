package runner

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// minRetry and maxRetry bound the waits between repeated calls of the BBS and of the engine.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = 2 * time.Second
)

// persist repeats try, with growing waits, until it succeeds or ctx ends; it tells whether it did. It
// complains of notable failures.
func persist(ctx context.Context, log *slog.Logger, complaint string, try func() error) bool {
	for failures := 0; ; failures++ {
		err := try()
		if err == nil {
			return true
		}
		if ctx.Err() == nil && notable(failures) {
			log.Warn(complaint, "error", err, "failures", failures+1)
		}
		if !pause(ctx, retryAfter(failures)) {
			return false
		}
	}
}

// notable tells whether a failure is logged that follows a number of others: ever fewer are, for a BBS
// that is away for an hour must not fill a disk with its absence.
func notable(failures int) bool { return failures&(failures-1) == 0 }

// retryAfter is the wait after a number of failures in a row. Half of it is random, so that not all
// instances of all cells call at the same moment when the BBS is back.
func retryAfter(failures int) time.Duration {
	wait := min(maxRetry, minRetry<<min(failures, 10))
	return wait/2 + rand.N(wait/2)
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
