package consul_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/internal/consul"
	"muster/internal/consultest"
	"muster/internal/daemon"
)

// patience is how long anything may take that must happen; ttl is as short as the agents of tests allow.
const (
	patience = 30 * time.Second
	ttl      = time.Second
)

func open(t *testing.T, a *consultest.Agent, prefix string) *consul.Directory {
	t.Helper()
	d, err := consul.Open(config(a, prefix))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func config(a *consultest.Agent, prefix string) consul.Config {
	return consul.Config{Address: a.Address(), Scheme: "http", Token: daemon.Secret(a.Token()), Prefix: prefix}
}

// keep runs something until the test ends or stop is called.
func keep(t *testing.T, run func(context.Context, *slog.Logger) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

// until asks again and again until the answer is the one wanted.
func until[T any](t *testing.T, ask func(context.Context) (T, error), ok func(T) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := ask(ctx)
		if err == nil && ok(answer) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still %v (%v)", answer, err)
		case <-tick.C:
		}
	}
}

func exactly(keys ...string) func(map[string]bool) bool {
	return func(got map[string]bool) bool {
		var all []string
		for k := range got {
			all = append(all, k)
		}
		slices.Sort(all)
		return slices.Equal(all, keys)
	}
}

func TestPresence(t *testing.T) {
	t.Parallel()
	a, prefix := consultest.Shared(t)
	d := open(t, a, prefix)
	until(t, d.Witness, exactly())
	one := func(ctx context.Context, log *slog.Logger) error {
		return d.Announce(ctx, log, consul.Presence{Key: "one", Value: []byte("first"), TTL: ttl})
	}
	stop := keep(t, one)
	keep(t, func(ctx context.Context, log *slog.Logger) error {
		return d.Announce(ctx, log, consul.Presence{Key: "two", TTL: ttl})
	})
	until(t, d.Witness, exactly("one", "two"))
	if p, err := d.Present(t.Context()); err != nil || string(p["one"]) != "first" {
		t.Errorf("one has %q (%v)", p["one"], err)
	}
	until(t, open(t, a, prefix+"x").Witness, exactly())
	stop()
	until(t, d.Witness, exactly("two"))
}

// A process that comes again takes its key from the one that died, without a moment of absence and without waiting
// for its session.
func TestPresenceIsTakenOver(t *testing.T) {
	t.Parallel()
	a, prefix := consultest.Shared(t)
	d, client := open(t, a, prefix), a.Client(t)
	session, _, err := client.Session().CreateNoChecks(nil, nil) // for ever
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := client.KV().Acquire(pair(prefix+"/presence/one", session), nil); err != nil || !ok {
		t.Fatal(ok, err)
	}
	keep(t, func(ctx context.Context, log *slog.Logger) error {
		return d.Announce(ctx, log, consul.Presence{Key: "one", Value: []byte("new"), TTL: ttl})
	})
	until(t, d.Present, func(p map[string][]byte) bool {
		if _, ok := p["one"]; !ok {
			t.Error("absent for a moment")
		}
		return string(p["one"]) == "new"
	})
}

// Who dies without a word is not present some time later; who lives and was forgotten comes back by itself;
// a key that nobody keeps does not count.
func TestPresenceOfTheDead(t *testing.T) {
	t.Parallel()
	a := consultest.Own(t)
	d, client := open(t, a, "own"), a.Client(t)
	session, _, err := client.Session().CreateNoChecks(&dying, nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, s := range map[string]string{"dead": session, "stray": ""} {
		p := pair("own/presence/"+key, s)
		if s == "" {
			_, err = client.KV().Put(p, nil)
		} else {
			_, _, err = client.KV().Acquire(p, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	keep(t, func(ctx context.Context, log *slog.Logger) error {
		return d.Announce(ctx, log, consul.Presence{Key: "alive", TTL: ttl})
	})
	until(t, d.Witness, func(got map[string]bool) bool { return got["dead"] && got["alive"] })
	until(t, d.Witness, exactly("alive"))
	a.Wipe(t)
	until(t, d.Witness, exactly("alive"))
	a.Kill()
	if got, err := d.Witness(t.Context()); err == nil {
		t.Errorf("without a Consul, %v are present", got)
	}
	a.Restart(t)
	until(t, d.Witness, exactly("alive"))
}

func TestService(t *testing.T) {
	t.Parallel()
	a := consultest.Own(t)
	d := open(t, a, "in/here")
	addresses := func(ctx context.Context) ([]string, error) { return d.Addresses(ctx, "router") }
	is := func(want ...string) func([]string) bool {
		return func(got []string) bool { slices.Sort(got); return slices.Equal(got, want) }
	}
	service := func(address string) func(context.Context, *slog.Logger) error {
		return func(ctx context.Context, log *slog.Logger) error {
			return d.Register(ctx, log, consul.Service{Component: "router", Address: address, TTL: ttl})
		}
	}
	stop := keep(t, service("10.0.0.1:80"))
	keep(t, service("10.0.0.2:80"))
	until(t, addresses, is("10.0.0.1:80", "10.0.0.2:80"))
	stop()
	until(t, addresses, is("10.0.0.2:80"))
	a.Wipe(t)
	until(t, addresses, is("10.0.0.2:80"))
	// One that is not fed any more is not well, and not listed.
	if err := a.Client(t).Agent().ServiceRegister(unfed(d.ServiceName("router"))); err != nil {
		t.Fatal(err)
	}
	until(t, addresses, is("10.0.0.2:80", "10.0.0.3:80"))
	until(t, addresses, is("10.0.0.2:80"))
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	a, prefix := consultest.Shared(t)
	d, log := open(t, a, prefix), slog.New(slog.DiscardHandler)
	for _, p := range []consul.Presence{
		{Key: ""}, {Key: "/x"}, {Key: strings.Repeat("k", consul.MaxKeyBytes+1)}, {Key: "k", Value: make([]byte, consul.MaxValueBytes+1)},
	} {
		if err := d.Announce(t.Context(), log, p); err == nil {
			t.Errorf("%.20q was announced", p.Key)
		}
	}
	for _, address := range []string{"", "here", "here:99999"} {
		if err := d.Register(t.Context(), log, consul.Service{Component: "x", Address: address, TTL: ttl}); err == nil {
			t.Errorf("%q was registered", address)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c := consul.Defaults()
	if errs := c.Problems(""); len(errs) != 0 {
		t.Error(errs)
	}
	c = consul.Config{Address: "x", Scheme: "ftp", Cert: "c", Prefix: "/X"}
	got := errors.Join(c.Problems("consul.")...)
	for _, want := range []string{"consul.address", "consul.scheme", "consul.cert_file", "consul.prefix"} {
		if got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("no word about %s in: %v", want, got)
		}
	}
	if _, err := c.Client(); err == nil {
		t.Error("a client of a bad configuration")
	}
	c = consul.Defaults()
	c.CA = "/nowhere"
	if errs := c.Problems(""); len(errs) == 0 {
		t.Error("files for https with http")
	}
	c.Scheme = "https"
	if _, err := c.Client(); err == nil {
		t.Error("a client without its CA")
	}
}
