package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/cells/credential"
	"muster/cells/credential/issuer"
	"muster/cells/proxy"
	"muster/internal/identity"
)

const guid = "9d2e1f00-0000-4000-8000-000000000001"

// world is a relay with a CA whose certificates it uses.
type world struct {
	t     testing.TB
	relay *Relay
	store *issuer.Store
	roots *x509.CertPool
}

func testConfig() Config {
	return Config{MaxConnections: 100, MaxTotal: 1000, HandshakeTimeout: 5 * time.Second, ConnectTimeout: 250 * time.Millisecond, IdleTimeout: time.Minute}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	w := &world{t: t}
	w.store, w.roots = newStore(t)
	var err error
	w.relay, err = New(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), NewMeter(prometheus.NewRegistry()))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.relay.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		w.relay.Release()
		w.relay.Drain(ctx)
	})
	return w
}

func newStore(t testing.TB) (*issuer.Store, *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	_, err := identity.OpenCA(dir)
	must(t, err)
	a, err := issuer.Open(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	must(t, err)
	s, err := issuer.NewStore(a, filepath.Join(dir, "creds"), 24*time.Hour)
	must(t, err)
	return s, poolOf(t, filepath.Join(dir, "ca.crt"))
}

func poolOf(t testing.TB, file string) *x509.CertPool {
	t.Helper()
	pool, err := Clients{CA: file}.Load()
	must(t, err)
	return pool
}

func wanted(id string) issuer.Wanted {
	return issuer.Wanted{Proxy: true, Subject: credential.Subject{Instance: id, Address: netip.MustParseAddr("127.0.0.1")}}
}

// certificate makes the certificate of an instance and returns its file.
func (w *world) certificate(id string) string {
	w.t.Helper()
	_, err := w.store.Ensure(wanted(id))
	must(w.t, err)
	return w.store.Path(id, issuer.IdentityFile)
}

// freeAddress returns an address of this machine on which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	n := addresses.Add(1)
	l, err := net.Listen("tcp", fmt.Sprintf("127.77.%d.%d:0", n>>8&0xff, n&0xff))
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// addresses counts what freeAddress has returned: each is on an IP address of its own, so that no other listener
// of these tests can take it meanwhile.
var addresses atomic.Uint32

// front sets a container with one listener in front of a target, and returns the listener's address.
func (w *world) front(id, target string, change func(*proxy.Listener)) string {
	w.t.Helper()
	l := proxy.Listener{Address: freeAddress(w.t), Target: target, Certificate: w.certificate(id)}
	if change != nil {
		change(&l)
	}
	must(w.t, w.relay.Set(proxy.Container{ID: id, Listeners: []proxy.Listener{l}}))
	return l.Address
}

// app accepts connections and serves each with f.
func app(t testing.TB, f func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// echo sends back what it gets, and ends when its client does.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// client is what a router has: it knows the CA and the instance.
func (w *world) client(id string) *tls.Config { return &tls.Config{RootCAs: w.roots, ServerName: id} }

func (w *world) dial(address string, cfg *tls.Config) *tls.Conn {
	w.t.Helper()
	c, err := tls.Dial("tcp", address, cfg)
	must(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	must(w.t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c
}

// say sends a word and returns what comes back.
func say(t testing.TB, c net.Conn, word string) string {
	t.Helper()
	_, err := io.WriteString(c, word)
	must(t, err)
	got := make([]byte, len(word))
	_, err = io.ReadFull(c, got)
	must(t, err)
	return string(got)
}

// until waits for something that happens soon after its cause.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("ended")
		}
	}
}
