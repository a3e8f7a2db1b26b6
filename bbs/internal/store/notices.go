package store

import (
	"context"
	"sync"
	"time"

	"muster/internal/wait"
)

const (
	// noticePause is the least time between two notifications of other replicas. Each wakes all of them,
	// and this process too. Up: less work for everybody while there are many small batches; down: other
	// replicas hear sooner of what follows soon after something else.
	noticePause = 10 * time.Millisecond
	// noticeTime bounds the sending of one that was put off. One that is lost is made up for by the next
	// one, and by the polls of the others.
	noticeTime = 2 * time.Second
)

// notices spaces the notifications that tell other replicas to look into the log: one goes with a batch if
// the last one is long enough ago; else one follows when it is time for it, after the batch.
type notices struct {
	send func()        // sends one that was put off
	wake chan struct{} // capacity 1: something is owed

	mu   sync.Mutex
	next time.Time // when the next one may be sent
	owed bool      // a batch was committed without one since the last one
}

func newNotices(send func()) *notices { return &notices{send: send, wake: make(chan struct{}, 1)} }

// take tells whether a batch is to bring a notification. done is to be called with whether it was
// committed, if it may have been.
func (n *notices) take() (now bool, done func(committed bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at := time.Now(); !at.Before(n.next) {
		n.next = at.Add(noticePause)
		return true, func(committed bool) { n.owe(!committed) }
	}
	return false, func(bool) { n.owe(true) }
}

// owe notes whether a notification must follow.
func (n *notices) owe(owed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.owed = owed; !owed {
		return
	}
	select {
	case n.wake <- struct{}{}:
	default: // run is going to look anyway
	}
}

// run sends what is owed when it is time for it, until ctx ends, and then at once.
func (n *notices) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-n.wake:
			n.mu.Lock()
			next := n.next
			n.mu.Unlock()
			wait.For(ctx, time.Until(next))
		}
		n.settle()
	}
}

// settle sends what is owed, unless a batch has brought a notification meanwhile.
func (n *notices) settle() {
	n.mu.Lock()
	owed := n.owed
	if owed {
		n.owed, n.next = false, time.Now().Add(noticePause)
	}
	n.mu.Unlock()
	if owed {
		n.send()
	}
}

// notify tells other replicas to look into the log.
func (s *Store) notify() {
	ctx, cancel := context.WithTimeout(context.Background(), noticeTime)
	defer cancel()
	if _, err := s.Pools.Read.Exec(ctx, s.sql["notify_events"]); err != nil {
		s.Log.Debug("other replicas were not notified: they notice by themselves", "error", err)
	}
}
