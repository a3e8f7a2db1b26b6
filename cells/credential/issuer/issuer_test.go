package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/cells/credential"
	"muster/internal/daemon"
	"muster/internal/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority returns a new CA and the pool of those who trust it.
func authority(t testing.TB) (*Authority, *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	_, err := identity.OpenCA(dir)
	must(t, err)
	a, err := Open(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return a, pool
}

func wanted() Wanted {
	return Wanted{Proxy: true, Subject: credential.Subject{
		Instance: "9d2e", Units: []string{"organization:o", "space:s", "app:a"}, Hostnames: []string{"shop.apps.internal"},
		Address: netip.MustParseAddr("10.255.0.4"),
	}}
}

func store(t testing.TB, a *Authority, root string, validity time.Duration) *Store {
	t.Helper()
	s, err := NewStore(a, root, validity)
	must(t, err)
	return s
}

// leaf reads a certificate and checks that its key belongs to it.
func leaf(t testing.TB, s *Store, instance, cert, key string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.Path(instance, cert), s.Path(instance, key))
	must(t, err)
	if k, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("%s: key %T", key, pair.PrivateKey)
	}
	if len(pair.Certificate) != 2 {
		t.Errorf("%s holds %d certificates, want its CA behind it", cert, len(pair.Certificate))
	}
	return pair.Leaf
}

// §24 "Identity": common name, use as client and as server against the CA.
func TestCertificatesOfAnInstance(t *testing.T) {
	t.Parallel()
	a, pool := authority(t)
	s := store(t, a, filepath.Join(t.TempDir(), "credentials"), 24*time.Hour)
	_, err := s.Ensure(wanted())
	must(t, err)
	app := leaf(t, s, "9d2e", AppCert, AppKey)
	if app.Subject.CommonName != "9d2e" || !slices.Equal(slices.Sorted(slices.Values(app.Subject.OrganizationalUnit)), []string{"app:a", "organization:o", "space:s"}) {
		t.Errorf("subject %v", app.Subject)
	}
	if len(app.IPAddresses) != 1 || app.IPAddresses[0].String() != "10.255.0.4" || !slices.Equal(app.DNSNames, []string{"9d2e"}) {
		t.Errorf("names %v %v", app.IPAddresses, app.DNSNames)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := app.Verify(x509.VerifyOptions{DNSName: "9d2e", Roots: pool, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Error(err)
		}
	}
	if app.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement || app.SerialNumber.BitLen() < 64 {
		t.Errorf("usage %b, serial %v", app.KeyUsage, app.SerialNumber)
	}
	if got := app.NotAfter.Sub(time.Now()); got > 24*time.Hour || got < 24*time.Hour-time.Minute {
		t.Errorf("valid for %v", got)
	}
	if proxy := leaf(t, s, "9d2e", IdentityFile, IdentityFile); !proxy.Equal(app) {
		t.Error("the proxy has another identity")
	}
	internal := leaf(t, s, "9d2e", InternalFile, InternalFile)
	if !slices.Equal(internal.DNSNames, []string{"9d2e", "shop.apps.internal"}) || len(internal.IPAddresses) != 0 || internal.Subject.CommonName != "9d2e" {
		t.Errorf("internal: %v %v %v", internal.Subject, internal.DNSNames, internal.IPAddresses)
	}
	for name, mode := range map[string]fs.FileMode{"": 0o700, AppDir: 0o755, AppCert: 0o644, AppKey: 0o644, ProxyDir: 0o700, IdentityFile: 0o600, InternalFile: 0o600} {
		if st, err := os.Stat(s.Path("9d2e", name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v, want %v", name, st.Mode(), err, mode)
		}
	}
	if env := Env(); !slices.Equal(env, []string{"CF_INSTANCE_CERT=/etc/cf-instance-credentials/instance.crt", "CF_INSTANCE_KEY=/etc/cf-instance-credentials/instance.key"}) {
		t.Errorf("env %q", env)
	}
	task := wanted()
	task.Instance, task.Proxy = "task", false
	_, err = s.Ensure(task)
	must(t, err)
	leaf(t, s, "task", AppCert, AppKey)
	if _, err := os.Stat(s.Path("task", ProxyDir)); err == nil {
		t.Error("a task has files for a proxy")
	}
}

// contents returns the text of all files of an instance.
func contents(t testing.TB, s *Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range []string{AppCert, AppKey, IdentityFile, InternalFile} {
		text, err := os.ReadFile(s.Path("9d2e", name))
		must(t, err)
		all[name] = string(text)
	}
	return all
}

func TestAdoption(t *testing.T) {
	t.Parallel()
	a, _ := authority(t)
	root := t.TempDir()
	w := wanted()
	_, err := store(t, a, root, time.Hour).Ensure(w)
	must(t, err)
	s := store(t, a, root, time.Hour) // of the next rep
	before := contents(t, s)
	// step changes something and says which files are replaced by it.
	step := func(what string, change func(), replaced ...string) {
		t.Helper()
		change()
		_, err := s.Ensure(w)
		must(t, err)
		after := contents(t, s)
		for name, text := range before {
			if (after[name] != text) != slices.Contains(replaced, name) {
				t.Errorf("%s: replaced %q: %v", what, name, after[name] != text)
			}
		}
		before = after
	}
	write := func(name, text string) { must(t, os.WriteFile(s.Path("9d2e", name), []byte(text), 0o600)) }
	identity := []string{AppCert, AppKey, IdentityFile}
	step("nothing", func() {})
	step("internal routes", func() { w.Hostnames = []string{"other.apps.internal"} }, InternalFile)
	step("units", func() { w.Units = []string{"space:s"} }, append(identity, InternalFile)...)
	step("cut off between key and certificate", func() { write(AppKey, before[InternalFile]) }, identity...)
	write(IdentityFile, "torn")
	before[IdentityFile] = "torn"
	step("cut off before the proxy's", func() {}, IdentityFile)
	s.authority, _ = authority(t)
	step("another CA", func() {}, append(identity, InternalFile)...)
	if all, err := s.List(); err != nil || !slices.Equal(all, []string{"9d2e"}) {
		t.Errorf("list %q, %v", all, err)
	}
	for range 2 {
		must(t, s.Remove("9d2e"))
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("list %q, %v", all, err)
	}
	if err := s.Remove(".."); err == nil {
		t.Error("a directory that is no instance's was removed")
	}
}

// §14.4: the proxy's certificates do not name the instance any more; the app's own are left alone, and a rep
// that starts anew does not undo it.
func TestDisowned(t *testing.T) {
	t.Parallel()
	a, pool := authority(t)
	root := t.TempDir()
	s := store(t, a, root, time.Hour)
	w := wanted()
	_, err := s.Ensure(w)
	must(t, err)
	before := contents(t, s)
	must(t, s.Disown(w))
	disowned := contents(t, s)
	for _, name := range []string{AppCert, AppKey} {
		if disowned[name] != before[name] {
			t.Errorf("%s was replaced", name)
		}
	}
	for _, name := range []string{IdentityFile, InternalFile} {
		c := leaf(t, s, "9d2e", name, name)
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.Subject.CommonName != "" || c.VerifyHostname("9d2e") == nil {
			t.Errorf("%s names the instance: %v %v", name, c.Subject, c.DNSNames)
		}
	}
	_, err = store(t, a, root, time.Hour).Ensure(w)
	must(t, err)
	for name, text := range contents(t, s) {
		if text != disowned[name] {
			t.Errorf("%s was replaced after it was disowned", name)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := authority(t)
		s := store(t, a, t.TempDir(), 24*time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		news, done := make(chan Wanted), make(chan error)
		go func() { done <- s.Keep(ctx, wanted(), news) }()
		begin := time.Now()
		synctest.Wait()
		first := contents(t, s)
		time.Sleep(23*time.Hour + 30*time.Minute - 2*time.Second - time.Since(begin))
		if now := contents(t, s); now[AppCert] != first[AppCert] {
			t.Error("renewed too early")
		}
		time.Sleep(3 * time.Second)
		second := contents(t, s)
		for name := range first {
			if second[name] == first[name] {
				t.Errorf("%s is not renewed", name)
			}
		}
		if left := leaf(t, s, "9d2e", AppCert, AppKey).NotAfter.Sub(time.Now()); left < 23*time.Hour {
			t.Errorf("renewed for %v", left)
		}
		w := wanted()
		w.Hostnames = nil
		news <- w
		synctest.Wait()
		if third := contents(t, s); third[InternalFile] == second[InternalFile] || third[AppCert] != second[AppCert] {
			t.Error("a new internal route makes a new internal certificate, and only that")
		}
		cancel()
		must(t, <-done)
		must(t, os.RemoveAll(s.root))
		must(t, os.WriteFile(s.root, nil, 0o600))
		if err := s.Keep(t.Context(), w, nil); err == nil || !strings.Contains(err.Error(), "directory of instance certificates") {
			t.Errorf("credentials that cannot be written: %v", err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := identity.OpenCA(dir)
	must(t, err)
	leaf, err := ca.Issue(identity.ID{Role: identity.BBS})
	must(t, err)
	for want, f := range map[string][2]string{
		"may not sign certificates": {leaf.Cert, leaf.Key},
		"private key does not":      {filepath.Join(dir, "ca.crt"), leaf.Key},
		"no such file":              {filepath.Join(dir, "missing"), leaf.Key},
	} {
		if _, err := Open(f[0], f[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(80 * 365 * 24 * time.Hour)
		if _, err := Open(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")); err == nil || !strings.Contains(err.Error(), "has ended") {
			t.Errorf("an old CA: %v", err)
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c := Defaults()
	if problems := c.Problems("x."); c.Enabled() || problems != nil {
		t.Errorf("without CA: %v", problems)
	}
	c.CACert, c.Validity = "ca.crt", daemon.Duration(time.Second)
	text := ""
	for _, err := range c.Problems("x.") {
		text += err.Error() + "\n"
	}
	for _, want := range []string{"x.ca_key_file is empty", "x.dir is empty", "x.validity_period is 1s: want 1m0s to 8760h0m0s"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
}

// BenchmarkIssue is one certificate with its key, by CAs of several kinds.
func BenchmarkIssue(b *testing.B) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b, err)
	for name, key := range map[string]crypto.Signer{"ecdsa-p256": p256, "rsa-2048": rsaKey(b, 2048), "rsa-3072": rsaKey(b, 3072)} {
		b.Run(name, func(b *testing.B) {
			a := authorityOf(b, key)
			notBefore, notAfter, err := credential.Term(time.Now(), time.Hour, a.End())
			must(b, err)
			c := credential.Identity(wanted().Subject, notBefore, notAfter)
			for b.Loop() {
				if _, err := a.Issue(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEnsure is all that an instance needs, files included.
func BenchmarkEnsure(b *testing.B) {
	a, _ := authority(b)
	s := store(b, a, b.TempDir(), time.Hour)
	for b.Loop() {
		_, err := s.Ensure(wanted())
		must(b, err)
		b.StopTimer()
		must(b, s.Remove("9d2e"))
		b.StartTimer()
	}
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	must(t, err)
	return key
}

// authorityOf opens a CA with a key.
func authorityOf(t testing.TB, key crypto.Signer) *Authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	cert, file := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	a, err := Open(cert, file)
	must(t, err)
	return a
}
