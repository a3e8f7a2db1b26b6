package pglease_test

import (
	"context"
	"os"
	"testing"

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
