package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/cells/credential/issuer"
	"muster/cells/proxy"
)

// A certificate that was replaced is used at once; connections that are there go on.
func TestReplacedCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	address := w.front(guid, app(t, echo), nil)
	old := w.dial(address, w.client(guid))
	first := old.ConnectionState().PeerCertificates[0]
	must(t, w.store.Remove(guid))
	if _, err := tls.Dial("tcp", address, w.client(guid)); err == nil {
		t.Error("a handshake without a certificate")
	}
	w.certificate(guid)
	if w.dial(address, w.client(guid)).ConnectionState().PeerCertificates[0].Equal(first) {
		t.Error("the certificate that was replaced is still used")
	}
	must(t, w.store.Disown(wanted(guid)))
	var name x509.HostnameError
	if _, err := tls.Dial("tcp", address, w.client(guid)); !errors.As(err, &name) {
		t.Errorf("a disowned container answers: %v", err)
	}
	say(t, old, "still here")
}

// A resumed session would show no certificate: it would believe an instance that was disowned, or another one.
func TestNothingIsResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	address := w.front(guid, app(t, echo), nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := w.client(guid)
		cfg.MaxVersion, cfg.ClientSessionCache = version, tls.NewLRUClientSessionCache(8)
		for range 2 {
			c := w.dial(address, cfg)
			say(t, c, "x") // what comes after the handshake is read with it
			if c.ConnectionState().DidResume {
				t.Errorf("a session of version %x was resumed", version)
			}
			c.Close()
		}
	}
}

func TestProtocols(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	target := app(t, echo)
	both := w.front("both", target, func(l *proxy.Listener) { l.Protocols = []string{"h2", "http/1.1"} })
	none := w.front("none", target, nil)
	for _, tt := range []struct {
		address, id string
		offered     []string
		want        string
	}{
		{both, "both", []string{"h2"}, "h2"},
		{both, "both", []string{"http/1.1", "h2"}, "h2"},
		{both, "both", []string{"http/1.1"}, "http/1.1"},
		{both, "both", []string{"spdy/1"}, ""},
		{both, "both", nil, ""},
		{none, "none", []string{"h2", "http/1.1"}, ""},
	} {
		cfg := w.client(tt.id)
		cfg.NextProtos = tt.offered
		c := w.dial(tt.address, cfg)
		if got := c.ConnectionState().NegotiatedProtocol; got != tt.want || say(t, c, "x") != "x" {
			t.Errorf("%s, %v: got %q, want %q", tt.id, tt.offered, got, tt.want)
		}
	}
}

func TestWeakTLSIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	address := w.front(guid, app(t, echo), nil)
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.1": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		"CBC": func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}
		},
	} {
		cfg := w.client(guid)
		change(cfg)
		if _, err := tls.Dial("tcp", address, cfg); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg := w.client(guid)
	cfg.MaxVersion, cfg.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	say(t, w.dial(address, cfg), "strong enough")
}

// connect tells how a client with a certificate fares: with TLS 1.3 it learns that with the first answer.
func (w *world) connect(address, id string, cert *tls.Certificate) error {
	cfg := w.client(id)
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	c, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

func TestClientsShowTheirCertificates(t *testing.T) {
	t.Parallel()
	routers, _ := newStore(t)
	strangers, _ := newStore(t)
	load := func(s *issuer.Store, name string) (*tls.Certificate, string) {
		_, err := s.Ensure(wanted(name))
		must(t, err)
		pair, err := tls.LoadX509KeyPair(s.Path(name, issuer.IdentityFile), s.Path(name, issuer.IdentityFile))
		must(t, err)
		return &pair, s.Path(name, "")
	}
	router, dir := load(routers, "router.test")
	other, _ := load(routers, "other.test")
	stranger, strange := load(strangers, "router.test")
	// The CA is the third of the files' levels: creds/NAME is beside ca.crt.
	caOf := func(dir string) string { return filepath.Join(dir, "..", "..", "ca.crt") }
	ca := filepath.Join(t.TempDir(), "clients.crt")
	use := func(dir string) {
		text, err := os.ReadFile(caOf(dir))
		must(t, err)
		must(t, os.WriteFile(ca+".new", text, 0o600))
		must(t, os.Rename(ca+".new", ca))
	}
	use(dir)
	cfg := testConfig()
	cfg.Clients = Clients{CA: ca, Names: []string{"router.test"}}
	w := newWorld(t, cfg)
	target := app(t, echo)
	address := w.front("asking", target, func(l *proxy.Listener) { l.VerifyClients = true })
	if err := w.connect(address, "asking", router); err != nil {
		t.Errorf("the router: %v", err)
	}
	for want, cert := range map[string]*tls.Certificate{
		"certificate required": nil, "unknown certificate authority": stranger, "bad certificate": other,
	} {
		if err := w.connect(address, "asking", cert); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := w.connect(w.front("not-asking", target, nil), "not-asking", nil); err != nil {
		t.Errorf("where none is asked for: %v", err)
	}
	use(strange)
	if err := w.connect(address, "asking", stranger); err != nil {
		t.Errorf("after the CA was replaced: %v", err)
	}
	// A container that does not listen is told in the same way, only later.
	gone := w.front("gone", freeAddress(t), func(l *proxy.Listener) { l.VerifyClients = true })
	if err := w.connect(gone, "gone", stranger); err == nil {
		t.Error("nobody listens, and the client is answered")
	}
}
