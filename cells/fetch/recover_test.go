package fetch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/fetch/archive"
)

func TestWhatIsKeptOutlivesTheFetcher(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	r := Request{URL: serve(t, o), CacheKey: "k"}
	dir := t.TempDir()
	f := open(t, dir)
	_, a := get(t, f, r)
	a.Close()
	before := f.Usage()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir)
	if after := f.Usage(); after != before {
		t.Errorf("%+v, was %+v", after, before)
	}
	if content, a := get(t, f, r); content != "one" || !a.Cached {
		t.Errorf("got %q, %+v", content, a)
	}
}

// The order of use is kept, and a smaller bound holds at once.
func TestSmallerBound(t *testing.T) {
	t.Parallel()
	url := serve(t, big(t, 2))
	dir := t.TempDir()
	f := open(t, dir)
	paths := map[string]string{}
	for _, key := range []string{"a", "b", "a"} {
		_, a := get(t, f, Request{URL: url, CacheKey: key})
		a.Close()
		paths[key] = a.Path
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, func(c *Config) { c.MaxBytes = 3 << 20 })
	if !exists(paths["a"]) || exists(paths["b"]) {
		t.Error("b was to go")
	}
}

// Trees stay until it was said who uses them, superseded ones too.
func TestAdoption(t *testing.T) {
	t.Parallel()
	o := big(t, 2)
	r := Request{URL: serve(t, o), CacheKey: "k"}
	dir := t.TempDir()
	f := open(t, dir)
	_, old := directory(t, f, r, "c1")
	_, unused := directory(t, f, Request{URL: r.URL, CacheKey: "other"}, "c3")
	o.set(o.content, `"new"`)
	_, current := directory(t, f, r, "c2")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	f = open(t, dir, func(c *Config) { c.MaxBytes = 5 << 20 })
	for _, d := range []Directory{old, current, unused} {
		if !exists(d.Path) {
			t.Fatalf("%s went before it was said who uses it", d.Path)
		}
	}
	err := f.Keep("c1", old.Key, "gone.KEY")
	if err == nil || err.Error() != "directories of container c1 that are not there: [gone.KEY]" {
		t.Error(err)
	}
	f.Settle()
	if !exists(old.Path) || !exists(current.Path) || exists(unused.Path) {
		t.Error("of those that nobody uses the least recently used was to go, and no other")
	}
	if _, d := directory(t, f, r, "c4"); !d.Cached || d.Key != current.Key {
		t.Errorf("found is %+v", d)
	}
	f.Release("c1")
	if exists(old.Path) {
		t.Error("the superseded tree is still there")
	}
}

func TestTwoOfThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir)
	cfg := Defaults()
	cfg.Dir = dir
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "is used by another process") {
		t.Error(err)
	}
}

// Whatever a crash left, or somebody did to the files, is dropped, and downloaded anew.
func TestDamage(t *testing.T) {
	t.Parallel()
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	edit := func(from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			raw, err := os.ReadFile(filepath.Join(dir, metaName))
			if err != nil || !strings.Contains(string(raw), from) {
				t.Fatal(string(raw), err)
			}
			write(metaName, strings.Replace(string(raw), from, to, 1))(t, dir)
		}
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"no meta data":           remove(metaName),
		"empty meta data":        write(metaName, ""),
		"half of the meta data":  write(metaName, `{"Version":1,"ETag":"`),
		"long meta data":         write(metaName, strings.Repeat(" ", maxMeta+1)),
		"another version":        edit(`"Version":1`, `"Version":2`),
		"no validators":          edit(`"ETag":`, `"Etagere":`),
		"no content":             remove(contentName),
		"less content":           write(contentName, "x"),
		"content is a directory": func(t *testing.T, dir string) { remove(contentName)(t, dir); mkdir(t, filepath.Join(dir, contentName)) },
		"a strange name": func(t *testing.T, dir string) {
			if err := os.Rename(dir, filepath.Join(filepath.Dir(dir), "strange")); err != nil {
				t.Fatal(err)
			}
		},
		"tree of an earlier boot": edit(boot, "earlier"),
		"no tree":                 remove(treeName),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &origin{content: tgz(t, "one"), etag: `"1"`}
			r := Request{URL: serve(t, o), CacheKey: "k"}
			dir := t.TempDir()
			f := open(t, dir)
			isTree := strings.Contains(name, "tree")
			if isTree {
				directory(t, f, r, "c1")
			} else {
				_, a := get(t, f, r)
				a.Close()
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(filepath.Join(dir, "entries"))
			if err != nil || len(entries) != 1 {
				t.Fatal(entries, err)
			}
			damage(t, filepath.Join(dir, "entries", entries[0].Name()))
			f = open(t, dir)
			if left := files(t, dir); len(left) != 0 || f.Usage().Bytes != 0 {
				t.Errorf("left are %v, %+v", left, f.Usage())
			}
			if isTree {
				if content, d := directory(t, f, r, "c1"); content != "one" || d.Cached {
					t.Errorf("got %q, %+v", content, d)
				}
			} else if content, a := get(t, f, r); content != "one" || a.Cached {
				t.Errorf("got %q, %+v", content, a)
			}
		})
	}
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestMain lets the test program be a cell that downloads: see TestKilled.
func TestMain(m *testing.M) {
	if dir := os.Getenv("FETCH_TEST_DIR"); dir != "" {
		download(dir, os.Getenv("FETCH_TEST_URL"))
		return
	}
	os.Exit(m.Run())
}

// download keeps one archive and one directory, says so, and goes on with downloads that do not end.
func download(dir, url string) {
	cfg := Defaults()
	cfg.Dir = dir
	f, err := Open(cfg)
	if err == nil {
		_, err = f.Archive(context.Background(), Request{URL: url + "/whole", CacheKey: "k"})
	}
	if err == nil {
		_, err = f.Directory(context.Background(), Request{URL: url + "/whole", CacheKey: "k"}, archive.Owner{}, "c1")
	}
	fmt.Println("ready", err)
	for _, key := range []string{"k", "l", ""} {
		go func() { _, _ = f.Archive(context.Background(), Request{URL: url + "/endless", CacheKey: key}) }()
	}
	_, _ = f.Directory(context.Background(), Request{URL: url + "/endless", CacheKey: "k"}, archive.Owner{}, "c2")
}

// A cell that is killed in the middle of downloads leaves what was whole, and nothing of the rest.
func TestKilled(t *testing.T) {
	t.Parallel()
	o := &origin{content: tgz(t, "one"), etag: `"1"`}
	underWay := make(chan struct{}, 4)
	stop := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/whole", o)
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"2"`)
		half := tarOfNoise(1 << 20)
		_, _ = w.Write(half)
		_ = http.NewResponseController(w).Flush()
		underWay <- struct{}{}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	url := serve(t, mux)
	defer close(stop)
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FETCH_TEST_DIR="+dir, "FETCH_TEST_URL="+url)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready <nil>\n" {
		t.Fatal(line, err)
	}
	for range 4 {
		<-underWay
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if left := files(t, filepath.Join(dir, "tmp")); len(left) == 0 {
		t.Fatal("nothing was under way")
	}
	f := open(t, dir)
	if left := files(t, filepath.Join(dir, "tmp")); len(left) != 0 || f.Usage().Entries != 2 {
		t.Errorf("left are %v, %+v", left, f.Usage())
	}
	if content, a := get(t, f, Request{URL: url + "/whole", CacheKey: "k"}); content != "one" || !a.Cached {
		t.Errorf("got %q, %+v", content, a)
	}
	d, err := f.Directory(t.Context(), Request{URL: url + "/whole", CacheKey: "k"}, archive.Owner{}, "c1")
	if err != nil || !d.Cached {
		t.Errorf("%+v %v", d, err)
	}
}

// tarOfNoise returns the beginning of a tar file with a file that is longer.
func tarOfNoise(n int) []byte {
	header := make([]byte, 512)
	copy(header, "noise")
	copy(header[100:], "0000644\x00")
	copy(header[124:], "77777777777\x00")
	copy(header[156:], "0")
	copy(header[257:], "ustar\x0000")
	copy(header[148:], "        ")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(header, make([]byte, n)...)
}

// A disk that is full is said so, and has as much space afterwards as before.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	url := serve(t, big(t, 5))
	f := open(t, dir)
	space := func() uint64 {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			t.Fatal(err)
		}
		return s.Bfree
	}
	before := space()
	_, err := f.Archive(t.Context(), Request{Name: "app", URL: url, CacheKey: "k"})
	_, err2 := f.Directory(t.Context(), Request{Name: "app", URL: url, CacheKey: "k"}, archive.Owner{}, "c1")
	for _, err := range []error{err, err2} {
		failed(t, err, "Downloading app failed", "attempt 1 of 4: no space left on the cell")
		if !errors.Is(err, engine.ErrNoSpace) {
			t.Error(err)
		}
	}
	if after := space(); after != before || len(files(t, dir)) != 0 || f.Usage().Bytes != 0 {
		t.Errorf("%d blocks were free, now %d; left are %v, %+v", before, after, files(t, dir), f.Usage())
	}
}

// Close ends what is under way, and what comes later.
func TestClose(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	f := open(t, t.TempDir())
	failures := make(chan error, 2)
	go func() {
		_, err := f.Archive(context.Background(), Request{URL: url, CacheKey: "k"})
		failures <- err
	}()
	go func() {
		_, err := f.Upload(context.Background(), Request{URL: url}, strings.NewReader("x"), 1)
		failures <- err
	}()
	<-arrived
	<-arrived
	begin := time.Now()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-failures; !errors.Is(err, errClosed) {
			t.Error(errors.Unwrap(err))
		}
	}
	_, err := f.Archive(context.Background(), Request{URL: url, CacheKey: "k"})
	_, err2 := f.Upload(context.Background(), Request{URL: url}, strings.NewReader("x"), 1)
	if !errors.Is(err, errClosed) || !errors.Is(err2, errClosed) || time.Since(begin) > StallTimeout/2 {
		t.Errorf("%v, %v after %v", errors.Unwrap(err), errors.Unwrap(err2), time.Since(begin))
	}
}
