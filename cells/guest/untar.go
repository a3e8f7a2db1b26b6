package guest

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// maxEntries bounds what an archive may hold.
const maxEntries = 1_000_000

// untar extracts an archive into the directory of this process. It does so as the user who gets the files, so
// whatever the archive says, nothing happens that the user could not do.
func untar(from io.Reader) error {
	archive := tar.NewReader(from)
	times := map[string]time.Time{} // of directories: set at the end, for entries change them
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if n == maxEntries {
			return fmt.Errorf("archive: more than %d entries", maxEntries)
		}
		name := below(h.Name)
		if err := entry(archive, h, name); err != nil {
			return fmt.Errorf("%q: %w", h.Name, why(err))
		}
		if h.Typeflag == tar.TypeDir {
			times[name] = h.ModTime
		}
	}
	for name, at := range times {
		_ = os.Chtimes(name, at, at) // of no importance
	}
	return nil
}

// below makes a name one below the directory of this process.
func below(name string) string { return "." + path.Clean("/"+name) }

// entry makes what an entry describes. What is there already is replaced, but for directories.
func entry(archive io.Reader, h *tar.Header, name string) error {
	if name == "./" {
		return nil
	}
	if err := os.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	mode := h.FileInfo().Mode().Perm()
	if h.Typeflag == tar.TypeDir {
		if err := os.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Chmod(name, mode)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return regular(archive, name, mode, h.ModTime)
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return os.Link(below(h.Linkname), name)
	}
	return fmt.Errorf("type %q: want a file, a directory or a link", h.Typeflag)
}

func regular(archive io.Reader, name string, mode fs.FileMode, at time.Time) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, archive)
	if err := errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
		return err
	}
	return os.Chtimes(name, at, at)
}
