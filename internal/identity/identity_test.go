package identity

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

func TestOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ uri, want, problem string }{
		{"spiffe://muster/bbs", "bbs", ""},
		{"spiffe://muster/rep/cell-1", "rep/cell-1", ""},
		{"spiffe://muster/rep", "", "names its cell"},
		{"spiffe://muster/bbs/cell-1", "", "names its cell"},
		{"spiffe://muster/king", "", `unknown role "king"`},
		{"spiffe://elsewhere/bbs", "", "has no URI SAN"},
		{"https://muster/bbs", "", "has no URI SAN"},
	} {
		u, err := url.Parse(tc.uri)
		if err != nil {
			t.Fatal(err)
		}
		id, err := Of(&x509.Certificate{URIs: []*url.URL{u}})
		if tc.problem == "" && (err != nil || id.String() != tc.want) {
			t.Errorf("%s: got %v, %v; want %s", tc.uri, id, err, tc.want)
		}
		if tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)) {
			t.Errorf("%s: got error %v, want one with %q", tc.uri, err, tc.problem)
		}
	}
}

func issue(t *testing.T, dir string, id ID) Files {
	t.Helper()
	ca, err := OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ca.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// handshake connects a client to a server and returns the first error of either side.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		s := tls.Server(c, server)
		if err := s.Handshake(); err != nil {
			done <- err
			return
		}
		_, err = s.Write([]byte("!"))
		done <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
		c.Close()
	}
	if serr := <-done; serr != nil {
		return serr
	}
	return err
}

func TestOnlyTheExpectedRoleIsBelieved(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	bbs, rep, stranger := issue(t, dir, ID{Role: BBS}), issue(t, dir, ID{Role: Rep, Cell: "c1"}), issue(t, other, ID{Role: Rep, Cell: "c1"})
	for _, tc := range []struct {
		name           string
		server, client Files
		allow, expect  []Role
		problem        string
	}{
		{"both are who they should be", bbs, rep, []Role{Rep}, []Role{BBS}, ""},
		{"any role may connect", bbs, rep, nil, []Role{BBS}, ""},
		{"the client has the wrong role", bbs, rep, []Role{Auctioneer}, []Role{BBS}, "peer is rep/c1"},
		{"the server has the wrong role", rep, bbs, nil, []Role{BBS}, "peer is rep/c1"},
		{"the client is of another CA", bbs, Files{CA: bbs.CA, Cert: stranger.Cert, Key: stranger.Key}, nil, []Role{BBS}, "unknown authority"},
		{"the server is of another CA", stranger, rep, nil, []Role{Rep}, "unknown authority"},
	} {
		s, err := tc.server.Server(tc.allow...)
		if err != nil {
			t.Fatal(err)
		}
		c, err := tc.client.Client(tc.expect...)
		if err != nil {
			t.Fatal(err)
		}
		err = handshake(t, s, c)
		if (tc.problem == "") != (err == nil) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

func TestServersWithoutRoleAreBelievedByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, stranger := issue(t, dir, ID{Role: BBS}), issue(t, t.TempDir(), ID{Role: BBS})
	for _, tc := range []struct {
		name, host string
		server     Files
		ok         bool
	}{
		{"the host that was asked for", "localhost", ours, true},
		{"another host", "elsewhere", ours, false},
		{"the host that was asked for, of another CA", "localhost", stranger, false},
	} {
		s, err := Files{CA: ours.CA, Cert: tc.server.Cert, Key: tc.server.Key}.Server(BBS)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ours.ClientByName()
		if err != nil {
			t.Fatal(err)
		}
		c.ServerName = tc.host
		if err := handshake(t, s, c); (err == nil) != tc.ok {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
	if _, err := (Files{CA: "/nowhere"}).ClientByName(); err == nil {
		t.Error("a CA that is not there was read")
	}
}

func TestCertificatesAreReplacedWithoutRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := issue(t, dir, ID{Role: BBS})
	r := &reloader{cert: f.Cert, key: f.Key}
	first, err := r.get()
	if err != nil {
		t.Fatal(err)
	}
	issue(t, dir, ID{Role: BBS})
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(f.Cert, later, later); err != nil {
		t.Fatal(err)
	}
	r.checked = time.Time{}
	second, err := r.get()
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Error("the replaced certificate is still used")
	}
	if err := os.WriteFile(f.Cert, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.checked = time.Time{}
	if third, err := r.get(); err != nil || third != second {
		t.Errorf("a half-written certificate: got %v, %v; want the old pair", third, err)
	}
}

func TestTheCAIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	issue(t, dir, ID{Role: BBS})
	before, _ := os.ReadFile(dir + "/ca.crt")
	issue(t, dir, ID{Role: Operator})
	after, _ := os.ReadFile(dir + "/ca.crt")
	if string(before) != string(after) {
		t.Error("opening the CA again made a new one")
	}
	st, err := os.Stat(dir + "/operator.key")
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key mode: %v, %v; want 0600", st.Mode(), err)
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	t.Parallel()
	if got := (Files{Cert: "x"}).Problems("tls."); len(got) != 2 || !strings.Contains(got[0].Error(), "tls.ca_file") {
		t.Errorf("problems: %v", got)
	}
	if _, err := (Files{CA: "/nonexistent"}).Client(BBS); err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Errorf("missing CA: %v", err)
	}
}
