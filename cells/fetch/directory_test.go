package fetch

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"muster/cells/fetch/archive"
)

func TestDirectoryIsShared(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	f := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 1 << 20 })
	r := Request{URL: serve(t, o), CacheKey: "k"}
	content, first := directory(t, f, r, "c1")
	_, second := directory(t, f, r, "c2")
	_, again := directory(t, f, r, "c2")
	if content != "one" || first.Cached || !second.Cached || !again.Cached || first.Path != second.Path || first.Key != second.Key || len(first.Key) > 128 {
		t.Errorf("got %q, %+v, %+v", content, first, second)
	}
	info, err := os.Stat(first.Path)
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 4321 || stat.Gid != 4322 || info.Mode().Perm() != 0o755 {
		t.Errorf("%v belongs to %d:%d", info.Mode(), stat.Uid, stat.Gid)
	}
	// Another owner has a tree of its own.
	other, err := f.Directory(t.Context(), r, archive.Owner{}, "c3")
	if err != nil || other.Path == first.Path || other.Cached {
		t.Errorf("%+v %v", other, err)
	}
	f.Release("c3")

	o.set(tgz(t, "two"), `"2"`)
	content, changed := directory(t, f, r, "c4")
	if content != "two" || changed.Key == first.Key || !exists(first.Path) {
		t.Errorf("got %q, %+v", content, changed)
	}
	f.Release("c1")
	if !exists(first.Path) {
		t.Error("the old tree went with its first container")
	}
	f.Release("c2")
	f.Release("c4")
	if exists(first.Path) || !exists(changed.Path) {
		t.Error("the old tree is still there, or the new one is not")
	}
}

func TestDirectoryInUseIsNotEvicted(t *testing.T) {
	t.Parallel()
	f := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 5 << 20 })
	url := serve(t, big(t, 3))
	_, d := directory(t, f, Request{URL: url, CacheKey: "k"}, "c1")
	_, err := f.Archive(t.Context(), Request{URL: url})
	failed(t, err, "Downloading failed", "bytes of the cache are in use")
	f.Release("c1")
	_, a := get(t, f, Request{URL: url})
	if exists(d.Path) || !exists(a.Path) {
		t.Error("the tree was to make room")
	}
}

func TestDirectoryThatCannotBeKept(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one")}
	dir := t.TempDir()
	f := open(t, dir)
	_, err := f.Directory(t.Context(), Request{Name: "lib", URL: serve(t, o), CacheKey: "k"}, archive.Owner{}, "c1")
	failed(t, err, "Downloading lib failed", "Not cacheable directory: ETag and Last-Modified were missing from response")
	_, err = f.Directory(t.Context(), Request{URL: serve(t, o)}, archive.Owner{}, "c1")
	failed(t, err, "Downloading failed", "Not cacheable directory: cache key is missing")
	o.set([]byte(strings.Repeat("<html>", 200)), `"1"`)
	_, err = f.Directory(t.Context(), Request{URL: serve(t, o), CacheKey: "k"}, archive.Owner{}, "c1")
	failed(t, err, "Downloading failed", "bad archive")
	if left := files(t, dir); len(left) != 0 || f.Usage().Bytes != 0 {
		t.Errorf("left are %v, %+v", left, f.Usage())
	}
}
