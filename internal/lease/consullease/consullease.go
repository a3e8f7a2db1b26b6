// Package consullease keeps leases in Consul.
//
// A lease is the key PREFIX/lease/NAME, locked by a session of its holder. Its value names the token and the
// holder, and stays when the lease ends, so that tokens grow. Taking it is one transaction: the key is as it
// was when the token was computed from it (check-index), the session lives, and the lock is free.
//
// A session has a TTL, which Consul may stretch to twice its length but never cuts: that is what the holder
// counts with. It may however be invalidated early: by an operator, or because the node it is on (that
// of the agent asked) was removed. For that there is the lock delay: for so long after an invalidation nobody
// gets the lock, and meanwhile the holder, who follows the key by a blocking query, learns of it. The lock
// delay counts after the end of a TTL as well, but not after a release. It is kept in the memory of the leading
// server: a change of that server ends it. Then, and when Consul is wiped, there may be two holders for
// as long as the first does not hear of it, at most until the end of its TTL; this is what tokens are for.
//
// Consul wants TTLs of at least 10 s unless its session_ttl_min says otherwise.
package consullease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"muster/internal/lease"
	"muster/internal/wait"
)

const (
	// lockDelay is how long a holder has to notice that its session was invalidated early.
	lockDelay = time.Second
	// lockRetry is the pause between tries while the lock delay lasts, and after an error of a blocking query.
	lockRetry = 200 * time.Millisecond
	// blockTime is the longest a question waits for a change. Idle ones are asked again.
	blockTime = time.Minute
	// maxValueBytes bounds what is read from the key.
	maxValueBytes = 4096
)

// Store is a lease store in Consul.
type Store struct {
	client *api.Client
	prefix string
	// abandoned are the sessions of leases that could not be given back, because Consul did not answer, with
	// what is in their keys. They would keep us out of our own leases until their time is over.
	abandoned sync.Map // session: []byte
}

// New returns a store whose keys begin with a prefix; it is not contacted yet.
func New(client *api.Client, prefix string) *Store { return &Store{client: client, prefix: prefix} }

// value is the content of a key.
type value struct {
	Token  uint64 `json:"token"`
	Holder string `json:"holder"`
}

func (s *Store) key(name string) string { return s.prefix + "/lease/" + name }

// Acquire waits until the lease is free and takes it.
func (s *Store) Acquire(ctx context.Context, claim lease.Claim) (lease.Held, error) {
	if err := claim.Validate(); err != nil {
		return nil, err
	}
	key, index := s.key(claim.Name), uint64(0)
	for {
		pair, next, err := s.read(ctx, key, index)
		if err != nil {
			return nil, fmt.Errorf("read lease %q: %w", claim.Name, err)
		}
		index = next
		if pair != nil && pair.Session != "" {
			if content, ok := s.abandoned.LoadAndDelete(pair.Session); ok {
				s.giveBack(ctx, key, pair.Session, content.([]byte)) // else it ends by itself
			}
			continue // the next read waits for a change
		}
		held, err := s.try(ctx, claim, pair)
		if held != nil || err != nil {
			return held, err
		}
		// Somebody was faster, which the next look shows, or the lock delay lasts, which it does not.
		index = 0
		if !wait.For(ctx, lease.Jitter(lockRetry)) {
			return nil, ctx.Err()
		}
	}
}

// read returns a key, nil if there is none, once its index is greater than after; 0: at once. An index that
// goes backwards is that of another Consul, or of a restored one: it begins anew.
func (s *Store) read(ctx context.Context, key string, after uint64) (*api.KVPair, uint64, error) {
	q := &api.QueryOptions{WaitIndex: after, WaitTime: blockTime, RequireConsistent: after == 0}
	pair, meta, err := s.client.KV().Get(key, q.WithContext(ctx))
	if err != nil {
		return nil, 0, err
	}
	if meta.LastIndex < after {
		return pair, 0, nil
	}
	return pair, meta.LastIndex, nil
}

// try takes the lease as it was seen; nil if it cannot be had now.
func (s *Store) try(ctx context.Context, claim lease.Claim, seen *api.KVPair) (lease.Held, error) {
	floor, err := claim.FloorOf(ctx)
	if err != nil {
		return nil, err
	}
	remembered, err := tokenOf(seen)
	if err != nil {
		return nil, fmt.Errorf("lease %q: %w", claim.Name, err)
	}
	since := time.Now()
	token := lease.NextToken(remembered, floor, since)
	content, err := json.Marshal(value{token, claim.Holder})
	if err != nil {
		return nil, err
	}
	ctx2, cancel := context.WithTimeout(ctx, claim.TTL)
	defer cancel()
	id, err := s.session(ctx2, claim)
	if err != nil {
		return nil, fmt.Errorf("make a session for lease %q: %w", claim.Name, err)
	}
	taken, err := s.lock(ctx2, claim, id, content, seen)
	if !taken {
		destroy(context.WithoutCancel(ctx), s.client, id) // else it ends by itself
		if err != nil {
			return nil, fmt.Errorf("take lease %q: %w", claim.Name, err)
		}
		return nil, nil
	}
	return follow(&held{store: s, name: claim.Name, session: id, token: token, value: content, since: since}), nil
}

// tokenOf returns the token that a key remembers, 0 for none.
func tokenOf(pair *api.KVPair) (uint64, error) {
	if pair == nil {
		return 0, nil
	}
	var v value
	if len(pair.Value) > maxValueBytes {
		return 0, fmt.Errorf("key %s has %d bytes, more than %d: is it another's? Delete it to start anew", pair.Key, len(pair.Value), maxValueBytes)
	}
	if err := json.Unmarshal(pair.Value, &v); err != nil {
		return 0, fmt.Errorf("key %s holds no lease: %w: delete it to start anew", pair.Key, err)
	}
	return v.Token, nil
}

func (s *Store) session(ctx context.Context, claim lease.Claim) (string, error) {
	// No checks: the health of the node says nothing about a process of ours. The TTL does.
	id, _, err := s.client.Session().CreateNoChecks(&api.SessionEntry{
		Name: s.key(claim.Name), TTL: claim.TTL.String(), LockDelay: lockDelay, Behavior: api.SessionBehaviorRelease,
	}, new(api.WriteOptions).WithContext(ctx))
	return id, err
}

// lock takes the lock of a key that has not changed since it was seen.
func (s *Store) lock(ctx context.Context, claim lease.Claim, session string, content []byte, seen *api.KVPair) (bool, error) {
	key := s.key(claim.Name)
	unchanged := &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: key}
	if seen != nil {
		unchanged = &api.KVTxnOp{Verb: api.KVCheckIndex, Key: key, Index: seen.ModifyIndex}
	}
	ok, answer, _, err := s.client.KV().Txn(api.KVTxnOps{unchanged, {Verb: api.KVLock, Key: key, Value: content, Session: session}},
		new(api.QueryOptions).WithContext(ctx))
	if err != nil || ok {
		return ok && err == nil, err
	}
	for _, e := range answer.Errors {
		if !expected(e.What) {
			return false, errors.New(e.What)
		}
	}
	return false, nil
}

// expected tells whether a transaction was refused because somebody was faster or has just lost the lock.
// Consul says so in words only.
func expected(what string) bool {
	for _, part := range []string{"due to lock delay", "lock is already held", "failed index check", "failed to check index", "\" exists"} {
		if strings.Contains(what, part) {
			return true
		}
	}
	return false
}

// giveBack unlocks a key, which has no lock delay, and ends the session, which then locks nothing. A key that
// another has locked by now is left alone.
func (s *Store) giveBack(ctx context.Context, key, session string, content []byte) error {
	_, _, unlocked := s.client.KV().Release(&api.KVPair{Key: key, Value: content, Session: session}, new(api.WriteOptions).WithContext(ctx))
	return errors.Join(unlocked, destroy(ctx, s.client, session))
}

// destroy ends a session, as far as Consul answers.
func destroy(ctx context.Context, client *api.Client, id string) error {
	ctx, cancel := context.WithTimeout(ctx, lockDelay)
	defer cancel()
	_, err := client.Session().Destroy(id, new(api.WriteOptions).WithContext(ctx))
	return err
}
