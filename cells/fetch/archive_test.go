package fetch

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/cells/engine"
)

func TestArchiveWithoutKey(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	dir := t.TempDir()
	f := open(t, dir)
	for range 2 {
		content, a := get(t, f, Request{URL: serve(t, o)})
		if content != "one" || a.Cached || a.Downloaded != int64(len(o.content)) {
			t.Errorf("got %q, %+v", content, a)
		}
		if info, err := os.Stat(a.Path); err != nil || info.Size() != a.Size || info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%v %v", info, err)
		}
		inbox := filepath.Join(t.TempDir(), "linked")
		if err := os.Link(a.Path, inbox); err != nil {
			t.Fatal(err)
		}
		a.Close()
		a.Close()
		if left := files(t, dir); len(left) != 0 || contentOf(t, inbox) != "one" {
			t.Errorf("left are %v", left)
		}
	}
	if u := f.Usage(); u.Bytes != 0 || u.Entries != 0 {
		t.Errorf("%+v", u)
	}
}

func TestArchiveIsKept(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, etag, date, asks string
	}{
		{"by ETag", `W/"1"`, "", "If-None-Match"},
		{"by Last-Modified", "", "Mon, 02 Jan 2006 15:04:05 GMT", "If-Modified-Since"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := &origin{content: tgz(t, "one"), etag: row.etag, date: row.date}
			f := open(t, t.TempDir())
			url := serve(t, o)
			_, first := get(t, f, Request{URL: url + "/file?signature=1", CacheKey: "k"})
			first.Close()
			content, again := get(t, f, Request{URL: url + "/file?signature=2", CacheKey: "k"})
			if content != "one" || !again.Cached || again.Path != first.Path || first.Cached || again.Downloaded != int64(len(o.content)) {
				t.Errorf("got %q, %+v after %+v", content, again, first)
			}
			if _, full := o.counts(); full != 1 || o.asked[1].Get(row.asks) != row.etag+row.date || o.asked[0].Get(row.asks) != "" {
				t.Errorf("%d downloads, asked %v", full, o.asked)
			}
		})
	}
}

// What another key, or another path, led to is never asked for nor handed out.
func TestKeysAndPathsAreApart(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	f := open(t, t.TempDir())
	url := serve(t, o)
	for _, r := range []Request{{URL: url + "/a", CacheKey: "k"}, {URL: url + "/b", CacheKey: "k"}, {URL: url + "/a", CacheKey: "l"}} {
		_, a := get(t, f, r)
		a.Close()
	}
	if asked, full := o.counts(); asked != 3 || full != 3 {
		t.Errorf("%d of %d requests were answered with content", full, asked)
	}
}

func TestContentThatChanges(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	f := open(t, t.TempDir())
	r := Request{URL: serve(t, o), CacheKey: "k"}
	_, old := get(t, f, r)
	o.set(tgz(t, "two"), `"2"`)
	content, changed := get(t, f, r)
	if content != "two" || changed.Cached || contentOf(t, old.Path) != "one" {
		t.Errorf("got %q", content)
	}
	old.Close()
	changed.Close()
	if exists(old.Path) || !exists(changed.Path) {
		t.Error("the old content is still there, or the new one is not")
	}
	if content, again := get(t, f, r); content != "two" || !again.Cached {
		t.Errorf("got %q", content)
	}
}

func TestArchiveWithoutValidators(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one")}
	dir := t.TempDir()
	f := open(t, dir)
	r := Request{URL: serve(t, o), CacheKey: "k"}
	for range 2 {
		content, a := get(t, f, r)
		if content != "one" || a.Cached {
			t.Errorf("got %q, %+v", content, a)
		}
		a.Close()
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	raw := tgz(t, "one")
	m, s1, s2, s5 := md5.Sum(raw), sha1.Sum(raw), sha256.Sum256(raw), sha512.Sum512(raw)
	for algorithm, sum := range map[string]string{"md5": hex.EncodeToString(m[:]), "SHA1": hex.EncodeToString(s1[:]),
		"sha256": strings.ToUpper(hex.EncodeToString(s2[:])), "sha512": `"` + hex.EncodeToString(s5[:]) + `"`} {
		f := open(t, t.TempDir())
		content, a := get(t, f, Request{URL: serve(t, &origin{content: raw}), ChecksumAlgorithm: algorithm, ChecksumValue: sum})
		if content != "one" {
			t.Errorf("%s: got %q", algorithm, content)
		}
		a.Close()
	}
}

// §24 "Checksums": neither is tried twice, and nothing is left.
func TestWrongChecksums(t *testing.T) {
	t.Parallel()
	wrong := strings.Repeat("0", 64)
	cut := tgz(t, strings.Repeat("text", 100))
	for name, row := range map[string]struct {
		algorithm, value, why string
		content               []byte
		asked                 int
	}{
		"mismatch":            {"sha256", wrong, "Checksum failed: 'checksum mismatch', expected '" + wrong + "', got '", tgz(t, "one"), 1},
		"mismatch, broken":    {"sha256", wrong, "Checksum failed: 'checksum mismatch'", cut[:len(cut)-20], 1},
		"unknown algorithm":   {"crc32", "00", `checksum_algorithm is "crc32": want md5, sha1, sha256 or sha512`, nil, 0},
		"value missing":       {"md5", "", "checksum_value is missing", nil, 0},
		"algorithm missing":   {"", wrong, "checksum_algorithm is missing: want md5", nil, 0},
		"value of wrong size": {"md5", wrong, "want 32 hexadecimal digits for md5", nil, 0},
		"value of no digits":  {"md5", strings.Repeat("x", 32), "want 32 hexadecimal digits for md5", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &origin{content: row.content, etag: `"1"`}
			dir := t.TempDir()
			f := open(t, dir)
			_, err := f.Archive(t.Context(), Request{Name: "app", URL: withSecrets(serve(t, o)), CacheKey: "k",
				ChecksumAlgorithm: row.algorithm, ChecksumValue: row.value})
			failed(t, err, "Downloading app failed", row.why)
			if asked, _ := o.counts(); asked != row.asked {
				t.Errorf("the server was asked %d times", asked)
			}
			if left := files(t, dir); len(left) != 0 || f.Usage().Bytes != 0 {
				t.Errorf("left are %v, %+v", left, f.Usage())
			}
		})
	}
}

// A kept file is not taken for one with a sum that it was never found to have.
func TestChecksumOfWhatIsKept(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	f := open(t, t.TempDir())
	r := Request{URL: serve(t, o), CacheKey: "k"}
	_, a := get(t, f, r)
	a.Close()
	sum := sha256.Sum256(o.content)
	r.ChecksumAlgorithm, r.ChecksumValue = "sha256", hex.EncodeToString(sum[:])
	for i, cached := range []bool{false, true} {
		_, a := get(t, f, r)
		if a.Cached != cached {
			t.Errorf("use %d: cached is %v", i, a.Cached)
		}
		a.Close()
	}
	r.ChecksumValue = strings.Repeat("0", 64)
	_, err := f.Archive(t.Context(), r)
	failed(t, err, "Downloading failed", "checksum mismatch")
	r.ChecksumAlgorithm, r.ChecksumValue = "", ""
	if content, a := get(t, f, r); content != "one" || !a.Cached {
		t.Errorf("after a mismatch: %q, %+v", content, a)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	f := open(t, t.TempDir())
	for _, url := range []string{"", "ftp://host/" + secret, "http://", "/" + secret, "http://host:port/" + secret, "http://ho st/" + secret, "http://%zz@host/" + secret} {
		_, err := f.Archive(t.Context(), Request{Name: "app", URL: url})
		failed(t, err, "Downloading app failed", "the URL is none of http or https with a host")
	}
	_, err := f.Archive(t.Context(), Request{URL: "http://host", CacheKey: strings.Repeat("k", maxKey+1)})
	failed(t, err, "Downloading failed", "cache_key has 4097 bytes: want at most 4096")
}

func TestBadArchive(t *testing.T) {
	t.Parallel()
	o := &origin{content: []byte(strings.Repeat("<html>", 200)), etag: `"1"`}
	dir := t.TempDir()
	f := open(t, dir)
	_, err := f.Archive(t.Context(), Request{Name: "app", URL: withSecrets(serve(t, o)), CacheKey: "k"})
	failed(t, err, "Downloading app failed", "bad archive: it is neither tar, tar.gz nor zip")
	if asked, _ := o.counts(); asked != 1 || len(files(t, dir)) != 0 {
		t.Errorf("asked %d times; left are %v", asked, files(t, dir))
	}
}

// big returns an origin of an archive that takes n MiB on disk.
func big(t testing.TB, n int) *origin {
	return &origin{content: tgz(t, strings.Repeat("x", n<<20)), etag: fmt.Sprintf(`"%d"`, n)}
}

func TestLeastRecentlyUsedIsEvicted(t *testing.T) {
	t.Parallel()
	f := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 5 << 20 })
	url := serve(t, big(t, 2))
	request := func(key string) Request { return Request{URL: url, CacheKey: key} }
	_, a := get(t, f, request("a"))
	a.Close()
	_, b := get(t, f, request("b"))
	b.Close()
	_, a = get(t, f, request("a"))
	a.Close()
	_, c := get(t, f, request("c"))
	if exists(b.Path) || !exists(a.Path) || !exists(c.Path) {
		t.Error("b was to go")
	}
	if u := f.Usage(); u.Entries != 2 || u.Bytes > 5<<20 || u.Held != c.Size {
		t.Errorf("%+v", u)
	}
}

// What is in use stays, and who finds no room is told so; with the next Close there is room again.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := open(t, dir, func(c *Config) { c.MaxBytes = 5 << 20 })
	o := big(t, 3)
	url := serve(t, o)
	_, a := get(t, f, Request{URL: url, CacheKey: "a"})
	_, err := f.Archive(t.Context(), Request{Name: "app", URL: withSecrets(url), CacheKey: "b"})
	failed(t, err, "Downloading app failed", "bytes of the cache are in use")
	if !errors.Is(err, engine.ErrNoSpace) {
		t.Errorf("%v is not for want of space", errors.Unwrap(err))
	}
	if asked, _ := o.counts(); asked != 2 || !exists(a.Path) || len(files(t, dir)) != 2 || f.Usage().Bytes != a.Size {
		t.Errorf("asked %d times; left are %v, %+v", asked, files(t, dir), f.Usage())
	}
	a.Close()
	_, b := get(t, f, Request{URL: url, CacheKey: "b"})
	if exists(a.Path) || !exists(b.Path) {
		t.Error("a was to make room")
	}
}

// Where a redirect leads learns nothing of where it came from.
func TestRedirects(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	to := serve(t, o)
	from := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }))
	f := open(t, t.TempDir())
	r := Request{URL: withSecrets(from), CacheKey: "k"}
	_, a := get(t, f, r)
	a.Close()
	if content, a := get(t, f, r); content != "one" || !a.Cached {
		t.Errorf("got %q, %+v", content, a)
	}
	if got := o.asked[0].Get("Referer"); got != "" {
		t.Errorf("Referer is %s", got)
	}
	loop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/"+secret, http.StatusFound) }))
	_, err := f.Archive(t.Context(), Request{URL: loop})
	failed(t, err, "Downloading failed", "attempt 1 of 4: more than 10 redirects")
}
