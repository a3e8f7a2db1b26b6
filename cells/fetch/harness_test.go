package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"muster/cells/fetch/archive"
)

// tgz returns a tar.gz with one file a.
func tgz(t testing.TB, content string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644, Size: int64(len(content))})
	_, err1 := io.WriteString(w, content)
	if err := errors.Join(err, err1, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// origin is a server with one file that has an ETag.
type origin struct {
	mu      sync.Mutex
	content []byte
	etag    string // empty: none
	date    string // Last-Modified; empty: none
	asked   []http.Header
	full    int // answers that were not 304
}

func (o *origin) set(content []byte, etag string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.content, o.etag = content, etag
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, r.Header.Clone())
	if o.etag != "" {
		w.Header().Set("ETag", o.etag)
	}
	if o.date != "" {
		w.Header().Set("Last-Modified", o.date)
	}
	same := o.etag != "" && r.Header.Get("If-None-Match") == o.etag || o.date != "" && r.Header.Get("If-Modified-Since") == o.date
	if same {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	o.full++
	_, _ = w.Write(o.content)
}

// counts returns how many requests there were, and how many of them got content.
func (o *origin) counts() (asked, full int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.asked), o.full
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// open opens a fetcher in a directory; it is closed with the test, or before.
func open(t testing.TB, dir string, change ...func(*Config)) *Fetcher {
	t.Helper()
	cfg := Defaults()
	cfg.Dir = dir
	for _, c := range change {
		c(&cfg)
	}
	f, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// get downloads an archive and returns the content of its file a; the archive is still open.
func get(t testing.TB, f *Fetcher, r Request) (string, *Archive) {
	t.Helper()
	a, err := f.Archive(context.Background(), r)
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	return contentOf(t, a.Path), a
}

func contentOf(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	in := tar.NewReader(bytes.NewReader(raw))
	h, err := in.Next()
	if err != nil || h.Name != "a" {
		t.Fatalf("%v %v", h, err)
	}
	content, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// directory makes a container use a directory and returns what its file a holds.
func directory(t testing.TB, f *Fetcher, r Request, container string) (string, Directory) {
	t.Helper()
	d, err := f.Directory(context.Background(), r, archive.Owner{UID: 4321, GID: 4322}, container)
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	raw, err := os.ReadFile(filepath.Join(d.Path, "a"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), d
}

// files lists the files below a directory.
func files(t testing.TB, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

const secret = "Geheim"

// failed checks an error: its text, a part of its cause, and that neither tells what it must not.
func failed(t testing.TB, err error, text, why string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Text != text || e.Error() != text || e.Err == nil || !strings.Contains(e.Err.Error(), why) {
		t.Fatalf("got %v because of %v\nwant %s because of %s", err, errors.Unwrap(err), text, why)
	}
	if strings.Contains(e.Err.Error(), secret) || strings.Contains(e.Text, "http") {
		t.Fatalf("an error tells a secret: %v: %v", e, e.Err)
	}
}

// withSecrets adds credentials and a signature to a URL.
func withSecrets(url string) string {
	return strings.Replace(url, "://", "://user:"+secret+"@", 1) + "/file?signature=" + secret
}

// pipes is a network without sockets, for virtual time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

// virtual runs a handler and a fetcher that reaches it under virtual time, at http://origin.
func virtual(t *testing.T, h http.Handler) *Fetcher {
	t.Helper()
	network := newPipes()
	var handlers sync.WaitGroup
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1)
		defer handlers.Done()
		h.ServeHTTP(w, r)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(network) }()
	t.Cleanup(func() {
		server.Close()
		<-served
		handlers.Wait()
	})
	return open(t, t.TempDir(), func(c *Config) { c.Dial = network.dial })
}
