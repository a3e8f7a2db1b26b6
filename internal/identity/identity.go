// Package identity says who is at the other end of a connection. Every link is mutual TLS; a
// certificate carries one URI SAN, spiffe://muster/ROLE or spiffe://muster/rep/CELL, and nothing else
// about it counts: not the host name, not the common name. So certificates need no knowledge of
// addresses, and a server that was given the key of another role is not believed.
//
// The package makes TLS configurations, reads the identity of a gRPC peer, and issues certificates of
// a development CA. Which role may do what is decided by the servers.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"context"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Role is what a process is.
type Role string

// The roles.
const (
	BBS          Role = "bbs"
	Auctioneer   Role = "auctioneer"
	Rep          Role = "rep"
	RouteEmitter Role = "route-emitter"
	Gorouter     Role = "gorouter"
	NATS         Role = "nats"
	Operator     Role = "operator"
	// Client is a Cloud Controller bridge or another program that desires work.
	Client Role = "client"
)

// Roles lists every role.
var Roles = []Role{BBS, Auctioneer, Rep, RouteEmitter, Gorouter, NATS, Operator, Client}

// ID is who a certificate speaks for.
type ID struct {
	Role Role
	Cell string // the cell of a rep; empty for every other role
}

const trustDomain = "muster"

// URI returns the SAN of the identity.
func (id ID) URI() *url.URL {
	p := "/" + string(id.Role)
	if id.Cell != "" {
		p += "/" + id.Cell
	}
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: p}
}

// String returns the identity as ROLE or rep/CELL.
func (id ID) String() string { return strings.TrimPrefix(id.URI().Path, "/") }

// Of reads the identity of a certificate.
func Of(cert *x509.Certificate) (ID, error) {
	for _, u := range cert.URIs {
		if u.Scheme != "spiffe" || u.Host != trustDomain {
			continue
		}
		role, cell, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		id := ID{Role: Role(role), Cell: cell}
		if !slices.Contains(Roles, id.Role) {
			return ID{}, fmt.Errorf("certificate %q: unknown role %q", cert.Subject, role)
		}
		if (id.Role == Rep) != (cell != "") {
			return ID{}, fmt.Errorf("certificate %q: SAN %s: a rep, and only a rep, names its cell", cert.Subject, u)
		}
		return id, nil
	}
	return ID{}, fmt.Errorf("certificate %q has no URI SAN spiffe://%s/ROLE: make one with 'muster certs'", cert.Subject, trustDomain)
}

// Files name the PEM files of one identity. They are read again when they change, so that
// certificates can be replaced without a restart; the CA file is read once.
type Files struct {
	CA   string `json:"ca_file" help:"PEM file with the certificates of the trusted CAs"`
	Cert string `json:"cert_file" help:"PEM file with the certificate of this process; read again when it changes"`
	Key  string `json:"key_file" help:"PEM file with the private key of this process; read again when it changes"`
}

// Problems returns what is missing.
func (f Files) Problems(prefix string) []error {
	var errs []error
	for _, m := range []struct{ name, value string }{{"ca_file", f.CA}, {"cert_file", f.Cert}, {"key_file", f.Key}} {
		if m.value == "" {
			errs = append(errs, fmt.Errorf("%s%s is empty: name a PEM file ('muster certs' makes them)", prefix, m.name))
		}
	}
	return errs
}

// Server returns a TLS configuration that asks for a client certificate and accepts the given
// roles; none given means all.
func (f Files) Server(allow ...Role) (*tls.Config, error) {
	return f.config(allow, true)
}

// Client returns a TLS configuration that accepts a server only if it has one of the given roles.
func (f Files) Client(expect ...Role) (*tls.Config, error) {
	if len(expect) == 0 {
		return nil, errors.New("identity: a client must say which role it expects")
	}
	return f.config(expect, false)
}

// ClientByName returns a TLS configuration for servers that have no role: those whose certificate is
// signed by the CA and names the host that was asked for. They may be of others, so TLS 1.2 will do.
func (f Files) ClientByName() (*tls.Config, error) {
	pool, pair, err := f.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		RootCAs:              pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() },
	}, nil
}

// load reads the files.
func (f Files) load() (*x509.CertPool, *reloader, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("read ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("ca_file %s holds no certificate", f.CA)
	}
	pair := &reloader{cert: f.Cert, key: f.Key}
	if _, err := pair.get(); err != nil {
		return nil, nil, err
	}
	return pool, pair, nil
}

func (f Files) config(allow []Role, server bool) (*tls.Config, error) {
	pool, pair, err := f.load()
	if err != nil {
		return nil, err
	}
	usage := x509.ExtKeyUsageServerAuth
	if server {
		usage = x509.ExtKeyUsageClientAuth
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The chain and the role are verified below; host names are not part of an identity.
		InsecureSkipVerify: true,
		ClientAuth:         tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verify(cs.PeerCertificates, pool, usage, allow)
		},
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() },
	}
	return c, nil
}

func verify(chain []*x509.Certificate, pool *x509.CertPool, usage x509.ExtKeyUsage, allow []Role) error {
	if err := signed(chain, pool, usage); err != nil {
		return err
	}
	id, err := Of(chain[0])
	if err != nil {
		return err
	}
	if len(allow) > 0 && !slices.Contains(allow, id.Role) {
		return fmt.Errorf("peer is %s, want one of %v", id, allow)
	}
	return nil
}

// signed checks a chain without regard to whom it speaks for.
func signed(chain []*x509.Certificate, pool *x509.CertPool, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("peer presented no certificate")
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		return fmt.Errorf("peer certificate: %w", err)
	}
	return nil
}

// KeyPair reads a certificate with its key, and returns what reads them again when they change, at most once a
// second.
func KeyPair(certFile, keyFile string) (func() (*tls.Certificate, error), error) {
	pair := &reloader{cert: certFile, key: keyFile}
	_, err := pair.get()
	return pair.get, err
}

// reloader keeps a key pair and reads it again when its files change, at most once a second.
type reloader struct {
	cert, key string

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   time.Time
	checked time.Time
}

func (r *reloader) get() (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pair != nil && time.Since(r.checked) < time.Second {
		return r.pair, nil
	}
	r.checked = time.Now()
	st, err := os.Stat(r.cert)
	if err == nil && r.pair != nil && st.ModTime().Equal(r.stamp) {
		return r.pair, nil
	}
	pair, perr := tls.LoadX509KeyPair(r.cert, r.key)
	if perr != nil {
		if r.pair != nil {
			return r.pair, nil // half-replaced files: the old pair serves until both are there
		}
		return nil, fmt.Errorf("load certificate and key: %w", perr)
	}
	r.pair = &pair
	if err == nil {
		r.stamp = st.ModTime()
	}
	return r.pair, nil
}

// FromContext returns the identity of the peer of a gRPC call, or what NewContext said.
func FromContext(ctx context.Context) (ID, error) {
	if w, ok := ctx.Value(whoKey{}).(who); ok {
		return w.id, w.err
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ID{}, errors.New("call has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return ID{}, errors.New("peer is not authenticated by a certificate")
	}
	return Of(info.State.PeerCertificates[0])
}
