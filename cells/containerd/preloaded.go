package containerd

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	containerdarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"muster/cells/engine"
)

// A preloaded root file system is what the operator has put on the cell under a name. It is imported
// once for each content, like an image with one layer, and containers start from it as from any image.
const (
	preloadedScheme = "preloaded:"
	// preloadedRecords is what the names of their image records begin with: NAME/CONTENT follows.
	preloadedRecords = "preloaded/"
)

// preload imports all preloaded root file systems, so that no container has to wait for that.
func (e *Engine) preload(ctx context.Context) {
	ctx = e.scope(ctx)
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Preloaded)) {
		began := time.Now()
		url := preloadedScheme + name
		_, err := e.image(ctx, engine.Spec{RootFS: url})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.log.Error("preloaded root file system cannot be used", slog.String("rootfs", url), slog.Any("error", err))
		default:
			e.log.Info("preloaded root file system is there", slog.String("rootfs", url), slog.Duration("took", time.Since(began)))
		}
	}
}

// preloadedSource finds what the operator has put under a name.
func (e *Engine) preloadedSource(name string) (source, error) {
	from, ok := e.cfg.Preloaded[name]
	if !ok {
		has := "none"
		if names := slices.Sorted(maps.Keys(e.cfg.Preloaded)); len(names) > 0 {
			has = strings.Join(names, ", ")
		}
		return source{}, fmt.Errorf("the cell has no preloaded root file system %q; it has: %s", name, has)
	}
	version, err := e.preloadedVersion(from)
	if err != nil {
		return source{}, err
	}
	family := preloadedRecords + name + "/"
	return source{key: family + version, fetch: func(ctx context.Context, record string) (images.Image, error) {
		img, err := e.importPreloaded(ctx, record, from)
		if err == nil {
			err = e.dropVersions(ctx, family, record)
		}
		return img, err
	}}, nil
}

// preloadedVersion returns what changes with the content of a preloaded root file system. A file is looked
// at each time; a directory, which takes longer, once in the life of an engine.
func (e *Engine) preloadedVersion(from string) (string, error) {
	info, err := os.Stat(from)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return fileVersion(info)
	}
	e.versions.Lock()
	defer e.versions.Unlock()
	if known, ok := e.directoryVersions[from]; ok {
		return known, nil
	}
	version, err := directoryVersion(from)
	if err != nil {
		return "", err
	}
	e.directoryVersions[from] = version
	return version, nil
}

// fileVersion takes a file with the same inode, size and time of change for the same content.
func fileVersion(info fs.FileInfo) (string, error) {
	if !info.Mode().IsRegular() {
		return "", errors.New("it is not a regular file")
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d-%d-%d.%09d", stat.Ino, stat.Size, stat.Ctim.Sec, stat.Ctim.Nsec), nil
}

// directoryVersion takes a directory for the same content when all that is in it has the same name, inode, size
// and time of change.
func directoryVersion(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		_, err = fmt.Fprintf(sum, "%q %d %d %d.%09d\n", name, stat.Ino, stat.Size, stat.Ctim.Sec, stat.Ctim.Nsec)
		return err
	})
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}

// dropVersions removes the image records of a family but one. What containers still use of them stays as long
// as those do.
func (e *Engine) dropVersions(ctx context.Context, family, keep string) error {
	all, err := e.client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	for _, image := range all {
		if !strings.HasPrefix(image.Name, family) || image.Name == keep {
			continue
		}
		if err := e.client.ImageService().Delete(ctx, image.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove the older version %s: %w", image.Name, err)
		}
	}
	return nil
}

// importPreloaded imports an OCI layout, an image archive, a tar file of a root file system or a directory that is one.
func (e *Engine) importPreloaded(ctx context.Context, record, from string) (images.Image, error) {
	info, err := os.Stat(from)
	if err != nil {
		return images.Image{}, err
	}
	if info.IsDir() {
		if _, err := os.Stat(filepath.Join(from, ocispec.ImageLayoutFile)); err == nil {
			return e.importStream(ctx, record, func(w io.Writer) error { return tarFS(os.DirFS(from), w) })
		}
		return e.importDirectory(ctx, record, from)
	}
	isImage, err := isImageArchive(from)
	if err != nil {
		return images.Image{}, fmt.Errorf("read the archive: %w", err)
	}
	file, err := os.Open(from)
	if err != nil {
		return images.Image{}, err
	}
	defer file.Close()
	if isImage {
		plain, err := compression.DecompressStream(file)
		if err != nil {
			return images.Image{}, err
		}
		defer plain.Close()
		return e.importImage(ctx, record, plain)
	}
	defer e.step("", "import")()
	return e.importLayer(ctx, record, file)
}

// importDirectory imports a directory as a root file system.
func (e *Engine) importDirectory(ctx context.Context, record, dir string) (images.Image, error) {
	defer e.step("", "import")()
	r, w := io.Pipe()
	go func() { w.CloseWithError(containerdarchive.WriteDiff(ctx, w, "", dir)) }()
	defer r.Close() // ends the writer, too
	return e.importLayer(ctx, record, r)
}

// isImageArchive tells an archive that holds an image from one that is a root file system: by the first entry
// that only one of them has.
func isImageArchive(from string) (bool, error) {
	file, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer file.Close()
	plain, err := compression.DecompressStream(file)
	if err != nil {
		return false, err
	}
	defer plain.Close()
	r := tar.NewReader(plain)
	for entries := 0; ; entries++ {
		header, err := r.Next()
		if errors.Is(err, io.EOF) && entries > 0 {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		name := path.Clean("/" + header.Name)[1:]
		top, _, _ := strings.Cut(name, "/")
		switch {
		case slices.Contains(imageEntries, name):
			return true, nil
		case slices.Contains(rootEntries, top):
			return false, nil
		}
	}
}

var (
	// imageEntries are in every archive of an image, of OCI's kind or of Docker's.
	imageEntries = []string{ocispec.ImageLayoutFile, ocispec.ImageIndexFile, "manifest.json"}
	// rootEntries are in root file systems and in no archive of an image.
	rootEntries = []string{"bin", "dev", "etc", "lib", "opt", "proc", "sbin", "tmp", "usr", "var"}
)

// importLayer makes an image of one layer, a tar file that may be compressed; ctx has a lease.
func (e *Engine) importLayer(ctx context.Context, record string, from io.Reader) (images.Image, error) {
	layer, diff, err := e.writeLayer(ctx, record, from)
	if err != nil {
		return images.Image{}, err
	}
	config, err := e.writeDocument(ctx, ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: platforms.DefaultSpec(), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}},
	})
	if err != nil {
		return images.Image{}, err
	}
	manifest, err := e.writeDocument(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	})
	if err != nil {
		return images.Image{}, err
	}
	store := e.client.ContentStore()
	if err := images.Walk(ctx, images.SetChildrenLabels(store, images.ChildrenHandler(store)), manifest); err != nil {
		return images.Image{}, err
	}
	return images.Image{Name: record, Target: manifest}, nil
}

// magicBytes are enough to tell how a stream is compressed.
const magicBytes = 16

// writeLayer writes a layer as it is, and returns also the digest of the tar file in it.
func (e *Engine) writeLayer(ctx context.Context, record string, from io.Reader) (ocispec.Descriptor, digest.Digest, error) {
	buffered := bufio.NewReaderSize(from, 1<<20)
	magic, err := buffered.Peek(magicBytes)
	if err != nil {
		return ocispec.Descriptor{}, "", fmt.Errorf("read the archive: %w", err)
	}
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}
	switch compression.DetectCompression(magic) {
	case compression.Gzip:
		layer.MediaType = ocispec.MediaTypeImageLayerGzip
	case compression.Zstd:
		layer.MediaType = ocispec.MediaTypeImageLayerZstd
	}
	r, w := io.Pipe()
	type result struct {
		diff digest.Digest
		err  error
	}
	plain := make(chan result, 1)
	go func() {
		diff, err := digestOfPlain(r)
		r.CloseWithError(err)
		plain <- result{diff, err}
	}()
	layer.Digest, layer.Size, err = e.writeBlob(ctx, record, io.TeeReader(buffered, w))
	w.CloseWithError(err)
	got := <-plain
	if err = errors.Join(err, got.err); err != nil {
		return ocispec.Descriptor{}, "", fmt.Errorf("read the archive: %w", err)
	}
	return layer, got.diff, nil
}

// digestOfPlain returns the digest of what a stream that may be compressed holds; it reads it to its end.
func digestOfPlain(r io.Reader) (digest.Digest, error) {
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return "", err
	}
	defer plain.Close()
	diff, err := digest.FromReader(plain)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, r) // what is behind the end of the compressed stream
	return diff, err
}

// writeDocument writes a configuration or a manifest.
func (e *Engine) writeDocument(ctx context.Context, mediaType string, v any) (ocispec.Descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	sum, size, err := e.writeBlob(ctx, string(digest.FromBytes(text)), bytes.NewReader(text))
	return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: size}, err
}

// writeBlob writes content of a size and digest that are not known before.
func (e *Engine) writeBlob(ctx context.Context, ref string, from io.Reader) (digest.Digest, int64, error) {
	w, err := content.OpenWriter(ctx, e.client.ContentStore(), content.WithRef("muster-"+ref))
	if err != nil {
		return "", 0, err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil { // an earlier try may have been cut off
		return "", 0, err
	}
	sum := digest.Canonical.Digester()
	size, err := io.Copy(w, io.TeeReader(from, sum.Hash()))
	if err != nil {
		return "", 0, err
	}
	if err := w.Commit(ctx, size, sum.Digest()); err != nil && !errdefs.IsAlreadyExists(err) {
		return "", 0, err
	}
	return sum.Digest(), size, nil
}
