package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// suites are those of TLS 1.2; those of 1.3 are all good. Which half is used depends on the certificate's key.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
}

// stamp tells one version of a file from another; one that was replaced differs.
type stamp struct {
	inode    uint64
	size     int64
	modified time.Time
}

func stampOf(name string) (stamp, error) {
	st, err := os.Stat(name)
	if err != nil {
		return stamp{}, err
	}
	s := stamp{size: st.Size(), modified: st.ModTime()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s, nil
}

// Clients are the clients that a listener with VerifyClients accepts. The zero Clients accept nobody.
type Clients struct {
	CA    string   // PEM file; read again when it was replaced
	Names []string // one of them must be a name of the certificate, exactly; empty: any certificate will do
}

// Load reads the CA.
func (c Clients) Load() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if c.CA == "" {
		return pool, nil
	}
	text, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("read client_ca_file: %w", err)
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("client_ca_file %s holds no certificate", c.CA)
	}
	return pool, nil
}

var errNotExpected = errors.New("the client's certificate has none of the expected names")

func (c Clients) verify(cs tls.ConnectionState) error {
	if len(c.Names) == 0 {
		return nil
	}
	cert := cs.PeerCertificates[0] // there is one: it is required
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(c.Names, n) }) {
		return errNotExpected
	}
	return nil
}

// configs makes the TLS configurations of one listener, anew when its files were replaced. Nothing is ever
// resumed: a resumed session shows no certificate, so that who it was begun with would be believed for ever,
// and this process answers for many.
type configs struct {
	certificate string
	protocols   []string
	verify      bool
	clients     Clients

	mu           sync.Mutex
	made         [2]stamp // of the certificate and of the CA of clients
	with, silent *tls.Config
}

// For returns the configuration for a client that offers protocols. A certificate that cannot be read is an
// error, whatever there was before: it may have been replaced so that the old one is not used any more.
func (c *configs) For(offered []string) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refresh(); err != nil {
		c.with, c.silent = nil, nil
		return nil, err
	}
	for _, p := range offered {
		if slices.Contains(c.protocols, p) {
			return c.with, nil
		}
	}
	return c.silent, nil
}

func (c *configs) refresh() error {
	var now [2]stamp
	var err error
	if now[0], err = stampOf(c.certificate); err != nil {
		return err
	}
	if c.verify && c.clients.CA != "" {
		if now[1], err = stampOf(c.clients.CA); err != nil {
			return err
		}
	}
	if c.with != nil && now == c.made {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certificate, c.certificate)
	if err != nil {
		return err
	}
	made := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, CipherSuites: suites,
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
	if c.verify {
		if made.ClientCAs, err = c.clients.Load(); err != nil {
			return err
		}
		made.ClientAuth, made.VerifyConnection = tls.RequireAndVerifyClientCert, c.clients.verify
	}
	c.silent = made
	c.with = made.Clone()
	c.with.NextProtos = c.protocols
	c.made = now
	return nil
}
