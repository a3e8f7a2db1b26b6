package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// Guests are programs whose certificates were made by somebody else's CA, before or beside ours, and name
// no role. Which one they have is said here.
type Guests struct {
	CA    string          // PEM file with the certificates of their CAs; empty: there are no guests
	Roles map[string]Role // by common name or DNS name of the certificate; all others have none
}

// GuestRoles lists the roles that a guest may have. Rep is none of them: which cell it is cannot be read
// from a certificate that was not made for us, and a cell's rights end at its own records.
var GuestRoles = []Role{Client, Operator, Auctioneer, RouteEmitter}

// Problems returns what is wrong; prefix begins the names of the settings.
func (g Guests) Problems(prefix string) []error {
	var errs []error
	switch {
	case g.CA == "" && len(g.Roles) > 0:
		errs = append(errs, fmt.Errorf("%sclient_ca_file is empty: name the PEM file of the CA that signed the certificates of %sclient_roles", prefix, prefix))
	case g.CA != "" && len(g.Roles) == 0:
		errs = append(errs, fmt.Errorf("%sclient_roles is empty: give a role to the common name or a DNS name of each certificate that %sclient_ca_file is for", prefix, prefix))
	}
	for _, name := range slices.Sorted(maps.Keys(g.Roles)) {
		if role := g.Roles[name]; name == "" || !slices.Contains(GuestRoles, role) {
			errs = append(errs, fmt.Errorf("%sclient_roles %q: %q: want the name of a certificate and one of the roles %v", prefix, name, role, GuestRoles))
		}
	}
	return errs
}

// Gate is a server's side of mutual TLS that lets guests in beside the identities of our own.
type Gate struct {
	own, guests *x509.CertPool // guests is nil when there are none
	roles       map[string]Role
	pair        *reloader
}

// NewGate reads the files.
func NewGate(f Files, g Guests) (*Gate, error) {
	own, pair, err := f.load()
	if err != nil {
		return nil, err
	}
	gate := &Gate{own: own, roles: g.Roles, pair: pair}
	if g.CA == "" {
		return gate, nil
	}
	pem, err := os.ReadFile(g.CA)
	if err != nil {
		return nil, fmt.Errorf("read client_ca_file: %w", err)
	}
	if gate.guests = x509.NewCertPool(); !gate.guests.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client_ca_file %s holds no certificate", g.CA)
	}
	return gate, nil
}

// TLS returns a configuration that asks for a certificate of one of the CAs. Guests may be old: TLS 1.2
// will do.
func (g *Gate) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		ClientAuth:     tls.RequireAnyClientCert, // verified below
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.pair.get() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			err := verify(cs.PeerCertificates, g.own, x509.ExtKeyUsageClientAuth, nil)
			if err == nil || g.guests == nil {
				return err
			}
			return signed(cs.PeerCertificates, g.guests, x509.ExtKeyUsageClientAuth)
		},
	}
}

// Of says who a chain speaks for that TLS let in. The URI SAN counts only if our own CA signed it: another
// one can make guests, and none of us.
func (g *Gate) Of(chain []*x509.Certificate) (ID, error) {
	if verify(chain, g.own, x509.ExtKeyUsageClientAuth, nil) == nil {
		return Of(chain[0])
	}
	if len(chain) == 0 {
		return ID{}, errors.New("peer presented no certificate")
	}
	if g.guests == nil {
		return ID{}, errors.New("peer certificate: not signed by the CA of this deployment")
	}
	// A name counts only if the CA of the guests signed it, whatever TLS let in some time ago.
	if err := signed(chain, g.guests, x509.ExtKeyUsageClientAuth); err != nil {
		return ID{}, err
	}
	for _, name := range append([]string{chain[0].Subject.CommonName}, chain[0].DNSNames...) {
		if role, ok := g.roles[name]; ok && name != "" {
			return ID{Role: role}, nil
		}
	}
	return ID{}, fmt.Errorf("certificate %q has no role: give its common name or one of its DNS names %v one in client_roles", chain[0].Subject, chain[0].DNSNames)
}

// whoKey is the key of NewContext.
type whoKey struct{}

type who struct {
	id  ID
	err error
}

// NewContext returns a context in which FromContext answers with id and err, for calls that do not come
// over gRPC.
func NewContext(ctx context.Context, id ID, err error) context.Context {
	return context.WithValue(ctx, whoKey{}, who{id, err})
}
