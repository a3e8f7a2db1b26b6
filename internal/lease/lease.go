// Package lease lets one of several processes do a piece of work, and gives its writes a number that
// proves, where they arrive, that it was not done by somebody who should have stopped.
//
// Lead campaigns for a named lease of a Store for as long as it runs, and runs the work while it has
// it. The stores are pglease (a table of PostgreSQL) and consullease (sessions and keys of Consul);
// leasetest is the suite that both pass, leases opens the one that a configuration names.
//
// # What a lease promises
//
//   - While the store keeps its memory and clocks run at about the same speed, the lease is given to
//     nobody else before the context of the holder's work has ended. The holder counts its time from
//     before the request that took or renewed the lease was sent, on its own clock, and ends its work
//     a margin before the store could give the lease away (see Margin).
//   - No answer is no lease: a holder that cannot reach the store goes on until that moment, and stops.
//   - Tokens grow: each acquisition has a greater one than all before it, whether those ended by
//     release, by expiry or by a restart of the store. A store that was wiped goes on from Campaign.Floor.
//   - A lease that is given back is taken over at once; that of a holder who died, after its TTL (in
//     Consul up to twice its TTL, and a lock delay).
//
// # What it does not promise
//
// It cannot promise that there is never a second holder: a process may be stopped between looking at its
// context and sending its write, a store may be wiped under its holder, a clock may jump. So whoever
// guards something with a lease sends the token with every write, and the other side refuses a token
// that is smaller than one it has seen (fencing). With that, two holders do no harm.
// And it does not promise that somebody holds it: while the store is away, nobody may.
package lease

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrLost says that the store no longer has the lease in this holder's name.
var ErrLost = errors.New("the lease is lost")

// Store keeps leases. It is safe for concurrent use.
type Store interface {
	// Acquire waits until the lease is free and takes it. It returns without it only with an error: that
	// of ctx, or of a store that cannot be reached or refuses.
	Acquire(ctx context.Context, claim Claim) (Held, error)
}

// Claim says who wants what.
type Claim struct {
	// Name of the lease, 1 to 128 bytes of a-z, 0-9 and "-".
	Name string
	// Holder names who wants it, for people; at most 256 bytes. It need not be unique.
	Holder string
	// TTL is how long the lease lasts without renewal: up, a dead holder is replaced later; down, a
	// shorter outage of the store interrupts the work. See MinTTL and the bounds of the store.
	TTL time.Duration
	// Floor returns a number that the next token must exceed: the greatest that has been seen by those who
	// are guarded by it. It is asked with each acquisition; an error prevents that. Nil: 0.
	Floor func(context.Context) (uint64, error)
}

// Held is a lease that was taken. Its methods do not wait longer than their context lives.
type Held interface {
	// Token returns the fencing token.
	Token() uint64
	// Since returns the moment from which the TTL of the acquisition counts: before it was asked for.
	Since() time.Time
	// Renew makes the lease last for its TTL again, counted from the call. ErrLost: it cannot, for good.
	Renew(ctx context.Context) error
	// Lost returns a channel that is closed when the store says that the lease is lost. Not every loss
	// is told: the end of the TTL is the holder's to count.
	Lost() <-chan struct{}
	// Release gives the lease back, if it still is this holder's, and ends what Held does in the
	// background. It must be called once, whatever happened to the lease.
	Release(ctx context.Context) error
}

// Bounds of what may be claimed.
const (
	// MinTTL is the shortest TTL; a store may want more.
	MinTTL = 500 * time.Millisecond
	// MaxTTL is the longest.
	MaxTTL = 10 * time.Minute
	// MaxNameBytes bounds the name of a lease.
	MaxNameBytes = 128
	// MaxHolderBytes bounds the name of a holder.
	MaxHolderBytes = 256
)

// Margin is how long before the end of its TTL a lease is treated as lost by its holder. It covers the
// difference in the speed of two clocks within one TTL (ordinary ones differ by less than 0.1 %), and
// leaves the work a moment to notice: a tenth of the TTL.
func Margin(ttl time.Duration) time.Duration { return ttl / 10 }

// Validate returns every problem of a claim at once.
func (c Claim) Validate() error {
	var errs []error
	if n := len(c.Name); n == 0 || n > MaxNameBytes || !plain(c.Name) {
		errs = append(errs, fmt.Errorf("name of the lease %q: want 1 to %d bytes of a-z, 0-9 and -", c.Name, MaxNameBytes))
	}
	if n := len(c.Holder); n == 0 || n > MaxHolderBytes {
		errs = append(errs, fmt.Errorf("holder of the lease has %d bytes: want 1 to %d", n, MaxHolderBytes))
	}
	if c.TTL < MinTTL || c.TTL > MaxTTL {
		errs = append(errs, fmt.Errorf("TTL of the lease %v: want %v to %v", c.TTL, MinTTL, MaxTTL))
	}
	return errors.Join(errs...)
}

func plain(name string) bool {
	for _, b := range []byte(name) {
		if !(b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '-') {
			return false
		}
	}
	return true
}

// NextToken returns the token of the next acquisition. For implementations of Store: remembered is the
// last one that the store knows of, 0 if none.
//
// A store without memory may be new, or may have been wiped after it gave out tokens that were never used
// and of which Floor therefore knows nothing. So that even those are exceeded, the first token is taken
// from the clock.
func NextToken(remembered, floor uint64, now time.Time) uint64 {
	if remembered == 0 {
		remembered = uint64(max(0, now.UnixMilli()))
	}
	return max(remembered, floor) + 1
}

// floorTime bounds the question for a floor: whoever is asked may be behind a network that swallows it.
const floorTime = 5 * time.Second

// FloorOf asks for the floor of a claim, for no longer than floorTime.
func (c Claim) FloorOf(ctx context.Context) (uint64, error) {
	if c.Floor == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, floorTime)
	defer cancel()
	floor, err := c.Floor(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for the newest token of lease %q: %w", c.Name, err)
	}
	return floor, nil
}
