package fetch

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"muster/cells/engine"
)

// A cache that holds more than its bound, because the bound was lowered while all was in use, refuses what is
// new without a trace, and comes back to the bound as soon as it can.
func TestAboveTheBound(t *testing.T) {
	t.Parallel()
	o := big(t, 3)
	r := Request{URL: serve(t, o), CacheKey: "k"}
	dir := t.TempDir()
	f := open(t, dir)
	_, used := directory(t, f, r, "c1")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir, func(c *Config) { c.MaxBytes = 2 << 20 })
	if err := f.Keep("c1", used.Key); err != nil {
		t.Fatal(err)
	}
	f.Settle()
	small := Request{URL: serve(t, &origin{content: tgz(t, "one"), etag: `"1"`}), CacheKey: "small"}
	_, err := f.Archive(t.Context(), small)
	failed(t, err, "Downloading failed", "bytes of the cache are in use")
	if !errors.Is(err, engine.ErrNoSpace) {
		t.Errorf("%v is not for want of space", errors.Unwrap(err))
	}
	if left := files(t, dir); len(left) != 2 || len(dirs(t, f.store.tmp())) != 0 || len(f.store.items) != 1 {
		t.Errorf("left are %v, %v and %d items", left, dirs(t, f.store.tmp()), len(f.store.items))
	}
	f.Release("c1")
	if content, a := get(t, f, small); content != "one" || a.Cached || exists(used.Path) {
		t.Errorf("got %q, and the old tree is there: %v", content, exists(used.Path))
	}
	if _, a := get(t, f, small); !a.Cached {
		t.Error("it was not kept")
	}
	if u := f.Usage(); u.Entries != 1 || len(f.store.items) != 1 {
		t.Errorf("%+v, %d items", u, len(f.store.items))
	}
}

// Who gives up does not wait for an archive to be unpacked.
func TestCancelledWhileUnpacking(t *testing.T) {
	t.Parallel()
	f := open(t, t.TempDir())
	it, err := f.store.begin("x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.store.abandon(it)
	var raw bytes.Buffer
	w := zip.NewWriter(&raw)
	part, err := w.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(part, strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	src := io.MultiReader(&raw, &atEnd{cancel})
	if err := f.unpack(ctx, job{}, it, src, false); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// atEnd calls a function when all was read.
type atEnd struct{ fn func() }

func (a *atEnd) Read([]byte) (int, error) { a.fn(); return 0, io.EOF }

// Where a server points to may hold a signature, too.
func TestBrokenRedirect(t *testing.T) {
	t.Parallel()
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://%zz/?signature="+secret)
		w.WriteHeader(http.StatusFound)
	}))
	_, err := open(t, t.TempDir()).Archive(t.Context(), Request{URL: url})
	failed(t, err, "Downloading failed", "attempt 1 of 4: the redirect is to no URL")
}

func dirs(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range list {
		names = append(names, d.Name())
	}
	return names
}

// A server that could compress is not asked to: the sum is that of the file as it is kept there.
func TestNothingIsCompressedOnTheWay(t *testing.T) {
	t.Parallel()
	raw := tgz(t, "one")
	sum := sha256.Sum256(raw)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("Accept-Encoding is %s", r.Header.Get("Accept-Encoding"))
		}
		// Some servers say so of each file with the name of a compressed one.
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(raw)
	}))
	content, _ := get(t, open(t, t.TempDir()), Request{URL: url, ChecksumAlgorithm: "sha256", ChecksumValue: hex.EncodeToString(sum[:])})
	if content != "one" {
		t.Errorf("got %q", content)
	}
}

// When Close returns nothing is under way any more.
func TestCloseEndsDownloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := virtual(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(tarOfNoise(1000))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		ended := make(chan error, 1)
		go func() {
			_, err := f.Archive(context.Background(), Request{URL: "http://origin"})
			ended <- err
		}()
		synctest.Wait()
		if left := dirs(t, f.store.tmp()); len(left) != 1 {
			t.Fatalf("under way are %v", left)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if left := dirs(t, f.store.tmp()); len(left) != 0 {
			t.Errorf("left are %v", left)
		}
		failed(t, <-ended, "Downloading failed", "the cell stops downloading")
		_, err := f.Archive(context.Background(), Request{URL: "http://origin"})
		failed(t, err, "Downloading failed", "the cell stops downloading")
	})
}

func TestTooLongADownload(t *testing.T) {
	t.Parallel()
	b := &body{ctx: t.Context(), src: strings.NewReader("xx"), n: MaxDownload - 1}
	if _, err := io.Copy(io.Discard, b); err == nil || err.Error() != "the download has more than 8589934592 bytes" || worthRetrying(err) {
		t.Errorf("got %v", err)
	}
}

// A download that succeeds just when the last who waited has left is used by nobody.
func TestArrivalAfterAllLeft(t *testing.T) {
	t.Parallel()
	f := open(t, t.TempDir())
	j, err := archiveJob(Request{URL: serve(t, &origin{content: tgz(t, "one"), etag: `"1"`}), CacheKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	fl := &flight{user: "flight", cancel: func() {}, done: make(chan struct{})}
	it, cached, err := f.download(t.Context(), j, fl.user)
	f.arrive(j.id, fl, it, cached, err)
	if u := f.Usage(); err != nil || u.Entries != 1 || u.Held != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestDirectoryTakenAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := open(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, err := f.Archive(t.Context(), Request{URL: serve(t, &origin{content: tgz(t, "one")})})
	failed(t, err, "Downloading failed", "no such file or directory")
	if len(f.store.items) != 0 {
		t.Errorf("left are %v", f.store.items)
	}
}
