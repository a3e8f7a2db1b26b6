package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// maxDocument bounds manifests, indexes and configurations.
const maxDocument = 8 << 20

// local is an image on disk: the files of an OCI layout, in a directory or in an archive.
type local struct {
	path    string
	dir     bool
	file    *os.File           // of an archive
	members map[string]section // of an archive

	manifest *v1.Manifest  // of the chosen image
	desc     v1.Descriptor // of the chosen image
}

// section is where the bytes of a member are in an archive.
type section struct{ at, size int64 }

func openPath(name string) (*local, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	l := &local{path: name, dir: st.IsDir()}
	if l.dir {
		if _, err := os.Stat(filepath.Join(name, "index.json")); err != nil {
			return nil, fmt.Errorf("the directory is not an OCI layout: %w", err)
		}
		return l, nil
	}
	if l.file, err = os.Open(name); err != nil {
		return nil, err
	}
	if err := l.scan(); err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

func (l *local) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// scan notes where the members of an archive are, so that no copy has to be unpacked.
func (l *local) scan() error {
	var magic [2]byte
	if _, err := l.file.ReadAt(magic[:], 0); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		return errors.New("the archive is compressed as a whole: unpack it first with gunzip")
	}
	l.members = map[string]section{}
	r := tar.NewReader(l.file)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("not an OCI archive (a tar file): %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := l.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		l.members[path.Clean(h.Name)] = section{at, h.Size}
	}
	if _, ok := l.members["index.json"]; ok {
		return nil
	}
	if _, ok := l.members["manifest.json"]; ok {
		return errors.New("the archive is in Docker's own format, without index.json: save it as an OCI archive, such as with skopeo copy docker-archive:FILE oci-archive:NEW")
	}
	return errors.New("the archive has no index.json: want an OCI archive or an OCI layout directory")
}

func blobName(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

// open returns the bytes of a file of the layout, and how many there are.
func (l *local) open(name string) (io.ReadCloser, int64, error) {
	if l.dir {
		f, err := os.Open(filepath.Join(l.path, filepath.FromSlash(name)))
		if err != nil {
			return nil, 0, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, st.Size(), nil
	}
	s, ok := l.members[name]
	if !ok {
		return nil, 0, fmt.Errorf("the archive lacks %s: it is cut off or damaged", name)
	}
	return io.NopCloser(io.NewSectionReader(l.file, s.at, s.size)), s.size, nil
}

// small reads a whole document.
func (l *local) small(name string) ([]byte, error) {
	r, size, err := l.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, size, maxDocument)
	}
	return io.ReadAll(io.LimitReader(r, maxDocument))
}

// blob reads a small blob and checks that it is what its name says.
func (l *local) blob(h v1.Hash) ([]byte, error) {
	text, err := l.small(blobName(h))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); h.Algorithm != "sha256" || hex.EncodeToString(sum[:]) != h.Hex {
		return nil, fmt.Errorf("blob %s is corrupt: its content has another digest", h)
	}
	return text, nil
}

// NoSpace says that a disk cannot hold an image.
type NoSpace struct {
	Dir          string
	Needed, Free int64 // bytes
}

// Error says which disk and how much.
func (n *NoSpace) Error() string {
	return fmt.Sprintf("no space for the image in %s: it needs %d MiB, the disk has %d MiB free: make room there",
		n.Dir, mib(n.Needed), n.Free>>20)
}

func mib(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }

// Spool copies an image on disk into dir as an OCI archive named by its digest, unless it is there
// already, and sets RootFS. Either the whole image is there afterwards or nothing of it.
func (i *Image) Spool(dir string) error {
	if i.local == nil {
		return nil
	}
	name := filepath.Join(dir, "sha256-"+i.Digest.Hex+".tar")
	i.RootFS = "oci-archive://" + name
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the image directory: %w", err)
	}
	needed := i.size()
	if free := freeBytes(dir); free < needed {
		return &NoSpace{dir, needed, free}
	}
	err := i.spool(dir, name)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &NoSpace{dir, needed, freeBytes(dir)}
	}
	if err != nil {
		return fmt.Errorf("copy image %s to %s: %w", i.Name, dir, err)
	}
	return nil
}

func freeBytes(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 1 << 62 // let the copy find out
	}
	return int64(st.Bavail) * st.Bsize
}

// size is how long the archive will be, tar headers included.
func (i *Image) size() int64 {
	const block = 512
	sum := int64(len(i.manifest)) + i.local.manifest.Config.Size + 16*block
	for _, l := range i.local.manifest.Layers {
		sum += l.Size + 2*block
	}
	return sum
}

func (i *Image) spool(dir, name string) (err error) {
	f, err := os.CreateTemp(dir, ".incoming-")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := i.write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// write writes the archive: always the same bytes for the same image.
func (i *Image) write(w io.Writer) error {
	t := tar.NewWriter(w)
	desc := i.local.desc
	desc.Annotations = nil
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{desc}})
	if err != nil {
		return err
	}
	if err := addBytes(t, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := addBytes(t, "index.json", index); err != nil {
		return err
	}
	if err := addBytes(t, blobName(i.Digest), i.manifest); err != nil {
		return err
	}
	seen := map[v1.Hash]bool{}
	for _, d := range append([]v1.Descriptor{i.local.manifest.Config}, i.local.manifest.Layers...) {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		if err := i.addBlob(t, d.Digest); err != nil {
			return err
		}
	}
	return t.Close()
}

func addBytes(t *tar.Writer, name string, text []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := t.Write(text)
	return err
}

// addBlob copies a blob and checks it on the way.
func (i *Image) addBlob(t *tar.Writer, h v1.Hash) error {
	r, size, err := i.local.open(blobName(h))
	if err != nil {
		return err
	}
	defer r.Close()
	if err := t.WriteHeader(&tar.Header{Name: blobName(h), Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(t, sum), r); err != nil {
		return err
	}
	if h.Algorithm != "sha256" || hex.EncodeToString(sum.Sum(nil)) != h.Hex {
		return fmt.Errorf("blob %s is corrupt: its content has another digest", h)
	}
	return nil
}
