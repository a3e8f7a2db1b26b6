package store

import (
	"context"
	"sync"
	"time"
)

// turnTime is how long a writer has the turn at most: longer than a batch takes. A lock that another
// replica holds, or a slow disk, keeps no other batch waiting for longer.
const turnTime = 20 * time.Millisecond

// turns lets one writer at a time make a batch, up to the moment when nothing is left to do but to wait
// for the disk. What a batch costs hardly depends on how many calls are in it, so of two writers that each
// took what they find, both would take half of it and pay the whole price. Capacity 1.
type turns chan struct{}

// take waits for the turn, and returns how to pass it on: once counts. It reports false when ctx ended.
func (t turns) take(ctx context.Context) (pass func(), ok bool) {
	select {
	case t <- struct{}{}:
		return sync.OnceFunc(func() { <-t }), true
	case <-ctx.Done():
		return nil, false
	}
}

// atLast passes the turn on when it has taken too long, unless it is stopped before.
func atLast(pass func()) (stop func() bool) { return time.AfterFunc(turnTime, pass).Stop }
