package pglease_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/internal/lease"
	"muster/internal/lease/leasetest"
	"muster/internal/lease/pglease"
	"muster/internal/pgcluster"
	"muster/internal/pgtest"
)

const urlEnv = "LEASETEST_URL"

func TestMain(m *testing.M) {
	leasetest.Helper(func() (lease.Store, error) { return pglease.Open(context.Background(), os.Getenv(urlEnv)) })
	os.Exit(m.Run())
}

func world(url string) leasetest.World {
	return leasetest.World{
		Open: func(t testing.TB) lease.Store {
			s, err := pglease.Open(context.Background(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			return s
		},
		Environment: []string{urlEnv + "=" + url},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	leasetest.Run(t, func(t testing.TB) leasetest.World {
		return world(pgtest.Database(t, nil))
	}, func(t testing.TB) leasetest.Breakable {
		c := pgtest.Cluster(t)
		url := pgtest.DatabaseOn(t, c, nil)
		var frozen *pgx.Conn
		return leasetest.Breakable{
			World: world(url),
			Stop: func(t testing.TB) {
				if err := c.Kill(context.Background()); err != nil {
					t.Fatal(err)
				}
			},
			Start: func(t testing.TB) {
				if _, err := pgcluster.Open(context.Background(), pgcluster.Config{Dir: c.Dir(), FastUnsafe: true}); err != nil {
					t.Fatal(err)
				}
			},
			Wipe: func(t testing.TB) {
				conn := connect(t, url)
				defer conn.Close(context.Background())
				exec(t, conn, "drop schema muster_lease cascade")
			},
			// Whoever asks now waits, until the lock's connection is closed.
			Freeze: func(t testing.TB) {
				frozen = connect(t, url)
				exec(t, frozen, "begin; lock table muster_lease.leases in access exclusive mode")
			},
			Thaw: func(t testing.TB) { frozen.Close(context.Background()) },
		}
	})
}

// A network that swallows what is sent ends neither a campaign nor a lease for good: attempts fail in time, and
// once new connections get through, the next one succeeds. The lease is renewed by the first that does.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	link := pgtest.NewLink(t, pgtest.Database(t, nil))
	defer link.Close()
	s := world(link.URL).Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	held, err := s.Acquire(ctx, lease.Claim{Name: "held", Holder: "h", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	// Three connections that will be silent.
	var renewed sync.WaitGroup
	for range 3 {
		renewed.Go(func() {
			if err := held.Renew(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	renewed.Wait()
	link.Silence()
	if _, err := s.Acquire(ctx, lease.Claim{Name: "wanted", Holder: "h", TTL: time.Minute}); err == nil || ctx.Err() != nil {
		t.Errorf("a campaign in silence ended with %v", err)
	}
	renewal, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	if err := held.Renew(renewal); err == nil {
		t.Error("a renewal got through silence")
	}
	link.Heal()
	if err := held.Renew(ctx); err != nil {
		t.Error(err)
	}
	wanted, err := s.Acquire(ctx, lease.Claim{Name: "wanted", Holder: "h", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []lease.Held{held, wanted} {
		if err := h.Release(ctx); err != nil {
			t.Error(err)
		}
	}
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), statement); err != nil {
		t.Fatal(err)
	}
}
