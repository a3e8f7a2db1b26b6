package issuer

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"muster/cells/credential"
)

// The files of an instance, below its directory.
const (
	AppDir       = "app"                // AppDir is for its own processes, to be bound into the container as a whole.
	AppCert      = "app/instance.crt"   // AppCert is the identity of the instance, and its CA.
	AppKey       = "app/instance.key"   // AppKey is the key of it.
	ProxyDir     = "proxy"              // ProxyDir is for its TLS proxy.
	IdentityFile = "proxy/identity.pem" // IdentityFile is the same identity, with its key.
	InternalFile = "proxy/internal.pem" // InternalFile is the certificate for other containers, with its key.
)

// MountPoint is where AppDir is found in a container.
const MountPoint = "/etc/cf-instance-credentials"

// Env returns the variables that tell a container where its certificate and key are.
func Env() []string {
	return []string{"CF_INSTANCE_CERT=" + MountPoint + "/instance.crt", "CF_INSTANCE_KEY=" + MountPoint + "/instance.key"}
}

// recheck bounds how long a certificate is left unlooked at: timers know nothing of clocks that are put forward.
const recheck = 10 * time.Minute

// Wanted is what an instance is to have.
type Wanted struct {
	credential.Subject
	Proxy bool // also certificates for its TLS proxy
}

// Store keeps the certificates of instances, a directory each. Different instances may be worked on at the
// same time; the calls for one come one after another.
type Store struct {
	authority *Authority
	root      string
	validity  time.Duration
}

// NewStore returns a store below a directory that belongs to one cell and is made when missing. Only its owner
// may enter; the directories of apps are open to all who have got them.
func NewStore(a *Authority, root string, validity time.Duration) (*Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("directory of instance certificates: %w", err)
	}
	return &Store{authority: a, root: root, validity: validity}, nil
}

// Path returns where a file or directory of an instance is.
func (s *Store) Path(instance, name string) string { return filepath.Join(s.root, instance, name) }

// Prepare makes the directories of an instance: AppDir is bound into a container before its address is known,
// and so before there can be a certificate.
func (s *Store) Prepare(instance string, proxy bool) error {
	if err := checkName(instance); err != nil {
		return err
	}
	for _, dir := range []struct {
		name string
		mode fs.FileMode
	}{{"", 0o700}, {AppDir, 0o755}, {ProxyDir, 0o700}} {
		if dir.name == ProxyDir && !proxy {
			continue
		}
		if err := makeDir(s.Path(instance, dir.name), dir.mode); err != nil {
			return err
		}
	}
	return nil
}

// Ensure makes what is missing, due or says something else than what is wanted, and returns when to look
// again. What is there and good is left alone, so a second call, or one of a new process, changes nothing. A
// disowned instance stays as it is.
func (s *Store) Ensure(w Wanted) (again time.Time, err error) {
	if err := w.Check(); err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	again = now.Add(recheck)
	if w.Proxy && s.disowned(w.Instance) {
		return again, nil
	}
	notBefore, notAfter, err := credential.Term(now, s.validity, s.authority.End())
	if err != nil {
		return time.Time{}, err
	}
	if err := s.Prepare(w.Instance, w.Proxy); err != nil {
		return time.Time{}, err
	}
	identity, at, err := s.renew(s.app(w.Instance), credential.Identity(w.Subject, notBefore, notAfter), now)
	if err != nil {
		return time.Time{}, err
	}
	again = earlier(again, at)
	if !w.Proxy {
		return again, nil
	}
	proxy := file{s.Path(w.Instance, IdentityFile)}
	if have, err := proxy.read(); err != nil || !bytes.Equal(have.Chain, identity.joined()) {
		if err := proxy.write(identity); err != nil {
			return time.Time{}, err
		}
	}
	_, at, err = s.renew(file{s.Path(w.Instance, InternalFile)}, credential.Internal(w.Subject, notBefore, notAfter), now)
	return earlier(again, at), err
}

// Keep keeps what an instance has as it should be until ctx ends; news replace what is wanted. An error says
// that it cannot.
func (s *Store) Keep(ctx context.Context, w Wanted, news <-chan Wanted) error {
	for {
		again, err := s.Ensure(w)
		if err != nil {
			return err
		}
		timer := time.NewTimer(time.Until(again))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case w = <-news:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Disown gives the proxy of an instance certificates that do not name it any more. The app's own stay.
func (s *Store) Disown(w Wanted) error {
	notBefore, notAfter, err := credential.Term(time.Now(), s.validity, s.authority.End())
	if err != nil {
		return err
	}
	if err := s.Prepare(w.Instance, true); err != nil {
		return err
	}
	// The identity last: it is the one that says that the instance is disowned.
	for _, c := range []struct {
		name string
		of   func(credential.Subject, time.Time, time.Time) credential.Content
	}{{InternalFile, credential.Internal}, {IdentityFile, credential.Identity}} {
		pair, err := s.authority.Issue(credential.Disowned(c.of(w.Subject, notBefore, notAfter)))
		if err != nil {
			return err
		}
		if err := (file{s.Path(w.Instance, c.name)}).write(pair); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes all that an instance has; one that has nothing is no error.
func (s *Store) Remove(instance string) error {
	if err := checkName(instance); err != nil {
		return err
	}
	if err := os.RemoveAll(s.Path(instance, "")); err != nil {
		return fmt.Errorf("remove the certificates of %s: %w", instance, err)
	}
	return nil
}

// List returns the instances that have something, in order.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("list the certificates of instances: %w", err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, nil
}

func (s *Store) disowned(instance string) bool {
	pair, err := file{s.Path(instance, IdentityFile)}.read()
	if err != nil {
		return false
	}
	c, err := s.authority.read(pair)
	return err == nil && c.CommonName == ""
}

// renew returns what a place holds when that will do, else a new pair that it has put there, and when it is due.
func (s *Store) renew(p place, want credential.Content, now time.Time) (Pair, time.Time, error) {
	if pair, err := p.read(); err == nil {
		if have, err := s.authority.read(pair); err == nil && have.Says(want) && now.Before(have.RenewAt()) {
			return pair, have.RenewAt(), nil
		}
	}
	pair, err := s.authority.Issue(want)
	if err != nil {
		return Pair{}, time.Time{}, err
	}
	return pair, want.RenewAt(), p.write(pair)
}

func (s *Store) app(instance string) twoFiles {
	return twoFiles{s.Path(instance, AppCert), s.Path(instance, AppKey)}
}

// checkName refuses what is no name of a directory below the root.
func checkName(instance string) error {
	if instance == "" || instance[0] == '.' || filepath.Base(instance) != instance {
		return fmt.Errorf("instance GUID %q: want the name of a file", instance)
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// contentOf returns what a certificate says.
func contentOf(cert *x509.Certificate) credential.Content {
	c := credential.Content{
		CommonName: cert.Subject.CommonName, Units: cert.Subject.OrganizationalUnit, DNSNames: slices.Clone(cert.DNSNames),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}
	if len(cert.IPAddresses) > 0 {
		if a, ok := netip.AddrFromSlice(cert.IPAddresses[0]); ok {
			c.Address = a.Unmap()
		}
	}
	return c
}

func makeDir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(path, mode) // whatever the umask says
	}
	if err != nil {
		return fmt.Errorf("directory of instance certificates: %w", err)
	}
	return nil
}
