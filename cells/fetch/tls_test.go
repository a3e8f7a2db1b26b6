package fetch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	mathbig "math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pemFile writes one block.
func pemFile(t testing.TB, kind string, der []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// clientPair makes a certificate that signs itself, and its files.
func clientPair(t testing.TB) (cert *x509.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: mathbig.NewInt(1), Subject: pkix.Name{CommonName: "cell"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err1 := x509.ParseCertificate(der)
	raw, err2 := x509.MarshalPKCS8PrivateKey(key)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return cert, pemFile(t, "CERTIFICATE", der), pemFile(t, "PRIVATE KEY", raw)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	client, certFile, keyFile := clientPair(t)
	server := httptest.NewUnstartedServer(o)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	server.TLS.ClientCAs.AddCert(client)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pemFile(t, "CERTIFICATE", server.Certificate().Raw)
	r := Request{URL: withSecrets(server.URL)}

	f := open(t, t.TempDir(), func(c *Config) { c.CertFile, c.KeyFile = certFile, keyFile })
	_, err := f.Archive(t.Context(), r)
	failed(t, err, "Downloading failed", "attempt 1 of 4: tls: failed to verify certificate: x509: certificate signed by unknown authority")
	_, err = f.Upload(t.Context(), r, strings.NewReader("x"), 1)
	failed(t, err, "Uploading failed", "attempt 1 of 3: tls: failed to verify certificate")

	f = open(t, t.TempDir(), func(c *Config) { c.CAFiles, c.CertFile, c.KeyFile = []string{ca}, certFile, keyFile })
	if content, _ := get(t, f, r); content != "one" {
		t.Errorf("got %q", content)
	}
	if _, err := f.Upload(t.Context(), r, strings.NewReader("x"), 1); err != nil {
		t.Error(err)
	}
	// Another name than that of the certificate is refused.
	_, err = f.Archive(t.Context(), Request{URL: strings.Replace(server.URL, "127.0.0.1", "localhost", 1)})
	failed(t, err, "Downloading failed", "failed to verify certificate")

	f = open(t, t.TempDir(), func(c *Config) { c.CAFiles = []string{ca} })
	_, err = f.Archive(t.Context(), r)
	failed(t, err, "Downloading failed", "tls: certificate required")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := clientPair(t)
	for name, row := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"relative directory":    {func(c *Config) { c.Dir = "downloads" }, `dir is "downloads": want an absolute path`},
		"small bound":           {func(c *Config) { c.MaxBytes = 5 }, `max_bytes is "5": want at least 1048576`},
		"no downloads":          {func(c *Config) { c.MaxDownloads = 0 }, `max_downloads is "0": want 1 to 127`},
		"many downloads":        {func(c *Config) { c.MaxDownloads = 128 }, `max_downloads is "128": want 1 to 127`},
		"certificate alone":     {func(c *Config) { c.CertFile = certFile }, "cert_file is"},
		"key alone":             {func(c *Config) { c.KeyFile = keyFile }, "cert_file is"},
		"key for a certificate": {func(c *Config) { c.CertFile, c.KeyFile = keyFile, keyFile }, "cert_file and key_file: tls: failed to find certificate PEM data"},
		"CA missing":            {func(c *Config) { c.CAFiles = []string{"/none.pem"} }, "ca_files: open /none.pem"},
		"CA that is none":       {func(c *Config) { c.CAFiles = []string{keyFile} }, "holds no certificate"},
	} {
		cfg := Defaults()
		cfg.Dir = t.TempDir()
		row.change(&cfg)
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
