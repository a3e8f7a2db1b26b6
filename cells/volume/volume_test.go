package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"muster/bbs/lrp"
	"muster/cells/engine"
)

func open(t *testing.T, dir string) *Driver {
	t.Helper()
	d, err := Open(Config{Dir: dir, Driver: DefaultDriver})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func shared(name, mode, config string) lrp.VolumeMount {
	return lrp.VolumeMount{Driver: DefaultDriver, ContainerDir: "/data", Mode: mode, Shared: &lrp.SharedDevice{VolumeID: name, MountConfig: config}}
}

func mount(t *testing.T, d *Driver, id engine.ID, m lrp.VolumeMount) (string, bool) {
	t.Helper()
	source, readOnly, err := d.Mount(id, m)
	if err != nil {
		t.Fatal(err)
	}
	return source, readOnly
}

// tree lists all below a directory, but what is in volumes.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*/*", "*/.*", "mounts/*/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			rel, _ := filepath.Rel(dir, f)
			if !slices.Contains(out, rel) {
				out = append(out, rel)
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestContainersShareAVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	a, readOnly := mount(t, d, "a", shared("v", "rw", ""))
	if readOnly {
		t.Error("rw is read-only")
	}
	b, readOnly := mount(t, d, "b", shared("v", "r", ""))
	if !readOnly {
		t.Error("r is not read-only")
	}
	if a != filepath.Join(dir, "volumes", "v") || a != b {
		t.Errorf("a has %s, b has %s", a, b)
	}
	other, _ := mount(t, d, "b", shared("w", "rw", ""))
	if other == a {
		t.Error("two volumes in one place")
	}
	if err := os.WriteFile(filepath.Join(a, "file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []engine.ID{"a", "b", "b", "never"} {
		if err := d.Unmount(id); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := tree(t, dir), []string{"volumes/v", "volumes/w"}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	a, _ = mount(t, d, "c", shared("v", "rw", ""))
	if text, err := os.ReadFile(filepath.Join(a, "file")); err != nil || string(text) != "kept" {
		t.Errorf("the next container reads %q, %v", text, err)
	}
}

func TestOwnerAndMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // which must not matter
	d := open(t, t.TempDir())
	for i, c := range []struct {
		config   string
		uid, gid uint32
		mode     os.FileMode
		readOnly bool
	}{
		{``, 0, 0, 0o777, false},
		{`{}`, 0, 0, 0o777, false},
		{`{"uid":1000,"gid":2000,"mode":"0750"}`, 1000, 2000, 0o750, false},
		{`{"uid":"1000","gid":"2147483646","mode":"0","readonly":true}`, 1000, 2147483646, 0, true},
	} {
		source, readOnly := mount(t, d, "a", shared(fmt.Sprint("v", i), "rw", c.config))
		info, err := os.Stat(source)
		if err != nil {
			t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		if owner.Uid != c.uid || owner.Gid != c.gid || info.Mode() != os.ModeDir|c.mode || readOnly != c.readOnly {
			t.Errorf("%s: owner %d:%d, mode %v, read-only %v", c.config, owner.Uid, owner.Gid, info.Mode(), readOnly)
		}
	}
	// What is there stays as it is.
	source, _ := mount(t, d, "b", shared("v2", "rw", `{"uid":1,"mode":"0700"}`))
	info, err := os.Stat(source)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o750 || info.Sys().(*syscall.Stat_t).Uid != 1000 {
		t.Errorf("the second mount made it %v", info.Mode())
	}
}

func TestReferencesSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	for _, id := range []engine.ID{"a", "b"} {
		mount(t, d, id, shared("v", "rw", ""))
		mount(t, d, id, shared("v", "r", "")) // twice is once
	}
	mount(t, d, "c", shared("w", "rw", ""))
	if err := d.Unmount("c"); err != nil {
		t.Fatal(err)
	}
	d.Close()

	d = open(t, dir)
	if ids, err := d.Containers(); err != nil || !slices.Equal(ids, []engine.ID{"a", "b"}) {
		t.Errorf("containers are %q, %v", ids, err)
	}
	volumes, err := d.Volumes()
	if err != nil || len(volumes) != 2 || !slices.Equal(volumes[0].By, []engine.ID{"a", "b"}) || volumes[1].Name != "w" || volumes[1].By != nil {
		t.Errorf("volumes are %+v, %v", volumes, err)
	}
	if err := d.Delete("v"); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "2 containers, the first is a") {
		t.Errorf("deleting what is in use: %v", err)
	}
	for _, step := range []error{d.Unmount("a"), d.Unmount("b"), d.Delete("v"), d.Delete("v"), d.Delete("w")} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if left := tree(t, dir); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// Whatever step a life ended after, the next one finds no half volume, and both Mount and Delete work.
func TestCrashLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	for name, left := range map[string][]string{
		"referred":  {"mounts/a/v"},
		"half made": {"mounts/a/v", "volumes/.new-v/x"},
		"deleting":  {"volumes/.gone-v/x/y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, path := range left {
				path = filepath.Join(dir, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			d := open(t, dir)
			if found, err := filepath.Glob(filepath.Join(dir, "volumes", ".*")); err != nil || len(found) > 0 {
				t.Errorf("still there are %q, %v", found, err)
			}
			if volumes, err := d.Volumes(); err != nil || len(volumes) > 0 {
				t.Errorf("volumes are %+v, %v", volumes, err)
			}
			source, _ := mount(t, d, "a", shared("v", "rw", ""))
			if inside, err := os.ReadDir(source); err != nil || len(inside) > 0 {
				t.Errorf("inside the volume are %v, %v", inside, err)
			}
			if err := errors.Join(d.Unmount("a"), d.Delete("v")); err != nil {
				t.Fatal(err)
			}
			if left := tree(t, dir); len(left) > 0 {
				t.Errorf("left are %q", left)
			}
		})
	}
}

func TestNoNameLeadsOutside(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "driver")
	d := open(t, dir)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := errors.Join(os.Mkdir(outside, 0o700), os.Symlink(outside, filepath.Join(dir, "volumes", "link")),
		os.Symlink(outside, filepath.Join(dir, "mounts", "link"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc", ".new-v", "a\x00b", "a b", "ü", strings.Repeat("a", 129)} {
		var field *FieldError
		if _, _, err := d.Mount("a", shared(name, "rw", "")); !errors.As(err, &field) || field.Field != "shared.volume_id" {
			t.Errorf("volume %q: %v", name, err)
		}
		if err := d.Delete(name); !errors.As(err, &field) || field.Field != "volume" {
			t.Errorf("delete %q: %v", name, err)
		}
		if _, _, err := d.Mount(engine.ID(name), shared("v", "rw", "")); !errors.As(err, &field) || field.Field != "container" {
			t.Errorf("container %q: %v", name, err)
		}
		if err := d.Unmount(engine.ID(name)); !errors.As(err, &field) || field.Field != "container" {
			t.Errorf("unmount %q: %v", name, err)
		}
	}
	if _, _, err := d.Mount("a", shared("link", "rw", "")); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Errorf("a link as a volume: %v", err)
	}
	if _, _, err := d.Mount("link", shared("v", "rw", "")); err == nil {
		t.Error("a link as a container is accepted")
	}
	if err := errors.Join(d.Unmount("link"), d.Unmount("a"), d.Delete("link")); err != nil {
		t.Error(err)
	}
	if inside, err := os.ReadDir(outside); err != nil || len(inside) > 0 {
		t.Errorf("outside are %v, %v", inside, err)
	}
}

func TestFieldErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	change := func(f func(*lrp.VolumeMount)) lrp.VolumeMount {
		m := shared("v", "rw", "")
		f(&m)
		return m
	}
	for want, m := range map[string]lrp.VolumeMount{
		`driver is "nfs": want local`:                              change(func(m *lrp.VolumeMount) { m.Driver = "nfs" }),
		`driver is "": want local`:                                 change(func(m *lrp.VolumeMount) { m.Driver = "" }),
		`mode is "w": want r or rw`:                                shared("v", "w", ""),
		`dedicated.mounter_id is "m": want none`:                   change(func(m *lrp.VolumeMount) { m.Dedicated = &lrp.DedicatedDevice{MounterID: "m"} }),
		`shared.volume_id is "": want 1 to 128`:                    change(func(m *lrp.VolumeMount) { m.Shared = nil }),
		`shared.mount_config is "…": want a JSON object`:           shared("v", "rw", `{"password":"s3cret"}`),
		`shared.mount_config is "…": want a`:                       shared("v", "rw", `{} {}`),
		`shared.mount_config is "16385 bytes": want at most 16384`: shared("v", "rw", strings.Repeat(" ", 16385)),
		`shared.mount_config.uid is "-1": want 0 to 2147483646`:    shared("v", "rw", `{"uid":-1}`),
		`shared.mount_config.uid is "1.5": want 0`:                 shared("v", "rw", `{"uid":1.5}`),
		`shared.mount_config.gid is "2147483647": want`:            shared("v", "rw", `{"gid":2147483647}`),
		`shared.mount_config.mode is "4755": want an octal`:        shared("v", "rw", `{"mode":"4755"}`),
		`shared.mount_config.mode is "9": want an octal number`:    shared("v", "rw", `{"mode":"9"}`),
	} {
		_, _, err := d.Mount("a", m)
		var field *FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if left := tree(t, dir); len(left) > 0 {
		t.Errorf("refused mounts left %q", left)
	}
	_, err := Open(Config{Dir: "relative", Driver: ".."})
	for _, want := range []string{`dir is "relative": want an absolute path`, `driver is "..": want 1 to 128`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestNumberOfVolumesIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	for i := range MaxVolumes {
		if err := os.Mkdir(filepath.Join(dir, "volumes", fmt.Sprint("v", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := d.Mount("a", shared("one-more", "rw", "")); err == nil || !strings.Contains(err.Error(), "has 10000 volumes") {
		t.Errorf("one more: %v", err)
	}
	mount(t, d, "a", shared("v7", "rw", ""))
}

// No volume is deleted between the moment a container is told of it and the moment it unmounts it.
func TestNoVolumeIsDeletedUnderAContainer(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	var all sync.WaitGroup
	for i := range 8 {
		id := engine.ID(fmt.Sprint("c", i))
		all.Go(func() {
			for range 200 {
				source, _, err := d.Mount(id, shared("v", "rw", ""))
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(source, string(id)), nil, 0o600); err != nil {
					t.Error(err)
					return
				}
				if err := d.Unmount(id); err != nil {
					t.Error(err)
					return
				}
				if err := d.Delete("v"); err != nil && !errors.Is(err, ErrInUse) {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
