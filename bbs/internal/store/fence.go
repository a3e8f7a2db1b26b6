package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Calls under a lease lock it against newer tokens: shared, so that the writers do not wait for each
// other, unless the call brings a newer token, which has to wait until no older one is at work. Which
// of the two it is is known before the lock is taken only from memory; when that was wrong, the
// batch is tried again.

// fences remembers the newest tokens that this process has seen recorded.
type fences struct {
	mu     sync.Mutex
	tokens map[string]uint64
}

// errOutdated says that a lock was shared although a newer token has to be recorded.
var errOutdated = errors.New("the token of a lease is newer than was known")

// fenceState is the token of a lease: as it was, and as it has become. 0: none was recorded.
type fenceState struct {
	before, after uint64
	shared        bool // how it is locked
	newest        uint64
}

// Token returns the newest token of a lease under which something was written; 0: none. It takes no longer
// than readTime.
func (s *Store) Token(ctx context.Context, lease string) (uint64, error) {
	var token int64
	err := s.briefly(ctx, func(ctx context.Context) error {
		return s.Pools.Read.QueryRow(ctx, s.sql["fence_token"], lease).Scan(&token)
	})
	return uint64(token), unavailable("read the token of lease "+lease, err)
}

// admit refuses a call whose token is old, and notes one that is new.
func (w *world) admit(c *Call) error {
	f := w.fences[c.Fence.Lease]
	switch {
	case c.Fence.Token < f.after || c.Fence.Token == 0:
		return ErrFenced
	case !c.ValidateOnly:
		f.after = c.Fence.Token
	}
	return nil
}

// locks notes the leases of a batch in the world and returns the keys of all its locks, in order, and
// which of them are shared.
func (f *fences) locks(subj subjects, requests []*request, w *world) (keys []int64, shared []bool) {
	w.fences = map[string]*fenceState{}
	f.mu.Lock()
	for lease := range subj.leases {
		w.fences[lease] = &fenceState{shared: true}
	}
	for _, r := range requests {
		if at := w.fences[r.call.Fence.Lease]; at != nil && !r.call.ValidateOnly {
			at.newest = max(at.newest, r.call.Fence.Token)
			at.shared = at.newest <= f.tokens[r.call.Fence.Lease]
		}
	}
	f.mu.Unlock()
	share := map[int64]bool{}
	for _, key := range subj.lockKeys() {
		share[key] = false
	}
	for lease, at := range w.fences {
		key := lockKey("lease", lease)
		other, there := share[key]
		share[key] = at.shared && (!there || other)
	}
	keys = slices.Sorted(maps.Keys(share))
	shared = make([]bool, len(keys))
	for i, key := range keys {
		shared[i] = share[key]
	}
	return keys, shared
}

// outdated reports a lease that is locked for less than what is about to happen, after it was read.
func (f *fences) outdated(w *world) error {
	for lease, at := range w.fences {
		if at.shared && at.newest > at.before { // the database lost what was known
			f.mu.Lock()
			delete(f.tokens, lease)
			f.mu.Unlock()
			return errOutdated
		}
	}
	return nil
}

// recorded notes what was committed or read.
func (f *fences) recorded(seen map[string]*fenceState) {
	if len(seen) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tokens == nil {
		f.tokens = map[string]uint64{}
	}
	for lease, at := range seen {
		f.tokens[lease] = max(f.tokens[lease], at.after)
	}
}

func (w *world) readFences(rows pgx.Rows) error {
	var lease string
	var token int64
	_, err := pgx.ForEachRow(rows, []any{&lease, &token}, func() error {
		w.fences[lease].before, w.fences[lease].after = uint64(token), uint64(token)
		return nil
	})
	return err
}

func (p *plan) planFences(w *world) {
	if len(w.fences) == 0 {
		return
	}
	p.upsertFences = make(columns, 2)
	for _, lease := range slices.Sorted(maps.Keys(w.fences)) {
		if f := w.fences[lease]; f.after != f.before {
			row(p.upsertFences, lease, int64(f.after))
		}
	}
}
