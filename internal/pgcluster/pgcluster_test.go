package pgcluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// newDir returns a short directory that the server's account can enter.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgc-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Stop(context.Background(), dir); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

func open(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func TestLifeOfACluster(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: newDir(t), Detached: true}
	c := open(t, cfg)
	if got := query(t, c.URL("postgres"), "show fsync"); got != "on" {
		t.Errorf("fsync is %s, want on unless asked otherwise", got)
	}
	for range 2 { // the second time it is there
		if err := c.EnsureDatabase(t.Context(), "kept"); err != nil {
			t.Fatal(err)
		}
	}
	query(t, c.URL("kept"), "select 'made' from (select 1) x")

	first := c.PID()
	if again := open(t, cfg); again.PID() != first {
		t.Errorf("a second Open started pid %d, want the running %d reused", again.PID(), first)
	}

	// Killed: its pid file and perhaps its children are still there.
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.exited
	c = open(t, cfg)
	if c.PID() == first {
		t.Fatal("the killed server is still listed")
	}
	if got := query(t, c.URL("kept"), "select current_database()::text"); got != "kept" {
		t.Errorf("after the kill: database %q", got)
	}

	// Stopped by directory, as another process would; twice is fine.
	for range 2 {
		if err := Stop(t.Context(), cfg.Dir); err != nil {
			t.Fatal(err)
		}
	}
	if pids := workersIn(c.data); len(pids) > 0 {
		t.Errorf("processes %v are left after Stop", pids)
	}
}

func TestForeignPidFileIsNotBelieved(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: newDir(t), FastUnsafe: true}
	c := open(t, cfg)
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The number of a killed server's pid file has gone to another process: this one.
	stale := strings.Replace("PID\n"+c.data+"\n", "PID", "1", 1)
	if err := os.WriteFile(filepath.Join(c.data, "postmaster.pid"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	c = open(t, cfg)
	query(t, c.URL("postgres"), "select 'up'")
}

func TestWhoMayConnect(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	c := open(t, Config{Dir: newDir(t), Port: port, FastUnsafe: true})
	url, err := c.TCPURL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	query(t, url, "select 'the password is enough over TCP'")
	wrong := strings.Replace(url, dbUser+":", dbUser+":x", 1)
	if _, err := pgx.Connect(t.Context(), wrong); err == nil {
		t.Error("a wrong password was accepted over TCP")
	}
	if os.Geteuid() != 0 {
		return // another account is out of reach
	}
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Fatalf("psql: %v: %s", err, remedy)
	}
	cmd := exec.Command(psql, "-c", "select 1", c.URL("postgres"))
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Peer authentication failed") {
		t.Errorf("another account got in over the socket: %v\n%s", err, out)
	}
}

func TestClearErrors(t *testing.T) {
	t.Parallel()
	long := filepath.Join("/tmp", strings.Repeat("x", 120))
	closed := filepath.Join(newDir(t), "closed")
	if err := os.MkdirAll(filepath.Join(closed, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"no directory":         {Config{}, "name a directory"},
		"name too long":        {Config{Dir: long}, "shorter directory"},
		"port out of range":    {Config{Dir: "/tmp/x", Port: 70000}, "port 70000"},
		"account cannot enter": {Config{Dir: filepath.Join(closed, "c")}, "cannot enter"},
	} {
		if name == "account cannot enter" && os.Geteuid() != 0 {
			continue
		}
		if _, err := Open(t.Context(), tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want it to say %q", name, err, tc.want)
		}
	}
}
