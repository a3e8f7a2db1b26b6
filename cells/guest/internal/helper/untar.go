package helper

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxEntries bounds the entries of an archive.
	maxEntries = 1_000_000
	// maxExtracted bounds what an archive becomes, in bytes; what its sparse files do not hold counts too.
	maxExtracted = 64 << 30
)

// untar extracts an archive as the user. Nothing goes outside of the directory, whatever the names and links
// in the archive say.
func untar(o Order, who account) error {
	dir := who.at(o.Dir)
	if err := makeDir(dir, who); err != nil {
		return err
	}
	if err := who.become(); err != nil {
		return err
	}
	to, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	return extract(to, os.NewFile(dataFile, "archive"), who.uid == 0)
}

// extraction is an archive on its way into a directory.
type extraction struct {
	to    *os.Root
	owner bool // set the owners that the archive names
	left  int64
	dirs  []*tar.Header // their modes and times are set at the end: until then they are written to
}

func extract(to *os.Root, archive io.Reader, owner bool) error {
	x := &extraction{to: to, owner: owner, left: maxExtracted}
	in := tar.NewReader(archive)
	for entries := 0; ; entries++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return x.finish()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if entries == maxEntries {
			return fmt.Errorf("the archive has more than %d entries", maxEntries)
		}
		if err := x.entry(h, in); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, bare(err))
		}
	}
}

// entry makes what one entry of the archive says.
func (x *extraction) entry(h *tar.Header, content io.Reader) error {
	name := local(h.Name)
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if h.Typeflag != tar.TypeDir {
		if name == "." {
			return errors.New("only a directory can have this name")
		}
		if err := x.room(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		x.dirs = append(x.dirs, h)
		return x.dir(name)
	case tar.TypeReg, tar.TypeGNUSparse:
		return x.file(name, h, content)
	case tar.TypeSymlink:
		return errors.Join(x.to.Symlink(h.Linkname, name), x.own(name, h))
	case tar.TypeLink:
		return x.to.Link(local(h.Linkname), name)
	}
	return fmt.Errorf("it is of type %q: only files, directories and links can be extracted", h.Typeflag)
}

// local returns a name of the archive relative to where it is extracted.
func local(name string) string {
	if name = path.Clean(strings.TrimLeft(name, "/")); name == "" {
		return "."
	}
	return name
}

// room makes the directories above a name, and removes what has it.
func (x *extraction) room(name string) error {
	if err := x.to.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := x.to.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// dir makes a directory; one that is there, also through a link, is good.
func (x *extraction) dir(name string) error {
	if info, err := x.to.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := x.room(name); err != nil {
		return err
	}
	return x.to.Mkdir(name, 0o700)
}

func (x *extraction) file(name string, h *tar.Header, content io.Reader) error {
	if x.left -= h.Size; x.left < 0 {
		return fmt.Errorf("with it the archive becomes more than %d bytes", int64(maxExtracted))
	}
	file, err := x.to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Close(), x.own(name, h)); err != nil {
		return err
	}
	return x.attributes(name, h)
}

// own gives what was made to the owner that the archive names, if it is root who extracts.
func (x *extraction) own(name string, h *tar.Header) error {
	if !x.owner {
		return nil
	}
	return x.to.Lchown(name, h.Uid, h.Gid)
}

// attributes sets mode and time; it comes after the owner, whose change takes setuid away.
func (x *extraction) attributes(name string, h *tar.Header) error {
	mode := h.FileInfo().Mode()
	keep := fs.ModePerm
	if x.owner {
		keep |= fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	}
	at := h.ModTime
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	return errors.Join(x.to.Chmod(name, mode&keep), x.to.Chtimes(name, at, at))
}

// finish sets what directories are to have, the inner ones first.
func (x *extraction) finish() error {
	for _, h := range slices.Backward(x.dirs) {
		name := local(h.Name)
		if info, err := x.to.Stat(name); name == "." || err == nil && !info.IsDir() {
			continue // the place itself stays as it is; and a later entry may have taken the place of another
		}
		if err := errors.Join(x.own(name, h), x.attributes(name, h)); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, bare(err))
		}
	}
	return nil
}
