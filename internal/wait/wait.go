// Package wait pauses for a while without outliving what it pauses. It knows nothing of why: how long, and what
// happens next, is the caller's to say.
package wait

import (
	"context"
	"time"
)

// For waits for d, and reports false when ctx ended before that. A d of 0 or less still asks ctx.
func For(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
