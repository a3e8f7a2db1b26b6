package helper

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// pack is a tar of entries; the content of each is its PAX record "content".
func pack(t *testing.T, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		content := h.Xattrs["content"] //nolint:staticcheck // only a place to keep it
		h.Xattrs, h.Size, h.ModTime = nil, int64(len(content)), time.Unix(1_000_000, 0)
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		check(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(content))
		check(t, err)
	}
	check(t, w.Close())
	return &buf
}

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Xattrs: map[string]string{"content": content}}
}

func dir(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
}

func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}

func hard(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree lists what is in a directory: mode, name, and content or target.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	check(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		check(t, err)
		name, _ := filepath.Rel(root, path)
		info, err := e.Info()
		check(t, err)
		text := fmt.Sprintf("%v %s", info.Mode(), name)
		switch info.Mode().Type() {
		case 0:
			content, err := os.ReadFile(path)
			check(t, err)
			text += "=" + string(content)
		case fs.ModeSymlink:
			to, err := os.Readlink(path)
			check(t, err)
			text = "link " + name + ">" + to
		}
		if name != "." {
			all = append(all, text)
		}
		return nil
	}))
	return all
}

func TestUntar(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		entries []tar.Header
		want    []string // "" for the error: what is there
		err     string
	}{
		{"files and directories", []tar.Header{dir("./", 0o700), dir("./d", 0o500), file("./d/a", "x"), file("e/f/g", "y"), file("/abs", "z")},
			[]string{"-rw-r--r-- abs=z", "dr-x------ d", "-rw-r--r-- d/a=x", "drwxr-xr-x e", "drwxr-xr-x e/f", "-rw-r--r-- e/f/g=y"}, ""},
		{"the last one wins", []tar.Header{file("a", "1"), file("a", "2"), link("b", "a"), file("b", "3"), dir("c", 0o755), file("c", "4")},
			[]string{"-rw-r--r-- a=2", "-rw-r--r-- b=3", "-rw-r--r-- c=4"}, ""},
		{"a directory over a file", []tar.Header{file("a", "1"), dir("a", 0o755), file("a/b", "2")}, []string{"drwxr-xr-x a", "-rw-r--r-- a/b=2"}, ""},
		{"a file over a directory that is full", []tar.Header{file("a/b", "1"), file("a", "2")}, nil, `entry "a": directory not empty`},
		{"hard links", []tar.Header{file("a", "1"), hard("d/b", "a"), hard("c", "/d/b")},
			[]string{"-rw-r--r-- a=1", "-rw-r--r-- c=1", "drwxr-xr-x d", "-rw-r--r-- d/b=1"}, ""},
		{"links inside", []tar.Header{dir("real", 0o755), link("to", "real"), file("to/a", "1"), dir("to", 0o755)},
			[]string{"drwxr-xr-x real", "-rw-r--r-- real/a=1", "link to>real"}, ""},
		{"links that lead out are only links", []tar.Header{link("out", "/etc"), link("up", "../..")}, []string{"link out>/etc", "link up>../.."}, ""},
		{"upwards", []tar.Header{file("a/../../x", "1")}, nil, `entry "a/../../x": path escapes from parent`},
		{"through a link", []tar.Header{link("out", "/tmp"), file("out/x", "1")}, nil, `entry "out/x": path escapes from parent`},
		{"through a relative link", []tar.Header{link("out", ".."), file("out/x", "1")}, nil, `entry "out/x": path escapes from parent`},
		{"a directory through a link", []tar.Header{link("out", ".."), dir("out/x", 0o755)}, nil, `entry "out/x": path escapes from parent`},
		{"a hard link out", []tar.Header{hard("x", "../x")}, nil, `entry "x": path escapes from parent`},
		{"a hard link through a link", []tar.Header{link("out", "/etc"), hard("x", "out/passwd")}, nil, `entry "x": path escapes from parent`},
		{"a device", []tar.Header{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}}, nil, `entry "null": it is of type '3': only files, directories and links can be extracted`},
		{"a pipe", []tar.Header{{Typeflag: tar.TypeFifo, Name: "p"}}, nil, `entry "p": it is of type '6': only files, directories and links can be extracted`},
		{"no name", []tar.Header{file(".", "x")}, nil, `entry ".": only a directory can have this name`},
		{"setuid goes", []tar.Header{{Typeflag: tar.TypeReg, Name: "s", Mode: 0o4755}}, []string{"-rwxr-xr-x s="}, ""},
	} {
		base := t.TempDir()
		at := filepath.Join(base, "deep", "to")
		check(t, os.MkdirAll(at, 0o755))
		to, err := os.OpenRoot(at)
		check(t, err)
		err = extract(to, pack(t, c.entries...), false)
		check(t, to.Close())
		if entry, why, _ := strings.Cut(c.err, ": "); c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), entry) || !strings.HasSuffix(err.Error(), why) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
		} else if diff := cmp.Diff(c.want, tree(t, at)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, err, diff)
		}
		if outside := slices.DeleteFunc(tree(t, base), func(l string) bool { return strings.Contains(l, "deep") }); len(outside) > 0 {
			t.Errorf("%s: outside is %q", c.name, outside)
		}
	}
}

// Root gets what the archive says; the times of directories are those of the archive, too.
func TestUntarAsRoot(t *testing.T) {
	t.Parallel()
	at := t.TempDir()
	to, err := os.OpenRoot(at)
	check(t, err)
	defer to.Close()
	suid := tar.Header{Typeflag: tar.TypeReg, Name: "d/s", Mode: 0o4755, Uid: 12, Gid: 34}
	d := dir("d", 0o1755)
	d.Uid = 56
	check(t, extract(to, pack(t, d, suid, tar.Header{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "s", Uid: 78}), true))
	for name, want := range map[string]string{"d": "dtrwxr-xr-x 56 0 1000000", "d/s": "urwxr-xr-x 12 34 1000000", "d/l": "Lrwxrwxrwx 78 0 -"} {
		info, err := os.Lstat(filepath.Join(at, name))
		check(t, err)
		stat := unix.Stat_t{}
		check(t, unix.Lstat(filepath.Join(at, name), &stat))
		at := fmt.Sprint(info.ModTime().Unix())
		if name == "d/l" {
			at = "-"
		}
		if got := fmt.Sprintf("%v %d %d %s", info.Mode(), stat.Uid, stat.Gid, at); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestUntarIsBounded(t *testing.T) {
	t.Parallel()
	to, err := os.OpenRoot(t.TempDir())
	check(t, err)
	defer to.Close()
	x := &extraction{to: to, left: 5}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 3, Mode: 0o644}
	check(t, x.entry(h, strings.NewReader("abc")))
	if err := x.entry(h, strings.NewReader("abc")); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("6 of 5 bytes: %v", err)
	}
}

func FuzzUntar(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, archive []byte) {
		base := t.TempDir()
		check(t, os.Mkdir(filepath.Join(base, "to"), 0o755))
		to, err := os.OpenRoot(filepath.Join(base, "to"))
		check(t, err)
		_ = extract(to, bytes.NewReader(archive), false)
		check(t, to.Close())
		entries, err := os.ReadDir(base)
		check(t, err)
		if len(entries) != 1 {
			t.Fatalf("outside is %v", entries)
		}
	})
}
