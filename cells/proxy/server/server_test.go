package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"muster/cells/credential"
	"muster/cells/credential/issuer"
	"muster/cells/proxy"
	"muster/cells/proxy/internal/handover"
	"muster/internal/identity"
	"muster/internal/process"
)

// programs are two versions of cell-proxy.
var programs [2]string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cell-proxy")
	if err != nil {
		panic(err)
	}
	for i := range programs {
		programs[i] = filepath.Join(dir, fmt.Sprint("cell-proxy-", i))
		build := exec.Command("go", "build", "-ldflags", fmt.Sprintf("-X muster/internal/daemon.Version=v%d", i), "-o", programs[i], "muster/cells/proxy/cmd/cell-proxy")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s\n", out)
			os.Exit(1)
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const guid = "9d2e"

// cell is a directory of a proxy, and an app with its certificate.
type cell struct {
	t         testing.TB
	dir       string
	client    *tls.Config
	container proxy.Container
	address   string
}

func newCell(t testing.TB) *cell {
	t.Helper()
	ca := t.TempDir()
	_, err := identity.OpenCA(ca)
	must(t, err)
	a, err := issuer.Open(filepath.Join(ca, "ca.crt"), filepath.Join(ca, "ca.key"))
	must(t, err)
	store, err := issuer.NewStore(a, filepath.Join(ca, "creds"), time.Hour)
	must(t, err)
	_, err = store.Ensure(issuer.Wanted{Proxy: true, Subject: credential.Subject{Instance: guid, Address: netip.MustParseAddr("127.0.0.1")}})
	must(t, err)
	pem, err := os.ReadFile(filepath.Join(ca, "ca.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	app, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { app.Close() })
	go func() {
		for {
			c, err := app.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	free.Close()
	dir, err := os.MkdirTemp("", "cp")
	must(t, err)
	c := &cell{t: t, dir: dir, client: &tls.Config{RootCAs: roots, ServerName: guid}, address: free.Addr().String()}
	c.container = proxy.Container{ID: guid, Listeners: []proxy.Listener{{
		Address: c.address, Target: app.Addr().String(), Certificate: store.Path(guid, issuer.IdentityFile),
	}}}
	t.Cleanup(c.endAll)
	return c
}

func (c *cell) process(version int) proxy.Process {
	return proxy.Process{Dir: c.dir, Program: programs[version], Version: fmt.Sprint("v", version)}
}

func (c *cell) open(version int) (*proxy.Client, proxy.Self) {
	c.t.Helper()
	client, err := proxy.Open(context.Background(), c.process(version))
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(c.dir, proxy.LogFile))
		c.t.Fatalf("%v\n%s", err, log)
	}
	self, err := client.Self(context.Background())
	must(c.t, err)
	return client, self
}

// running returns the processes of the directory.
func (c *cell) running() (pids []int) {
	all, err := process.All()
	must(c.t, err)
	for pid, args := range all {
		if strings.Contains(strings.Join(args, " "), "-dir "+c.dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (c *cell) endAll() {
	for _, pid := range c.running() {
		c.kill(pid)
	}
	os.RemoveAll(c.dir)
}

func (c *cell) kill(pid int) {
	c.t.Helper()
	meant := func() bool { return true }
	must(c.t, process.End(context.Background(), pid, meant, process.Step{Signal: syscall.SIGKILL, Wait: 10 * time.Second}))
}

// connect makes a connection through the proxy and says something.
func (c *cell) connect() (*tls.Conn, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", c.address, c.client)
	if err != nil {
		return nil, err
	}
	if err := say(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func say(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "word"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Callers at once get one process, and it outlives them.
func TestOneProcessForAll(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if _, err := proxy.Open(context.Background(), c.process(0)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	until(t, "one process", func() bool { return len(c.running()) == 1 })
	out, err := exec.Command(programs[0], "-dir", c.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another cell-proxy has it") {
		t.Errorf("a second process: %v, %s", err, out)
	}
}

// A process that was killed comes back with what it did before, on the same ports.
func TestKilled(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	client, self := c.open(0)
	must(t, client.Set(t.Context(), c.container))
	before, err := c.connect()
	must(t, err)
	defer before.Close()
	// Half-written and foreign files do no harm.
	for name, text := range map[string]string{"x.json.new": "{", "y.json": "{", "z.json": `{"id":"other"}`} {
		must(t, os.WriteFile(filepath.Join(c.dir, proxy.ContainersDir, name), []byte(text), 0o600))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var keeper sync.WaitGroup
	keeper.Go(func() { must(t, proxy.Keep(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), c.process(0))) })
	defer keeper.Wait()
	defer cancel()
	c.kill(self.PID)
	if say(before) == nil {
		t.Error("a connection outlived its process")
	}
	until(t, "back", func() bool {
		conn, err := c.connect()
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	all, err := client.List(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != guid || all[0].Problems != nil {
		t.Errorf("%+v %v", all, err)
	}
	must(t, client.Remove(t.Context(), guid))
	must(t, client.Remove(t.Context(), guid))
	if _, err := net.Dial("tcp", c.address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after its removal: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, proxy.ContainersDir, guid+".json")); err == nil {
		t.Error("it is still in the directory")
	}
}

// While process after process takes over, nobody is refused, and old connections go on.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	client, first := c.open(0)
	must(t, client.Set(t.Context(), c.container))
	old, err := c.connect()
	must(t, err)
	defer old.Close()
	var made atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := c.connect()
				if err != nil {
					t.Errorf("connection %d: %v", made.Load(), err)
					return
				}
				made.Add(1)
				conn.Close()
			}
		})
	}
	load.Go(func() { // orders are lost as little as connections
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			other := proxy.Container{ID: fmt.Sprint("other-", i), Listeners: []proxy.Listener{}}
			if err := errors.Join(client.Set(context.Background(), other), client.Remove(context.Background(), other.ID)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	pids := map[int]bool{first.PID: true}
	for i := range 6 {
		_, self := c.open(1 - i%2)
		if pids[self.PID] || self.Version != fmt.Sprint("v", 1-i%2) {
			t.Errorf("takeover %d: %+v", i, self)
		}
		pids[self.PID] = true
		at := made.Load()
		until(t, "served by the successor", func() bool { return made.Load() > at+20 })
	}
	close(stop)
	load.Wait()
	t.Logf("%d connections, %d processes", made.Load(), len(pids))
	must(t, say(old))
	old.Close()
	until(t, "only the last process", func() bool { return len(c.running()) == 1 })
	if all, err := client.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v %v", all, err)
	}
}

// A successor that gives up half-way leaves everything as it was.
func TestASuccessorThatFails(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	client, self := c.open(0)
	must(t, client.Set(t.Context(), c.container))
	for _, halfway := range []bool{false, true} {
		conn, err := net.DialUnix(handover.Network, nil, &net.UnixAddr{Net: handover.Network, Name: filepath.Join(c.dir, proxy.HandoverFile)})
		must(t, err)
		if halfway {
			files, err := handover.Receive(conn, 10*time.Second)
			must(t, err)
			if len(files) != 4 {
				t.Errorf("%d files, want the lock, two sockets, and a listener", len(files))
			}
			for _, f := range files {
				f.Close()
			}
		}
		conn.Close()
		for range 3 {
			conn, err := c.connect()
			must(t, err)
			conn.Close()
		}
		if now, err := client.Self(t.Context()); err != nil || now.PID != self.PID {
			t.Errorf("%+v %v", now, err)
		}
		must(t, client.Set(t.Context(), c.container))
	}
}

// SIGTERM ends it once its connections have ended, or after a while.
func TestTerminated(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	p := c.process(0)
	p.Args = []string{"-stop-timeout", "500ms"}
	client, err := proxy.Open(context.Background(), p)
	must(t, err)
	must(t, client.Set(t.Context(), c.container))
	conn, err := c.connect()
	must(t, err)
	defer conn.Close()
	self, err := client.Self(t.Context())
	must(t, err)
	begun := time.Now()
	must(t, syscall.Kill(self.PID, syscall.SIGTERM))
	until(t, "ended", func() bool { return len(c.running()) == 0 })
	if d := time.Since(begun); d < 500*time.Millisecond {
		t.Errorf("it ended after %v with a connection", d)
	}
	if say(conn) == nil {
		t.Error("a connection outlived its process")
	}
}

func TestRefusedOrders(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	client, _ := c.open(0)
	for want, change := range map[string]func(*proxy.Container){
		`id "../x"`:           func(c *proxy.Container) { c.ID = "../x" },
		"listeners[0].target": func(c *proxy.Container) { c.Listeners[0].Target = "nowhere" },
		"is there twice":      func(c *proxy.Container) { c.Listeners = append(c.Listeners, c.Listeners[0]) },
		"inside without":      func(c *proxy.Container) { c.Listeners[0].Inside = true },
		"certificate":         func(c *proxy.Container) { c.Listeners[0].Certificate = "x.pem" },
	} {
		bad := c.container
		bad.Listeners = append([]proxy.Listener{}, bad.Listeners...)
		change(&bad)
		if err := client.Set(t.Context(), bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	taken := c.container
	taken.ID = "second"
	must(t, client.Set(t.Context(), c.container))
	if err := client.Set(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	cfg := Defaults()
	cfg.Dir = "/run/cell-proxy"
	must(t, cfg.Validate())
	cfg.Dir, cfg.MaxConnections, cfg.ConnectTimeout, cfg.ClientNames = "x", 0, 0, []string{"r"}
	err := cfg.Validate()
	for _, want := range []string{`dir "x"`, "max_connections 0", "connect_timeout 0s", "client_ca_file is empty"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
