package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

func TestArchivesAreReproducible(t *testing.T) {
	t.Parallel()
	var archives [][]byte
	for range 2 {
		out := filepath.Join(t.TempDir(), "image.tar")
		img, err := FromFiles(append(Base(), File{Path: "/bin/x", Mode: 0o755, Data: []byte("x")}), Config{User: "app"})
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteArchive(out, img); err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, archive)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("equal images give different archives")
	}
}

func TestLayoutHoldsAVariantPerPlatform(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "layout")
	amd, err := FromFiles(Base(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	arm, err := FromFiles(Base(), Config{Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteLayout(dir, amd, arm); err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range manifest.Manifests {
		got = append(got, m.Platform.String())
	}
	if len(got) != 2 || got[0] != "linux/amd64" || got[1] != "linux/arm64" {
		t.Errorf("platforms %q", got)
	}
}
