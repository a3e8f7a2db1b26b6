// Package image builds the images of sample applications, without a registry and without Docker: OCI
// archives from a static program, or from Debian packages. Equal inputs give equal bytes, but for
// what a compiler or a package archive gives.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one file, directory or link of an image.
type File struct {
	Path   string // absolute
	Mode   int64  // permissions
	UID    int
	Dir    bool
	Link   string // target of a symbolic link
	Data   []byte
	Source string // path of a file to copy instead of Data
}

// Config is what an image says about itself.
type Config struct {
	Architecture string // empty: amd64
	Env          []string
	User         string
	Dir          string
	Command      []string
}

// users are the users of images made from files.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
	groups = "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n"
)

// Base returns what every image made from files has: users, a home and a temporary directory.
func Base() []File {
	return []File{
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte(passwd)},
		{Path: "/etc/group", Mode: 0o644, Data: []byte(groups)},
		{Path: "/root", Mode: 0o700, Dir: true},
		{Path: "/home/app", Mode: 0o755, Dir: true, UID: 1000},
		{Path: "/tmp", Mode: 0o1777, Dir: true},
	}
}

// FromFiles returns an image of one layer.
func FromFiles(files []File, cfg Config) (v1.Image, error) {
	var layer bytes.Buffer
	if err := writeLayer(&layer, files); err != nil {
		return nil, err
	}
	return fromLayers(cfg, layer.Bytes())
}

// fromLayers returns an image of uncompressed layers.
func fromLayers(cfg Config, layers ...[]byte) (v1.Image, error) {
	if cfg.Architecture == "" {
		cfg.Architecture = "amd64"
	}
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: cfg.Architecture, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Env: cfg.Env, User: cfg.User, WorkingDir: cfg.Dir, Cmd: cfg.Command},
	})
	if err != nil {
		return nil, err
	}
	for _, content := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		}, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// FromBinary writes an OCI archive to out: a static program as /bin/NAME, and the users root and app.
func FromBinary(binary, out string) error {
	name := "/bin/" + filepath.Base(binary)
	img, err := FromFiles(append(Base(), File{Path: name, Mode: 0o755, Source: binary}), Config{
		Env: []string{"PATH=/bin"}, User: "app", Command: []string{name},
	})
	if err != nil {
		return fmt.Errorf("image of %s: %w", binary, err)
	}
	return WriteArchive(out, img)
}

// writeLayer writes files, with the directories above them, as a tar archive.
func writeLayer(w io.Writer, files []File) error {
	out := tar.NewWriter(w)
	seen := map[string]bool{"/": true}
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, file := range files {
		if err := writeAbove(out, path.Dir(file.Path), seen); err != nil {
			return err
		}
		seen[file.Path] = true
		if err := writeFile(out, file); err != nil {
			return fmt.Errorf("%s: %w", file.Path, err)
		}
	}
	return out.Close()
}

// writeAbove writes the directories that lead to a file.
func writeAbove(out *tar.Writer, dir string, seen map[string]bool) error {
	if seen[dir] {
		return nil
	}
	if err := writeAbove(out, path.Dir(dir), seen); err != nil {
		return err
	}
	seen[dir] = true
	return writeFile(out, File{Path: dir, Mode: 0o755, Dir: true})
}

func writeFile(out *tar.Writer, file File) error {
	header := &tar.Header{
		Name: strings.TrimPrefix(file.Path, "/"), Mode: file.Mode, Uid: file.UID, Gid: file.UID,
		ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
	data := file.Data
	switch {
	case file.Dir:
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	case file.Link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, file.Link
	default:
		header.Typeflag = tar.TypeReg
		if file.Source != "" {
			var err error
			if data, err = os.ReadFile(file.Source); err != nil {
				return err
			}
		}
		header.Size = int64(len(data))
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

// WriteArchive writes an OCI archive with images, one per platform. The file appears when it is
// complete.
func WriteArchive(out string, images ...v1.Image) error {
	dir, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return fmt.Errorf("archive %s: %w", out, err)
	}
	defer os.RemoveAll(dir)
	if err := WriteLayout(filepath.Join(dir, "layout"), images...); err != nil {
		return fmt.Errorf("archive %s: %w", out, err)
	}
	whole := filepath.Join(dir, "archive")
	if err := writeTar(whole, filepath.Join(dir, "layout")); err != nil {
		return fmt.Errorf("archive %s: %w", out, err)
	}
	return os.Rename(whole, out)
}

// WriteLayout writes an OCI layout directory with images, one per platform.
func WriteLayout(dir string, images ...v1.Image) error {
	target, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, img := range images {
		config, err := img.ConfigFile()
		if err != nil {
			return err
		}
		if err := target.AppendImage(img, layout.WithPlatform(*config.Platform())); err != nil {
			return err
		}
	}
	return nil
}

// writeTar packs a directory, in the order of names and without times.
func writeTar(out, dir string) error {
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer file.Close()
	w := tar.NewWriter(file)
	err = filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		inside := "/" + filepath.ToSlash(strings.TrimPrefix(name, dir+string(filepath.Separator)))
		if entry.IsDir() {
			return writeFile(w, File{Path: inside, Mode: 0o755, Dir: true})
		}
		return writeFile(w, File{Path: inside, Mode: 0o644, Source: name})
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return file.Close()
}
