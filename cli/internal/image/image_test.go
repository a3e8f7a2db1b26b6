package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"muster/cli/internal/image"
	build "muster/integration/apps/image"
)

// makeImage makes an image for a platform, with some content.
func makeImage(t *testing.T, arch string, size int) v1.Image {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data) // so that it does not shrink
	img, err := build.FromFiles([]build.File{{Path: "/bin/app", Mode: 0o755, Data: data}}, build.Config{
		Architecture: arch, Env: []string{"A=b"}, User: "app", Dir: "/srv", Command: []string{"/bin/app", "-x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func archive(t *testing.T, images ...v1.Image) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "app.tar")
	if err := build.WriteArchive(file, images...); err != nil {
		t.Fatal(err)
	}
	return file
}

func open(t *testing.T, ref string) *image.Image {
	t.Helper()
	img, err := image.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

func TestLocalImages(t *testing.T) {
	t.Parallel()
	app := makeImage(t, "amd64", 1000)
	layout := t.TempDir()
	if err := build.WriteLayout(layout, app); err != nil {
		t.Fatal(err)
	}
	file := archive(t, app)
	spool := filepath.Join(t.TempDir(), "images")
	var first string
	for _, ref := range []string{file, "oci-archive:" + file, "oci-archive://" + file, layout, "oci-layout:" + layout} {
		img := open(t, ref)
		if !img.Local() || img.Config.User != "app" || img.Config.WorkingDir != "/srv" || len(img.Config.Cmd) != 2 {
			t.Errorf("%s: configuration %+v", ref, img.Config)
		}
		if err := img.Spool(spool); err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = img.RootFS
		}
		if img.RootFS != first || !strings.HasPrefix(img.RootFS, "oci-archive:///") {
			t.Errorf("%s: root file system %s, want the same for the same image: %s", ref, img.RootFS, first)
		}
	}
	// What was put there is an image again.
	again := open(t, strings.TrimPrefix(first, "oci-archive://"))
	if again.Config.User != "app" {
		t.Errorf("the copy says %+v", again.Config)
	}
	if files := list(t, spool); len(files) != 1 {
		t.Errorf("image directory holds %v, want one file", files)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	arm, amd := makeImage(t, "arm64", 10), makeImage(t, "amd64", 10)
	_, err := image.Open(t.Context(), archive(t, arm))
	var wrong *image.WrongPlatform
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "is for linux/arm64: build or pick one for linux/amd64") {
		t.Errorf("an image for arm64 only: %v", err)
	}
	if img := open(t, archive(t, arm, amd)); img.Config.User != "app" {
		t.Errorf("an image for both: %+v", img.Config)
	}
}

func TestBadImages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good, err := os.ReadFile(archive(t, makeImage(t, "amd64", 100)))
	if err != nil {
		t.Fatal(err)
	}
	var dockerArchive bytes.Buffer
	w := tar.NewWriter(&dockerArchive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct{ ref, want string }{
		"no such file":       {"./nothing.tar", "no such file"},
		"not a reference":    {"No Such Image", "neither a file nor a valid image reference"},
		"compressed":         {write("a.tar", "\x1f\x8b123"), "gunzip"},
		"not an archive":     {write("b.tar", "hello hello hello"), "not an OCI archive"},
		"directory":          {dir, "not an OCI layout"},
		"corrupt blob":       {write("c.tar", strings.Replace(string(good), `"architecture"`, `"Architecture"`, 1)), "corrupt"},
		"Docker's own":       {write("d.tar", dockerArchive.String()), "Docker's own format"},
		"no such repository": {"127.0.0.1:1/app", "does not give it"},
	} {
		if _, err := image.Open(t.Context(), tc.ref); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want it to say %q", what, err, tc.want)
		}
	}
}

func TestCorruptLayerLeavesNothing(t *testing.T) {
	t.Parallel()
	file := archive(t, makeImage(t, "amd64", 5000))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text[bytes.Index(text, []byte("\x1f\x8b"))+30] ^= 1 // in the only layer
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	spool := t.TempDir()
	img := open(t, file)
	if err := img.Spool(spool); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("error %v, want it to say corrupt", err)
	}
	if files := list(t, spool); len(files) != 0 {
		t.Errorf("left behind %v", files)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // a file system of its own takes root
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	img := open(t, archive(t, makeImage(t, "amd64", 1<<20)))
	err := img.Spool(disk)
	var full *image.NoSpace
	if !errors.As(err, &full) || !strings.Contains(err.Error(), disk) || !strings.Contains(err.Error(), "needs 2 MiB") {
		t.Errorf("error %v, want NoSpace that names %s", err, disk)
	}
	if files := list(t, disk); len(files) != 0 {
		t.Errorf("left behind %v", files)
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	push := func(ref string, img v1.Image) {
		parsed, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(parsed, img, remote.WithContext(context.Background())); err != nil {
			t.Fatal(err)
		}
	}
	push(host+"/team/app:v1", makeImage(t, "amd64", 10))
	push(host+"/team/app:arm", makeImage(t, "arm64", 10))
	for _, ref := range []string{host + "/team/app:v1", "docker://" + host + "/team/app#v1"} {
		img := open(t, ref)
		if want := "docker://" + host + "/team/app#v1"; img.RootFS != want || img.Local() {
			t.Errorf("%s: root file system %s, want %s", ref, img.RootFS, want)
		}
	}
	var wrong *image.WrongPlatform
	if _, err := image.Open(t.Context(), host+"/team/app:arm"); !errors.As(err, &wrong) {
		t.Errorf("arm: %v", err)
	}
	var missing *image.NotFound
	if _, err := image.Open(t.Context(), host+"/team/app:none"); !errors.As(err, &missing) {
		t.Errorf("no such tag: %v", err)
	}
}
