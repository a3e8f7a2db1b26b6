package store

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Of many commits in a short time few bring a notification, and the last one is told of in any case.
func TestNotices(t *testing.T) {
	t.Parallel()
	for name, committed := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var sent, brought atomic.Int32
				n := newNotices(func() { sent.Add(1) })
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { n.run(ctx) })
				commit := func(committed bool) {
					now, done := n.take()
					if now && committed {
						brought.Add(1)
					}
					done(committed)
				}
				commit(committed) // its own notification may be lost with it
				for range 9 {
					time.Sleep(time.Millisecond)
					commit(true)
				}
				synctest.Wait()
				if committed && (brought.Load() != 1 || sent.Load() != 0) {
					t.Errorf("10 commits within the pause brought %d notifications and %d followed, want the first one alone", brought.Load(), sent.Load())
				}
				time.Sleep(noticePause)
				synctest.Wait()
				if sent.Load() != 1 {
					t.Errorf("%d notifications followed, want one", sent.Load())
				}
				time.Sleep(10 * noticePause)
				synctest.Wait()
				if sent.Load() != 1 {
					t.Errorf("%d notifications followed in the end, want no further one", sent.Load())
				}
				now, done := n.take()
				if done(true); !now {
					t.Error("a commit after a long pause brought no notification")
				}
				now, done = n.take()
				if done(true); now {
					t.Error("a commit right after a notification brought another one")
				}
				stop() // what is owed is sent at once
				wg.Wait()
				if sent.Load() != 2 {
					t.Errorf("%d notifications followed when the store ended, want the one that was owed too", sent.Load())
				}
			})
		})
	}
}

// A writer that is kept waiting keeps the others waiting for a moment only, and passes its turn on once.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := make(turns, 1)
		pass, ok := turns.take(t.Context())
		if !ok {
			t.Fatal("nobody has the turn, and it cannot be had")
		}
		stop := atLast(pass)
		start := time.Now()
		next, _ := turns.take(t.Context())
		if waited := time.Since(start); waited != turnTime {
			t.Errorf("the next writer waited %v, want %v", waited, turnTime)
		}
		stop()
		pass()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, ok := turns.take(ctx); ok {
			t.Error("the turn was passed on twice")
		}
		next()
	})
}
