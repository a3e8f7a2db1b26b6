// Package issuer makes the certificates of instances with an intermediate CA, and keeps them in files: renewed
// in time, replaced so that no reader ever sees half of one, and found again by a rep that starts anew. What
// they say, and when they are due, is decided by package credential.
package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/google/uuid"

	"muster/cells/credential"
	"muster/internal/daemon"
)

// Config says with what certificates are made, and for how long.
type Config struct {
	CACert   string          `json:"ca_cert_file" help:"PEM file with the intermediate CA of instance certificates; empty: instances get none"`
	CAKey    string          `json:"ca_key_file" help:"PEM file with the private key of that CA"`
	Dir      string          `json:"dir" help:"directory for the certificates and keys of instances, on a tmpfs; belongs to this cell alone"`
	Validity daemon.Duration `json:"validity_period" help:"how long a certificate is valid, 1m to 8760h; shorter: a stolen key is of less use, and apps that do not read theirs again fail sooner"`
}

// Defaults returns a configuration without CA.
func Defaults() Config { return Config{Validity: daemon.Duration(24 * time.Hour)} }

// Enabled tells whether instances get certificates.
func (c Config) Enabled() bool { return c.CACert != "" || c.CAKey != "" }

// Problems returns what is wrong, each named with the prefix.
func (c Config) Problems(prefix string) []error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	for _, f := range []struct{ name, value, want string }{
		{"ca_cert_file", c.CACert, "a PEM file"}, {"ca_key_file", c.CAKey, "a PEM file"}, {"dir", c.Dir, "a directory on a tmpfs"},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s%s is empty: name %s", prefix, f.name, f.want))
		}
	}
	if v := time.Duration(c.Validity); v < credential.MinValidity || v > credential.MaxValidity {
		errs = append(errs, fmt.Errorf("%svalidity_period is %v: want %v to %v", prefix, v, credential.MinValidity, credential.MaxValidity))
	}
	return errs
}

// Authority is an intermediate CA. It may be used concurrently.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.PrivateKey
	chain []byte // its certificates as PEM, to be sent behind each it makes
}

// Open reads a CA: any kind of key that signs certificates will do.
func Open(certFile, keyFile string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("CA of instance certificates, ca_cert_file and ca_key_file: %w", err)
	}
	a := &Authority{cert: pair.Leaf, key: pair.PrivateKey}
	switch {
	case !a.cert.IsCA, a.cert.KeyUsage != 0 && a.cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("ca_cert_file %s: %q may not sign certificates: name that of a CA", certFile, a.cert.Subject)
	case time.Now().After(a.cert.NotAfter):
		return nil, fmt.Errorf("ca_cert_file %s: %q has ended at %s: replace it", certFile, a.cert.Subject, a.cert.NotAfter.Format(time.RFC3339))
	}
	for _, der := range pair.Certificate {
		a.chain = append(a.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return a, nil
}

// End is when the CA ends, and with it every certificate that it made.
func (a *Authority) End() time.Time { return a.cert.NotAfter }

// Pair is a certificate with its key, as PEM. Chain is the certificate and behind it those of its CA.
type Pair struct{ Chain, Key []byte }

// Issue makes a certificate with a new ECDSA P-256 key.
func (a *Authority) Issue(c credential.Content) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := uuid.NewRandom()
	if err != nil {
		return Pair{}, fmt.Errorf("draw a serial number: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:]),
		Subject:      pkix.Name{CommonName: c.CommonName, OrganizationalUnit: c.Units},
		NotBefore:    c.NotBefore, NotAfter: c.NotAfter,
		DNSNames: c.DNSNames, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if c.Address.IsValid() {
		t.IPAddresses = []net.IP{c.Address.Unmap().AsSlice()}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %q: %w", c.CommonName, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode a key: %w", err)
	}
	return Pair{
		Chain: append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.chain...),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}, nil
}

var errForeign = errors.New("certificate of another CA")

// read returns what a pair says that this CA made.
func (a *Authority) read(p Pair) (credential.Content, error) {
	pair, err := tls.X509KeyPair(p.Chain, p.Key)
	if err != nil {
		return credential.Content{}, err
	}
	if pair.Leaf.CheckSignatureFrom(a.cert) != nil {
		return credential.Content{}, errForeign
	}
	return contentOf(pair.Leaf), nil
}
