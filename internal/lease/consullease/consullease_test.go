package consullease_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"muster/internal/consul"
	"muster/internal/consultest"
	"muster/internal/daemon"
	"muster/internal/lease"
	"muster/internal/lease/consullease"
	"muster/internal/lease/leasetest"
)

const addressEnv, tokenEnv, prefixEnv = "LEASETEST_ADDRESS", "LEASETEST_TOKEN", "LEASETEST_PREFIX"

func TestMain(m *testing.M) {
	leasetest.Helper(func() (lease.Store, error) {
		return open(os.Getenv(addressEnv), os.Getenv(tokenEnv), os.Getenv(prefixEnv))
	})
	os.Exit(m.Run())
}

func open(address, token, prefix string) (lease.Store, error) {
	c := consul.Config{Address: address, Scheme: "http", Token: daemon.Secret(token), Prefix: prefix}
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	return consullease.New(client, prefix), nil
}

func world(a *consultest.Agent, prefix string) leasetest.World {
	return leasetest.World{
		Open: func(t testing.TB) lease.Store {
			s, err := open(a.Address(), a.Token(), prefix)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Environment: []string{addressEnv + "=" + a.Address(), tokenEnv + "=" + a.Token(), prefixEnv + "=" + prefix},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	leasetest.Run(t, func(t testing.TB) leasetest.World {
		return world(consultest.Shared(t))
	}, func(t testing.TB) leasetest.Breakable {
		a := consultest.Own(t)
		return leasetest.Breakable{
			World: world(a, "own"),
			Stop:  func(testing.TB) { a.Kill() }, Start: a.Restart, Wipe: a.Wipe, Freeze: a.Pause, Thaw: a.Resume,
		}
	})
}

// An operator takes the lease away: the holder learns of it at once, long before its TTL is over, and nobody
// has the lease before the lock delay is over.
func TestInvalidatedSession(t *testing.T) {
	t.Parallel()
	a, prefix := consultest.Shared(t)
	w := world(a, prefix)
	held, err := w.Open(t).Acquire(t.Context(), lease.Claim{Name: "x", Holder: "a", TTL: lease.MaxTTL})
	if err != nil {
		t.Fatal(err)
	}
	client := a.Client(t)
	key, _, err := client.KV().Get(prefix+"/lease/x", nil)
	if err != nil || key == nil {
		t.Fatal(key, err)
	}
	invalidated := time.Now()
	if _, err := client.Session().Destroy(key.Session, nil); err != nil {
		t.Fatal(err)
	}
	taken := make(chan lease.Held, 1)
	go func() {
		h, err := w.Open(t).Acquire(t.Context(), lease.Claim{Name: "x", Holder: "b", TTL: time.Minute})
		if err != nil {
			t.Error(err)
		}
		taken <- h
	}()
	select {
	case <-held.Lost():
	case h := <-taken:
		t.Fatalf("token %d was given before the holder heard of its loss", h.Token())
	}
	if h := <-taken; h.Token() <= held.Token() {
		t.Errorf("token %d after %d", h.Token(), held.Token())
	}
	const lockDelay = time.Second
	if took := time.Since(invalidated); took < lockDelay {
		t.Errorf("the lock was given after %v, want %v at least", took, lockDelay)
	}
	if err := held.Release(context.Background()); err != nil {
		t.Error(err)
	}
}

// A key that is not ours is not overwritten, and the error says what to do.
func TestForeignKey(t *testing.T) {
	t.Parallel()
	a, prefix := consultest.Shared(t)
	client := a.Client(t)
	for _, text := range []string{"not JSON", string(make([]byte, 5000))} {
		pair := kv(prefix+"/lease/x", text)
		if _, err := client.KV().Put(pair, nil); err != nil {
			t.Fatal(err)
		}
		if h, err := world(a, prefix).Open(t).Acquire(t.Context(), lease.Claim{Name: "x", Holder: "a", TTL: time.Minute}); err == nil {
			t.Errorf("got token %d", h.Token())
		}
	}
}

// Consul refuses what it does not allow, at once and with its reason.
func TestRefusals(t *testing.T) {
	t.Parallel()
	a, prefix := consultest.Shared(t)
	s, err := open(a.Address(), "6f757473-6964-4572-9374-65724d757374", prefix)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := s.Acquire(t.Context(), lease.Claim{Name: "x", Holder: "a", TTL: time.Minute}); err == nil {
		t.Errorf("with a wrong token: fencing token %d", h.Token())
	}
}

func kv(key, text string) *api.KVPair { return &api.KVPair{Key: key, Value: []byte(text)} }
