package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var mtime = time.Unix(1_700_000_000, 0)

func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		content := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Linkname = int64(len(content)), ""
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.ModTime, h.Uid, h.Gid, h.Uname = mtime, 1234, 1234, "somebody"
		if h.Typeflag == tar.TypeXGlobalHeader {
			h = tar.Header{Typeflag: h.Typeflag, PAXRecords: h.PAXRecords}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// file returns a header whose Linkname is the content, for tarOf.
func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
}

func link(kind byte, name, to string) tar.Header {
	return tar.Header{Typeflag: kind, Name: name, Linkname: to}
}

func gzipOf(t testing.TB, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type zipped struct {
	name, content string
	mode          fs.FileMode
}

func zipOf(t testing.TB, files ...zipped) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: mtime}
		h.SetMode(f.mode)
		part, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(part, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unlimited(int64) error { return nil }

// toTar converts an archive and lists what came out.
func toTar(t testing.TB, src []byte) (list []string, raw []byte, err error) {
	t.Helper()
	var out bytes.Buffer
	if err := Read(context.Background(), bytes.NewReader(src), NewTar(&out, unlimited), t.TempDir(), unlimited); err != nil {
		return nil, nil, err
	}
	raw = slices.Clone(out.Bytes())
	in := tar.NewReader(&out)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return list, raw, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s has an owner: %d:%d %s", h.Name, h.Uid, h.Gid, h.Uname)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%c %s %o %s%s", h.Typeflag, h.Name, h.Mode, h.Linkname, content))
	}
}

// toTree unpacks an archive and lists what came out.
func toTree(t testing.TB, src []byte, owner Owner) (dir string, list []string, err error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Read(context.Background(), bytes.NewReader(src), NewTree(root, owner, unlimited), t.TempDir(), unlimited); err != nil {
		return dir, nil, err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if stat := info.Sys().(*syscall.Stat_t); int(stat.Uid) != owner.UID || int(stat.Gid) != owner.GID {
			t.Errorf("%s belongs to %d:%d", path, stat.Uid, stat.Gid)
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(raw)
			if !info.ModTime().Equal(mtime) {
				t.Errorf("%s was changed at %v", path, info.ModTime())
			}
		case info.Mode().Type() == fs.ModeSymlink:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		name, err := filepath.Rel(dir, path)
		list = append(list, fmt.Sprintf("%v %s %s", info.Mode(), name, content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir, list, nil
}

func sample(t testing.TB) []byte {
	return tarOf(t,
		tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "of git"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "./bin/", Mode: 0o2755},
		tar.Header{Typeflag: tar.TypeReg, Name: "./bin/app", Linkname: "#!", Mode: 0o4755},
		link(tar.TypeSymlink, "bin/latest", "app"),
		link(tar.TypeSymlink, "elsewhere", "/etc/passwd"),
		link(tar.TypeLink, "/copy", "/bin/app"),
		file("deep/er/file", strings.Repeat("x", 10)),
		tar.Header{Typeflag: tar.TypeReg, Name: "secret", Linkname: "s", Mode: 0o7000},
	)
}

func TestTarBecomesPlain(t *testing.T) {
	t.Parallel()
	want := []string{"5 ./ 755 ", "5 bin/ 755 ", "0 bin/app 755 #!", "2 bin/latest 644 app", "2 elsewhere 644 /etc/passwd",
		"1 copy 644 bin/app", "0 deep/er/file 644 xxxxxxxxxx", "0 secret 400 s"}
	plain := sample(t)
	for name, src := range map[string][]byte{
		"tar": plain, "tar.gz": gzipOf(t, plain), "padded": append(gzipOf(t, plain), make([]byte, 1024)...),
		"without end marker": plain[:len(plain)-1024], "two gzip members": append(gzipOf(t, plain[:700]), gzipOf(t, plain[700:])...),
	} {
		got, raw, err := toTar(t, src)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
			continue
		}
		again, _, err := toTar(t, raw)
		if diff := cmp.Diff(want, again); err != nil || diff != "" {
			t.Errorf("%s: converted twice: %v %s", name, err, diff)
		}
	}
}

func TestTreeBelongsToItsOwner(t *testing.T) {
	t.Parallel()
	want := []string{"drwxr-xr-x bin ", "-rwxr-xr-x bin/app #!", "Lrwxrwxrwx bin/latest app", "-rwxr-xr-x copy #!", "drwxr-xr-x deep ",
		"drwxr-xr-x deep/er ", "-rw-r--r-- deep/er/file xxxxxxxxxx", "Lrwxrwxrwx elsewhere /etc/passwd", "-r-------- secret s"}
	dir, got, err := toTree(t, gzipOf(t, sample(t)), Owner{UID: 4321, GID: 4322})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	app, err1 := os.Stat(filepath.Join(dir, "bin/app"))
	linked, err2 := os.Stat(filepath.Join(dir, "copy"))
	if err1 != nil || err2 != nil || !os.SameFile(app, linked) {
		t.Error("the hard link is another file")
	}
}

func TestZip(t *testing.T) {
	t.Parallel()
	src := zipOf(t, zipped{"dir/", "", fs.ModeDir | 0o755}, zipped{"dir/app", "text", 0o755}, zipped{"l", "dir/app", fs.ModeSymlink | 0o777},
		zipped{"none", "n", 0})
	want := []string{"5 dir/ 755 ", "0 dir/app 755 text", "2 l 777 dir/app", "0 none 400 n"}
	got, _, err := toTar(t, src)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	_, list, err := toTree(t, src, Owner{})
	want = []string{"drwxr-xr-x dir ", "-rwxr-xr-x dir/app text", "Lrwxrwxrwx l dir/app", "-r-------- none n"}
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if got, _, err := toTar(t, zipOf(t)); err != nil || len(got) != 0 {
		t.Errorf("an empty zip file: %v %v", got, err)
	}
}

// Whatever an archive says, both sinks refuse it with a text that says why.
func TestBadArchives(t *testing.T) {
	t.Parallel()
	plain := tarOf(t, file("a", strings.Repeat("text ", 400)))
	corrupt := zipOf(t, zipped{"a", strings.Repeat("x", 50), 0o644})
	corrupt[bytes.Index(corrupt, []byte("PK\x07\x08"))+4] ^= 1 // the sum of the content, in both places
	corrupt[bytes.Index(corrupt, []byte("PK\x01\x02"))+16] ^= 1
	for name, row := range map[string]struct {
		src  []byte
		want string
	}{
		"empty":               {nil, "it is empty"},
		"no archive":          {[]byte(strings.Repeat("<html>", 200)), "neither tar, tar.gz nor zip"},
		"short":               {[]byte("x"), "unexpected EOF"},
		"gzip of no archive":  {gzipOf(t, []byte(strings.Repeat("text", 200))), "neither tar, tar.gz nor zip"},
		"gzip, cut":           {gzipOf(t, plain)[:60], "unexpected EOF"},
		"tar, cut":            {plain[:700], "unexpected EOF"},
		"zip, cut":            {corrupt[:60], "not a valid zip file"},
		"zip, wrong sum":      {corrupt, "checksum error"},
		"a name with ..":      {tarOf(t, file("../a", "x")), `the name "../a" has .. in it`},
		"a .. within":         {tarOf(t, file("a/../b", "x")), "has .. in it"},
		"zip with ..":         {zipOf(t, zipped{"../a", "x", 0o644}), "has .. in it"},
		"a hard link out":     {tarOf(t, link(tar.TypeLink, "a", "../../etc/shadow")), "has .. in it"},
		"a device":            {tarOf(t, link(tar.TypeChar, "null", "")), "neither a file, a directory nor a link"},
		"a block device":      {tarOf(t, link(tar.TypeBlock, "sda", "")), "neither a file, a directory nor a link"},
		"a named pipe":        {tarOf(t, link(tar.TypeFifo, "pipe", "")), "neither a file, a directory nor a link"},
		"zip with a device":   {zipOf(t, zipped{"null", "", fs.ModeDevice | fs.ModeCharDevice | 0o666}), "neither a file, a directory nor a link"},
		"the root as a file":  {tarOf(t, file(".", "x")), "the name of the whole"},
		"a long name":         {tarOf(t, file(strings.Repeat("abcdefg/", 513)+"x", "x")), "at most 4095"},
		"a long element":      {tarOf(t, file(strings.Repeat("a", 256), "x")), "at most 255"},
		"a long link":         {tarOf(t, link(tar.TypeSymlink, "a", strings.Repeat("b", 4096))), "at most 4095"},
		"an empty link":       {zipOf(t, zipped{"a", "", fs.ModeSymlink | 0o777}), "a name is empty"},
		"a link with NUL":     {zipOf(t, zipped{"a", "b\x00c", fs.ModeSymlink | 0o777}), "NUL"},
		"too large":           {tooLarge(t), "more than 8589934592 bytes"},
		"zip, long directory": {longDirectory(t), "its directory is too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := toTar(t, row.src)
			_, _, err2 := toTree(t, row.src, Owner{})
			for _, err := range []error{err, err2} {
				var wrong *Error
				if !errors.As(err, &wrong) || !strings.Contains(err.Error(), row.want) {
					t.Errorf("got %v, want %s", err, row.want)
				}
			}
		})
	}
}

// tooLarge returns the beginning of a tar file with a file that no limit allows.
func tooLarge(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: MaxBytes + 1}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// longDirectory returns a zip file with more entries in its directory than should be in memory.
func longDirectory(t testing.TB) []byte {
	t.Helper()
	one := zipOf(t, zipped{"a", "", 0o644})
	at := bytes.Index(one, []byte("PK\x01\x02"))
	end := bytes.Index(one, []byte("PK\x05\x06"))
	entry := one[at:end]
	entry = append(slices.Clone(entry[:46+1]), entry[46+1:]...)
	n := maxZipDirectory/len(entry) + 1000
	out := slices.Concat(one[:at], bytes.Repeat(entry, n))
	tail := slices.Clone(one[end:])
	size := uint32(n * len(entry))
	tail[12], tail[13], tail[14], tail[15] = byte(size), byte(size>>8), byte(size>>16), byte(size>>24)
	return append(out, tail...)
}

// A sink that is full, and a source that breaks, are no faults of the archive.
func TestOthersFaults(t *testing.T) {
	t.Parallel()
	full := errors.New("no room")
	refuse := func(int64) error { return full }
	for name, src := range map[string][]byte{"tar": sample(t), "zip": zipOf(t, zipped{"a", "x", 0o644})} {
		err := Read(context.Background(), bytes.NewReader(src), NewTar(io.Discard, refuse), t.TempDir(), refuse)
		if err != full {
			t.Errorf("%s without room: %v", name, err)
		}
		broken := errors.New("connection reset")
		cut := io.MultiReader(bytes.NewReader(src[:len(src)/2]), &failing{broken})
		if err := Read(context.Background(), cut, NewTar(io.Discard, unlimited), t.TempDir(), unlimited); err != broken {
			t.Errorf("%s, source broken: %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// Links of an archive lead no later entry of it out of the tree.
func TestNothingLeavesTheTree(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	for name, src := range map[string][]byte{
		"through an absolute link": tarOf(t, link(tar.TypeSymlink, "a", outside), file("a/evil", "x")),
		"through a relative link":  tarOf(t, link(tar.TypeSymlink, "a", "../../../../../../../../.."+outside), file("a/evil", "x")),
		"over a link":              tarOf(t, link(tar.TypeSymlink, "a", outside+"/evil"), file("a", "x")),
		"a directory over a link":  tarOf(t, link(tar.TypeSymlink, "a", outside), tar.Header{Typeflag: tar.TypeDir, Name: "a", Mode: 0o777}, file("a/evil", "x")),
		"a chain of links":         tarOf(t, link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", outside), file("a/evil", "x")),
		"zip":                      zipOf(t, zipped{"a", outside, fs.ModeSymlink | 0o777}, zipped{"a/evil", "x", 0o644}),
	} {
		dir, list, err := toTree(t, src, Owner{})
		var wrong *Error
		if err != nil && !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("%s: %v appeared outside of %s, with %v in it (%v)", name, left, dir, list, err)
		}
	}
}

// Through a link that stays inside files do arrive, and a later entry replaces an earlier one.
func TestEntriesReplaceEarlierOnes(t *testing.T) {
	t.Parallel()
	src := tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "real", Mode: 0o755}, link(tar.TypeSymlink, "alias", "real"), file("alias/a", "1"),
		link(tar.TypeLink, "kept", "real/a"), file("real/a", "2"), file("f", "x"), file("f/below", "y"))
	_, list, err := toTree(t, src, Owner{})
	want := []string{"Lrwxrwxrwx alias real", "drwxr-xr-x f ", "-rw-r--r-- f/below y", "-rw-r--r-- kept 1", "drwxr-xr-x real ", "-rw-r--r-- real/a 2"}
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// A tree costs whole blocks, so that many tiny files cannot fill the disk unseen.
func TestRoomOfTrees(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var asked int64
	room := func(n int64) error { asked += n; return nil }
	src := tarOf(t, file("a", "x"), file("b", strings.Repeat("x", 4097)), link(tar.TypeSymlink, "c", "a"))
	if err := Read(context.Background(), bytes.NewReader(src), NewTree(root, Owner{}, room), t.TempDir(), room); err != nil || asked != 6*4096 {
		t.Errorf("asked for %d bytes, %v", asked, err)
	}
}

func TestTooManyEntries(t *testing.T) {
	t.Parallel()
	c := &counter{ctx: context.Background(), sink: NewTar(io.Discard, unlimited), entries: MaxEntries}
	if err := c.take(Entry{Name: "a"}, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "more than 250000 entries") {
		t.Error(err)
	}
}

// FuzzRead feeds both sinks with anything: no panic, nothing outside, and what comes out is a plain tar file.
func FuzzRead(f *testing.F) {
	for _, seed := range [][]byte{sample(f), gzipOf(f, sample(f)), zipOf(f, zipped{"dir/", "", fs.ModeDir | 0o755}, zipped{"l", "/etc", fs.ModeSymlink | 0o777},
		zipped{"l/x", "text", 0o644}), tarOf(f, link(tar.TypeSymlink, "a", "/etc"), file("a/b", "x"), link(tar.TypeLink, "c", "a/b"))} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var wrong *Error
		budget := func() Room {
			left := int64(16 << 20)
			return func(n int64) error {
				if left -= n; left < 0 {
					return &Error{Err: errors.New("out of budget")}
				}
				return nil
			}
		}
		var out bytes.Buffer
		err := Read(context.Background(), bytes.NewReader(src), NewTar(&out, budget()), t.TempDir(), budget())
		if err != nil && !errors.As(err, &wrong) {
			t.Fatalf("to tar: %v", err)
		}
		if err == nil && out.Len() > 0 {
			plain(t, out.Bytes())
		}
		outer := t.TempDir()
		dir := filepath.Join(outer, "a", "b")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := Read(context.Background(), bytes.NewReader(src), NewTree(root, Owner{UID: 7, GID: 7}, budget()), t.TempDir(), budget()); err != nil && !errors.As(err, &wrong) {
			t.Fatalf("to a tree: %v", err)
		}
		if around, err := filepath.Glob(filepath.Join(outer, "*", "*")); err != nil || len(around) != 1 {
			t.Fatalf("around the tree: %v %v", around, err)
		}
		if above, err := os.ReadDir(outer); err != nil || len(above) != 1 {
			t.Fatalf("above the tree: %v %v", above, err)
		}
	})
}

// plain checks that only names that stay inside, and no devices, are in a tar file.
func plain(t *testing.T, raw []byte) {
	t.Helper()
	in := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := in.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsLocal(h.Name) || h.Typeflag == tar.TypeLink && !filepath.IsLocal(h.Linkname) {
			t.Fatalf("%q leads out", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
		default:
			t.Fatalf("%q is a %c", h.Name, h.Typeflag)
		}
	}
}
