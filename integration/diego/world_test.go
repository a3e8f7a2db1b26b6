package diego_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"muster/bbs"
	"muster/bbs/bbsclient"
	"muster/integration/diego"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// patience bounds the wait for something that has to happen.
const patience = 60 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is what Diego's clients dial in these tests, and what the server's certificate for them names.
const host = "bbs.service.cf.internal"

// installation is a BBS where a Diego was: with the certificates that its clients have.
type installation struct {
	t     testing.TB
	own   *identity.CA
	diego *foreignCA
	door  string // host:port for Diego's clients
	grpc  string // host:port for ours
	stop  func()
	// clients by the role that they get here.
	cc, operator, auctioneer *diego.Client
}

// install runs a BBS until the test ends.
func install(t testing.TB, change ...func(*bbs.Config)) *installation {
	t.Helper()
	i := &installation{t: t, diego: newForeignCA(t)}
	var err error
	i.own, err = identity.OpenCA(t.TempDir())
	must(t, err)
	cfg := i.config(pgtest.Database(t, nil))
	for _, f := range change {
		f(cfg)
	}
	i.run(cfg)
	i.cc, i.operator, i.auctioneer = i.guest("cloud_controller"), i.guest("cfdot"), i.guest("auctioneer")
	return i
}

func (i *installation) config(database string) *bbs.Config {
	i.t.Helper()
	files, err := i.own.Issue(identity.ID{Role: identity.BBS})
	must(i.t, err)
	server := i.diego.issue(i.t, certificate{name: "bbs", dns: []string{host}, server: true})
	cfg := bbs.Defaults()
	cfg.TLS, cfg.ListenAddress, cfg.DebugAddress, cfg.DatabaseURL = files, "127.0.0.1:0", "", daemon.Secret(database)
	cfg.Encryption = bbs.Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	cfg.ConvergeInterval = daemon.Duration(time.Hour)
	cfg.Diego = bbs.Diego{
		ListenAddress: "127.0.0.1:0", Cert: server.cert, Key: server.key, ClientCA: i.diego.file,
		ClientRoles: map[string]identity.Role{
			"cloud_controller": identity.Client, "cfdot": identity.Operator, "auctioneer": identity.Auctioneer,
			"route-emitter.service.cf.internal": identity.RouteEmitter,
		},
	}
	must(i.t, cfg.Validate())
	return cfg
}

func (i *installation) run(cfg *bbs.Config) {
	i.t.Helper()
	type addresses struct{ grpc, door string }
	ready := make(chan addresses, 1)
	var door string
	cfg.DiegoReady = func(a net.Addr) { door = a.String() }
	cfg.Ready = func(a net.Addr) { ready <- addresses{a.String(), door} }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- bbs.Run(ctx, quiet(), cfg) }()
	i.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			i.t.Errorf("the BBS ended with %v", err)
		}
	})
	i.t.Cleanup(func() { i.stop() })
	select {
	case a := <-ready:
		i.grpc, i.door = a.grpc, a.door
	case err := <-done:
		done <- nil
		i.t.Fatalf("the BBS ended: %v", err)
	}
}

func quiet() *slog.Logger {
	if os.Getenv("BBS_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// guest returns a client with a certificate of Diego's CA.
func (i *installation) guest(name string, dns ...string) *diego.Client {
	i.t.Helper()
	return i.client(i.diego.issue(i.t, certificate{name: name, dns: dns}).load(i.t))
}

// cell returns a client with a certificate of ours, which speaks Diego's language all the same.
func (i *installation) cell(id string) *diego.Client {
	i.t.Helper()
	files, err := i.own.Issue(identity.ID{Role: identity.Rep, Cell: id})
	must(i.t, err)
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	must(i.t, err)
	return i.client(pair)
}

// tls is how a client checks the server, as Diego's do: by the CA of the installation and its host.
func (i *installation) tls(pairs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: i.diego.pool, ServerName: host, Certificates: pairs}
}

func (i *installation) client(pairs ...tls.Certificate) *diego.Client {
	c := diego.New(i.door, i.tls(pairs...))
	i.t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// ours returns a client over gRPC.
func (i *installation) ours(id identity.ID) *bbsclient.Client {
	i.t.Helper()
	files, err := i.own.Issue(id)
	must(i.t, err)
	config, err := files.Client(identity.BBS)
	must(i.t, err)
	conn, err := daemon.DialGRPC(i.grpc, config)
	must(i.t, err)
	i.t.Cleanup(func() { conn.Close() })
	return bbsclient.New(conn)
}

// foreignCA is a CA that makes certificates without an identity of ours.
type foreignCA struct {
	dir, file string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	pool      *x509.CertPool
	serial    int64
}

func newForeignCA(t testing.TB) *foreignCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "service_cf_internal_ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	ca := &foreignCA{dir: t.TempDir(), key: key, pool: x509.NewCertPool(), serial: 1}
	ca.cert, err = x509.ParseCertificate(der)
	must(t, err)
	ca.pool.AddCert(ca.cert)
	ca.file = ca.write(t, "ca.crt", "CERTIFICATE", der)
	return ca
}

func (ca *foreignCA) write(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(ca.dir, name)
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}

// certificate is what one says.
type certificate struct {
	name   string
	dns    []string
	uri    string
	server bool
}

type pair struct{ cert, key string }

func (p pair) load(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(p.cert, p.key)
	must(t, err)
	return c
}

func (ca *foreignCA) issue(t testing.TB, c certificate) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.serial), Subject: pkix.Name{CommonName: c.name}, DNSNames: c.dns,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if c.server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if c.uri != "" {
		u, err := url.Parse(c.uri)
		must(t, err)
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	must(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	base := big.NewInt(ca.serial).String()
	return pair{ca.write(t, base+".crt", "CERTIFICATE", der), ca.write(t, base+".key", "EC PRIVATE KEY", keyDER)}
}
