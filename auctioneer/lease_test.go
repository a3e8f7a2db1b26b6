package auctioneer_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/auctioneer"
	"muster/bbs/lrp"
	"muster/internal/consul"
	"muster/internal/consultest"
	"muster/internal/daemon"
	"muster/internal/lease"
	"muster/internal/lease/leases"
	"muster/internal/pgtest"
)

// Two auctioneers know the same; only the one that has the lease orders work, and the other goes on when it ends.
func TestOnlyTheHolderOfTheLeaseOrders(t *testing.T) {
	t.Parallel()
	for name, choose := range map[string]func(t *testing.T) func(*auctioneer.Config){
		"postgres": func(t *testing.T) func(*auctioneer.Config) {
			url := daemon.Secret(pgtest.Database(t, nil))
			return func(c *auctioneer.Config) { c.LeaseDatabaseURL = url }
		},
		"consul": func(t *testing.T) func(*auctioneer.Config) {
			a, prefix := consultest.Shared(t)
			return func(c *auctioneer.Config) {
				c.Kind = lease.Consul
				c.Consul = consul.Config{Address: a.Address(), Scheme: "http", Prefix: prefix, Token: daemon.Secret(a.Token())}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testLease(t, choose(t))
		})
	}
}

func testLease(t *testing.T, choose func(*auctioneer.Config)) {
	const instances = 10
	cfg := auctioneer.Defaults()
	choose(cfg)
	slow := func(c *auctioneer.Config) { c.LeaseTTL = daemon.Duration(20 * time.Second) } // nobody is to lose it on a busy machine
	store, closeStore, err := leases.Open(t.Context(), cfg.Config, string(cfg.LeaseDatabaseURL))
	must(t, err)
	defer closeStore()
	held, err := store.Acquire(t.Context(), lease.Claim{Name: "auctioneer", Holder: "the test", TTL: time.Minute})
	must(t, err)

	w := newWorld(t)
	cells := []*testCell{w.cell("a", 1000), w.cell("b", 1000)}
	w.desire("p", instances, 10)
	stop := w.auctioneer(choose, slow)
	for _, c := range cells {
		<-c.watched
	}
	stopOther := w.auctioneer(choose, slow)
	for _, c := range cells {
		<-c.watched // now both know the cells, and before that they have listed the work
	}
	select {
	case got := <-w.performed:
		t.Errorf("%+v was ordered without the lease", got)
	default:
	}
	must(t, held.Release(context.Background()))
	once := func(process string) {
		t.Helper()
		w.arrivals(instances)
		w.until(process, "claimed", func(as []lrp.Actual) bool { return len(as) == instances && allClaimed(as) })
		for i := range instances {
			slot := fmt.Sprintf("%s/%d", process, i)
			if n := cells[0].times(slot) + cells[1].times(slot); n != 1 {
				t.Errorf("%s was ordered %d times", slot, n)
			}
		}
	}
	once("p")
	stop() // whichever it is, one is left
	w.desire("q", instances, 10)
	once("q")
	stopOther()
	must(t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := store.Acquire(ctx, lease.Claim{Name: "auctioneer", Holder: "the test", TTL: 10 * time.Minute})
		return err
	}())
}

func TestLeaseConfig(t *testing.T) {
	t.Parallel()
	c := auctioneer.Defaults()
	c.LeaseDatabaseURL = "mysql://x:y:z"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "lease_database_url is not") || strings.Contains(err.Error(), "mysql") {
		t.Errorf("got %v", err)
	}
	c.Kind = lease.Consul
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "which is meant") {
		t.Errorf("got %v", err)
	}
	c.Kind = "none"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), `lease "none"`) {
		t.Errorf("got %v", err)
	}
}
