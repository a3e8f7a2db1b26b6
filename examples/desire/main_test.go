package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/bbs"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// world is a BBS on a real database, and a cell that the test plays.
type world struct {
	t       *testing.T
	ca      *identity.CA
	url     string
	address string
	stop    func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir())
	must(t, err)
	w := &world{t: t, ca: ca, url: pgtest.Database(t, nil), address: "127.0.0.1:0"}
	w.serve()
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a replica, on the address of the one before.
func (w *world) serve() {
	w.t.Helper()
	files, err := w.ca.Issue(identity.ID{Role: identity.BBS})
	must(w.t, err)
	cfg := bbs.Defaults()
	cfg.TLS, cfg.ListenAddress, cfg.DebugAddress, cfg.DatabaseURL = files, w.address, "", daemon.Secret(w.url)
	cfg.Encryption = bbs.Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	must(w.t, cfg.Validate())
	ready := make(chan net.Addr, 1)
	cfg.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- bbs.Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), cfg) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			w.t.Errorf("the BBS ended with %v", err)
		}
	})
	w.t.Cleanup(w.stop)
	select {
	case a := <-ready:
		w.address = a.String()
	case err := <-done:
		done <- nil
		w.t.Fatalf("the BBS ended: %v", err)
	}
}

// files returns the certificate of an identity.
func (w *world) files(id identity.ID) bbsclient.Address {
	w.t.Helper()
	f, err := w.ca.Issue(id)
	must(w.t, err)
	return bbsclient.Address{HostPort: w.address, CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
}

func (w *world) dial(id identity.ID) *bbsclient.Client {
	w.t.Helper()
	c, hangUp, err := bbsclient.Dial(w.files(id))
	must(w.t, err)
	w.t.Cleanup(func() { hangUp() })
	return c
}

// desire runs the example in the background, and returns what it prints and how it ends.
func (w *world) desire(args ...string) (*output, <-chan int) {
	at := w.files(identity.ID{Role: identity.Client})
	out, code := &output{more: make(chan struct{}, 1)}, make(chan int, 1)
	args = append([]string{"-bbs", at.HostPort, "-ca", at.CAFile, "-cert", at.CertFile, "-key", at.KeyFile}, args...)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { code <- run(ctx, args, out, out) }()
	w.t.Cleanup(cancel)
	return out, code
}

// output collects what the example prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // capacity 1
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// until waits for a line.
func (o *output) until(t *testing.T, line string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(o.String(), line+"\n") {
		select {
		case <-o.more:
		case <-limit:
			t.Fatalf("no line %q in:\n%s", line, o)
		}
	}
}

// The example follows two instances to RUNNING, through a restart of the BBS.
func TestFollowsThroughARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cell := w.dial(identity.ID{Role: identity.Rep, Cell: "c1"})
	must(t, cell.Heartbeat(t.Context(), cells.Presence{Cell: "c1", RepURL: "https://127.0.0.1:1801"}, time.Minute))
	out, code := w.desire("-process", "p", "-instances", "2")
	out.until(t, "p/0: UNCLAIMED")
	report := func(name lrp.EventName, index int32) {
		t.Helper()
		must(t, cell.Apply(t.Context(), lrp.Event{
			Name: name, Key: lrp.Key{Slot: lrp.Slot{Process: "p", Index: index}, Domain: "example"},
			By: lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", index)), Cell: "c1"}, Routable: true,
			NetInfo: lrp.NetInfo{Address: "10.0.0.1"},
		}))
	}
	report(lrp.Claim, 0)
	report(lrp.Claim, 1)
	out.until(t, "p/1: CLAIMED")
	report(lrp.Start, 1)
	out.until(t, "p/1: RUNNING on c1")
	w.stop()
	w.serve()
	cell = w.dial(identity.ID{Role: identity.Rep, Cell: "c1"})
	report(lrp.Start, 0)
	if got := <-code; got != exitRunning {
		t.Errorf("it ends with %d, want %d:\n%s", got, exitRunning, out)
	}
	out.until(t, "p: runs")
	if n := strings.Count(out.String(), "p/1: RUNNING"); n != 1 {
		t.Errorf("it tells %d times that an instance runs, want once:\n%s", n, out)
	}
}

// What cannot be is said in words, with an exit code of its own.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"refused by field": {[]string{"-process", "a b"}, exitRefused, "process_guid"},
		"nothing runs it":  {[]string{"-process", "q", "-timeout", "1s"}, exitLate, "q/0: UNCLAIMED"},
		"nothing to run":   {[]string{"-process", "r", "-instances", "0"}, exitRunning, "r: runs"},
		"no such flag":     {[]string{"-what"}, exitRefused, "-what"},
		"no certificate":   {[]string{"-cert", "absent"}, exitRefused, "absent"},
	} {
		out, code := w.desire(tc.args...)
		if got := <-code; got != tc.code || !strings.Contains(out.String(), tc.says) {
			t.Errorf("%s: exit code %d with\n%s\nwant %d and %q", name, got, out, tc.code, tc.says)
		}
	}
	_, code := w.desire("-process", "twice", "-instances", "0")
	<-code
	out, code := w.desire("-process", "twice", "-instances", "0")
	if got := <-code; got != exitRefused || !strings.Contains(out.String(), "twice is there already") {
		t.Errorf("desired twice: exit code %d with\n%s", got, out)
	}
}
