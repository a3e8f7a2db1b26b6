// Package pgtest gives tests a real PostgreSQL: one private server for all tests of a process,
// started when first needed, and a fresh database for each test.
//
// Nothing is left behind, however the process ends: a watchdog outside of it notices its end, stops
// the server and removes its files. There is no skipping: without PostgreSQL the tests fail and say
// how to install it.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"muster/internal/pgcluster"
)

// shared starts the server of this process once.
var shared = sync.OnceValues(func() (*pgcluster.Cluster, error) { return open() })

var databases atomic.Int64

// Database returns the URL of a fresh database that migrate, unless nil, has prepared.
func Database(t testing.TB, migrate func(ctx context.Context, url string) error) string {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatalf("tests need PostgreSQL: %v", err)
	}
	return fresh(t, c, migrate)
}

// Cluster returns a server that belongs to this test alone, to be stopped and killed at will.
func Cluster(t testing.TB) *pgcluster.Cluster {
	t.Helper()
	c, err := open()
	if err != nil {
		t.Fatalf("tests need PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return c
}

// DatabaseOn is Database on a given server.
func DatabaseOn(t testing.TB, c *pgcluster.Cluster, migrate func(ctx context.Context, url string) error) string {
	t.Helper()
	return fresh(t, c, migrate)
}

func fresh(t testing.TB, c *pgcluster.Cluster, migrate func(ctx context.Context, url string) error) string {
	t.Helper()
	name := "t" + strconv.FormatInt(databases.Add(1), 10)
	if err := c.EnsureDatabase(context.Background(), name); err != nil {
		t.Fatal(err)
	}
	url := c.URL(name)
	if migrate != nil {
		if err := migrate(context.Background(), url); err != nil {
			t.Fatalf("prepare the test's database: %v", err)
		}
	}
	return url
}

// open starts a server in a directory of its own with a watchdog beside it.
func open() (*pgcluster.Cluster, error) {
	dir, err := os.MkdirTemp("/tmp", "pgtest-") // not TMPDIR: the socket's name must stay short
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := watchdog(dir); err != nil {
		return nil, err
	}
	return pgcluster.Open(context.Background(), pgcluster.Config{Dir: dir, FastUnsafe: true})
}

// script waits for the end of its input, which comes with the end of the test process, and then
// clears everything away.
const script = `cat >/dev/null
pid=$(head -n1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink /proc/$pid/cwd)" = "$1/data" ]; then
	kill -QUIT "$pid" 2>/dev/null
	while [ "$(readlink /proc/$pid/cwd 2>/dev/null)" = "$1/data" ]; do sleep 0.05; done
fi
rm -rf "$1"`

func watchdog(dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", script, "pgtest-watchdog", dir)
	// A session of its own: what kills the test's process group must not kill it.
	cmd.Stdin, cmd.Dir, cmd.SysProcAttr = r, "/", &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the watchdog of PostgreSQL: %w", err)
	}
	// The write end stays open, and the process unreaped, for as long as this process lives.
	held.Store(dir, w)
	return nil
}

// held keeps the write ends from being collected and closed.
var held sync.Map
