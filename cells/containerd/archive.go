package containerd

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveSource finds an archive below the image directory. A file with the same inode, size and
// time of change is taken for the same content, so that a start does not read it again.
func (e *Engine) archiveSource(name string) (source, error) {
	root, name, err := e.imageDir(name)
	if err != nil {
		return source{}, err
	}
	file, err := root.Open(name)
	if err != nil {
		return source{}, errors.Join(err, root.Close())
	}
	info, err := file.Stat()
	if err := errors.Join(err, file.Close(), root.Close()); err != nil {
		return source{}, err
	}
	version, err := fileVersion(info)
	if err != nil {
		return source{}, err
	}
	key := "oci-archive/" + name + "/" + version
	return source{key: key, fetch: func(ctx context.Context, record string) (images.Image, error) {
		root, err := os.OpenRoot(e.cfg.ImageDir)
		if err != nil {
			return images.Image{}, err
		}
		defer root.Close()
		file, err := root.Open(name)
		if err != nil {
			return images.Image{}, err
		}
		defer file.Close()
		return e.importImage(ctx, record, file)
	}}, nil
}

// layoutSource finds an OCI layout directory below the image directory. Its index names all its
// content by digest, so the digest of the index is that of the whole.
func (e *Engine) layoutSource(name string) (source, error) {
	root, name, err := e.imageDir(name)
	if err != nil {
		return source{}, err
	}
	defer root.Close()
	file, err := root.Open(path.Join(name, ocispec.ImageIndexFile))
	if err != nil {
		return source{}, fmt.Errorf("it is not an OCI layout: %w", err)
	}
	defer file.Close()
	index, err := readAll(file, ocispec.Descriptor{})
	if err != nil {
		return source{}, err
	}
	key := fmt.Sprintf("oci-layout/%s/%x", name, sha256.Sum256(index))
	return source{key: key, fetch: func(ctx context.Context, record string) (images.Image, error) {
		return e.importStream(ctx, record, func(w io.Writer) error { return e.tarLayout(name, w) })
	}}, nil
}

// tarLayout writes a layout directory as the archive that it could be.
func (e *Engine) tarLayout(name string, w io.Writer) error {
	root, err := os.OpenRoot(e.cfg.ImageDir)
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return tarFS(dir.FS(), w)
}

// tarFS writes a directory as an archive.
func tarFS(dir fs.FS, w io.Writer) error {
	out := tar.NewWriter(w)
	if err := out.AddFS(dir); err != nil {
		return err
	}
	return out.Close()
}

// importStream reads an archive that is written as it is read.
func (e *Engine) importStream(ctx context.Context, record string, write func(io.Writer) error) (images.Image, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	defer r.Close() // ends the writer, too
	return e.importImage(ctx, record, r)
}

// imageDir opens the image directory and returns the part of name below it. os.Root keeps
// symbolic links from leading out.
func (e *Engine) imageDir(name string) (*os.Root, string, error) {
	if e.cfg.ImageDir == "" {
		return nil, "", errors.New("this cell has no image_dir: configure one, or use docker://")
	}
	below, err := filepath.Rel(e.cfg.ImageDir, filepath.Clean(name))
	if err != nil || !filepath.IsLocal(below) || !strings.HasPrefix(name, "/") {
		return nil, "", fmt.Errorf("%s is not below the image_dir of this cell, %s: move it there", name, e.cfg.ImageDir)
	}
	root, err := os.OpenRoot(e.cfg.ImageDir)
	if err != nil {
		return nil, "", fmt.Errorf("image_dir: %w", err)
	}
	if _, err := root.Stat(below); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no %s: %w", name, err)
		}
		return nil, "", errors.Join(err, root.Close())
	}
	return root, below, nil
}

// importImage reads an OCI or Docker archive into containerd; ctx has a lease.
func (e *Engine) importImage(ctx context.Context, name string, r io.Reader) (images.Image, error) {
	defer e.step("", "import")()
	store := e.client.ContentStore()
	index, err := archive.ImportIndex(ctx, store, r)
	if err != nil {
		return images.Image{}, fmt.Errorf("read the archive: %w", err)
	}
	read := func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
		return content.ReadBlob(ctx, store, desc)
	}
	if err := e.checkPlatform(ctx, index, read); err != nil {
		return images.Image{}, err
	}
	handler := images.FilterPlatforms(images.ChildrenHandler(store), e.platform)
	if err := images.Walk(ctx, images.SetChildrenLabels(store, handler), index); err != nil {
		return images.Image{}, fmt.Errorf("the archive is not complete: %w", err)
	}
	return images.Image{Name: name, Target: index}, nil
}
