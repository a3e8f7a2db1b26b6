package consullease

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"muster/internal/lease"
	"muster/internal/wait"
)

// held is a lease that was taken.
type held struct {
	store      *Store
	name       string
	session    string
	token      uint64
	value      []byte // of the key; it stays when the lock goes
	since      time.Time
	lost       chan struct{}
	lose       func()
	stop       context.CancelFunc
	unfollowed chan struct{} // closed when nobody follows the key any more
}

// follow has a lease learn of its loss.
func follow(h *held) *held {
	h.lost, h.unfollowed = make(chan struct{}), make(chan struct{})
	h.lose = sync.OnceFunc(func() { close(h.lost) })
	var ctx context.Context
	ctx, h.stop = context.WithCancel(context.Background())
	go func() {
		defer close(h.unfollowed)
		h.follow(ctx)
	}()
	return h
}

// follow waits until the key is not locked by our session any more. What cannot be read says nothing: the
// holder counts its time.
func (h *held) follow(ctx context.Context) {
	index := uint64(0)
	for {
		pair, next, err := h.store.read(ctx, h.store.key(h.name), index)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !wait.For(ctx, lease.Jitter(lockRetry)) {
				return
			}
			index = 0
			continue
		case pair == nil || pair.Session != h.session:
			h.lose()
			return
		}
		index = next
	}
}

// Token returns the fencing token.
func (h *held) Token() uint64 { return h.token }

// Since returns the moment from which the TTL counts: before the session was made.
func (h *held) Since() time.Time { return h.since }

// Lost returns a channel that is closed when Consul says that the lease is lost.
func (h *held) Lost() <-chan struct{} { return h.lost }

// Renew renews the session.
func (h *held) Renew(ctx context.Context) error {
	entry, _, err := h.store.client.Session().Renew(h.session, new(api.WriteOptions).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("renew the session of lease %q: %w", h.name, err)
	}
	if entry == nil {
		h.lose()
		return fmt.Errorf("renew the session of lease %q: %w", h.name, lease.ErrLost)
	}
	select {
	case <-h.lost: // the session lives, the lock is gone
		return fmt.Errorf("renew the session of lease %q: %w", h.name, lease.ErrLost)
	default:
		return nil
	}
}

// Release gives the lease back. If Consul does not answer, that is done when this store next campaigns for it.
func (h *held) Release(ctx context.Context) error {
	h.stop()
	<-h.unfollowed
	if err := h.store.giveBack(ctx, h.store.key(h.name), h.session, h.value); err != nil {
		h.store.abandoned.Store(h.session, h.value)
		return fmt.Errorf("release lease %q: %w", h.name, err)
	}
	return nil
}
