package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"muster/internal/wait"
)

const (
	// renewShare: what lasts for a TTL is renewed so many times in it.
	renewShare = 3
	// firstPause is the wait after a first failure; it doubles up to maxPause.
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
	// remindTime is how often a failure that goes on is logged.
	remindTime = time.Minute
	// endTime bounds the taking back of what is registered when a process ends.
	endTime = time.Second
	// blockTime is the longest a question waits for a change.
	blockTime = time.Minute
	// MaxKeyBytes bounds a key of presence.
	MaxKeyBytes = 256
	// MaxValueBytes bounds what is kept with it.
	MaxValueBytes = 64 << 10
)

// Directory is what is kept below a prefix of a Consul. It is safe for concurrent use.
type Directory struct {
	client *api.Client
	prefix string
}

// Open returns the directory of a configuration; nothing is contacted yet.
func Open(cfg Config) (*Directory, error) {
	client, err := cfg.Client()
	if err != nil {
		return nil, err
	}
	return &Directory{client, cfg.Prefix}, nil
}

// until does attempts of something that should last, again and again, until ctx ends. An attempt that fails at
// once is followed by growing, jittered pauses; the first failure of a row is logged, and one a minute after it.
func until(ctx context.Context, log *slog.Logger, what string, ttl time.Duration, attempt func(context.Context) error) error {
	pause := firstPause
	var warned time.Time // of the failures of this row; zero: there were none
	for {
		began := time.Now()
		err := attempt(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > ttl {
			pause, warned = firstPause, time.Time{} // it went well for a while
		}
		if time.Since(warned) > remindTime {
			log.Warn("registration in Consul ended; trying again", "what", what, "error", err)
			warned = time.Now()
		}
		if !wait.For(ctx, pause/2+rand.N(pause/2)) {
			return ctx.Err()
		}
		pause = min(2*pause, maxPause)
	}
}

// Service is a component that can be reached.
type Service struct {
	// Component names what it is; its service in Consul is called PREFIX-COMPONENT.
	Component string
	// Address is the host:port where it is.
	Address string
	// TTL is how long it counts as well after its process has died; a minute later it is gone.
	TTL time.Duration
	// Meta is kept with it.
	Meta map[string]string
}

// ServiceName is the name of a component's service in Consul.
func (d *Directory) ServiceName(component string) string {
	return strings.ReplaceAll(d.prefix, "/", "-") + "-" + component
}

// Register keeps a component registered as well until ctx ends, and then takes it out.
func (d *Directory) Register(ctx context.Context, log *slog.Logger, s Service) error {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return fmt.Errorf("register %s: address %q: want host:port", s.Component, s.Address)
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return fmt.Errorf("register %s: address %q: %w", s.Component, s.Address, err)
	}
	name := d.ServiceName(s.Component)
	id := name + "-" + s.Address
	check := "service:" + id // as Consul names the one check of a service
	const gone = time.Minute // the shortest that Consul accepts
	registration := &api.AgentServiceRegistration{ID: id, Name: name, Address: host, Port: number, Meta: s.Meta,
		Check: &api.AgentServiceCheck{CheckID: check, TTL: s.TTL.String(), Status: api.HealthPassing, DeregisterCriticalServiceAfter: gone.String()}}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if err := d.client.Agent().ServiceDeregisterOpts(id, query(ending)); err != nil {
			log.Info("not taken out of Consul; it will be by itself", "service", id, "error", err)
		}
	}()
	return until(ctx, log, id, s.TTL, func(ctx context.Context) error {
		err := within(ctx, s.TTL, func(ctx context.Context) error {
			return d.client.Agent().ServiceRegisterOpts(registration, api.ServiceRegisterOpts{}.WithContext(ctx))
		})
		for err == nil && wait.For(ctx, s.TTL/renewShare) {
			err = within(ctx, s.TTL, func(ctx context.Context) error {
				return d.client.Agent().UpdateTTLOpts(check, "", api.HealthPassing, query(ctx))
			})
		}
		return err
	})
}

// Addresses returns where the instances of a component are that are well.
func (d *Directory) Addresses(ctx context.Context, component string) ([]string, error) {
	entries, _, err := d.client.Health().Service(d.ServiceName(component), "", true, query(ctx))
	if err != nil {
		return nil, fmt.Errorf("ask Consul for %s: %w", component, err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, net.JoinHostPort(e.Service.Address, fmt.Sprint(e.Service.Port)))
	}
	return list, nil
}

// Presence is a key that is there as long as a process is.
type Presence struct {
	Key   string // 1 to MaxKeyBytes bytes, without "/" at its ends
	Value []byte // at most MaxValueBytes
	// TTL is how long, at least, the key stays after the process has died; Consul may take twice as long.
	TTL time.Duration
}

// Announce keeps a key present until ctx ends, and then removes it. It takes the key from whoever has it, without
// a moment of absence: most likely that is the process that was here before. Two living ones with the same key
// take it from each other again and again, with pauses, and each logs it.
func (d *Directory) Announce(ctx context.Context, log *slog.Logger, p Presence) error {
	if n := len(p.Key); n == 0 || n > MaxKeyBytes || strings.Trim(p.Key, "/") != p.Key {
		return fmt.Errorf("key %q: want 1 to %d bytes, without / at its ends", p.Key, MaxKeyBytes)
	}
	if n := len(p.Value); n > MaxValueBytes {
		return fmt.Errorf("value of key %q has %d bytes, more than %d", p.Key, n, MaxValueBytes)
	}
	return until(ctx, log, p.Key, p.TTL, func(ctx context.Context) error { return d.announce(ctx, p) })
}

// announce makes the key present and returns when it is not any more.
func (d *Directory) announce(ctx context.Context, p Presence) error {
	key, session := d.presenceKey(p.Key), ""
	err := within(ctx, p.TTL, func(ctx context.Context) (err error) {
		session, _, err = d.client.Session().CreateNoChecks(&api.SessionEntry{
			// The key goes with the session, and whoever comes next need not wait.
			Name: key, TTL: p.TTL.String(), Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond,
		}, write(ctx))
		return err
	})
	if err != nil {
		return fmt.Errorf("make a session: %w", err)
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		_, _ = d.client.Session().Destroy(session, write(ending)) // else it ends by itself
	}()
	err = within(ctx, p.TTL, func(ctx context.Context) error {
		ok, answer, _, err := d.client.KV().Txn(api.KVTxnOps{
			{Verb: api.KVDelete, Key: key},
			{Verb: api.KVLock, Key: key, Value: p.Value, Session: session},
		}, query(ctx))
		if err == nil && !ok {
			err = errors.New(answer.Errors[0].What)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("lock key %s: %w", key, err)
	}
	return d.stay(ctx, p, key, session)
}

// stay renews the session, and returns when the key is not ours any more.
func (d *Directory) stay(ctx context.Context, p Presence, key, session string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	followed := make(chan struct{})
	defer func() { cancel(nil); <-followed }()
	go func() {
		defer close(followed)
		d.follow(ctx, key, session, cancel)
	}()
	for wait.For(ctx, p.TTL/renewShare) {
		err := within(ctx, p.TTL, func(ctx context.Context) error {
			entry, _, err := d.client.Session().Renew(session, write(ctx))
			if err == nil && entry == nil {
				cancel(errGone)
			}
			return err
		})
		// No answer: Consul keeps the session for its TTL at least, and there is nothing better to do.
		if err != nil && !wait.For(ctx, firstPause) {
			break
		}
	}
	return context.Cause(ctx)
}

var (
	errGone  = errors.New("the session is gone")
	errTaken = errors.New("the key is gone, or another has it")
)

// follow waits until the key is not locked by a session any more, and says so.
func (d *Directory) follow(ctx context.Context, key, session string, lost func(error)) {
	for index := uint64(0); ; {
		q := &api.QueryOptions{WaitIndex: index, WaitTime: blockTime, RequireConsistent: index == 0}
		pair, meta, err := d.client.KV().Get(key, q.WithContext(ctx))
		switch {
		case err != nil:
			if !wait.For(ctx, firstPause) {
				return
			}
			index = 0
		case pair == nil || pair.Session != session:
			lost(errTaken)
			return
		case meta.LastIndex < index: // another Consul, or a restored one
			index = 0
		default:
			index = meta.LastIndex
		}
	}
}

func (d *Directory) presenceKey(key string) string { return d.prefix + "/presence/" + key }

// Present returns the keys that are present, with their values. An error means that nobody knows: in particular
// it does not mean that none is there.
func (d *Directory) Present(ctx context.Context) (map[string][]byte, error) {
	q := &api.QueryOptions{RequireConsistent: true}
	pairs, _, err := d.client.KV().List(d.presenceKey(""), q.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("ask Consul who is present: %w", err)
	}
	present := make(map[string][]byte, len(pairs))
	for _, p := range pairs {
		if p.Session != "" { // one without is not from a living process
			present[strings.TrimPrefix(p.Key, d.presenceKey(""))] = p.Value
		}
	}
	return present, nil
}

// Witness says which keys are present. Who is not in the answer has been gone for a TTL at least, or Consul has
// lost its memory: an answer without anybody proves nothing. An error means that nobody knows.
func (d *Directory) Witness(ctx context.Context) (map[string]bool, error) {
	present, err := d.Present(ctx)
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(present))
	for key := range present {
		set[key] = true
	}
	return set, nil
}

// within bounds one call so that several fit into a TTL.
func within(ctx context.Context, ttl time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, ttl/renewShare)
	defer cancel()
	return call(ctx)
}

func query(ctx context.Context) *api.QueryOptions { return new(api.QueryOptions).WithContext(ctx) }
func write(ctx context.Context) *api.WriteOptions { return new(api.WriteOptions).WithContext(ctx) }
