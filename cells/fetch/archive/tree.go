package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// blockBytes is what disk space is counted in; each entry takes one block more, for its inode.
const blockBytes = 4096

// Owner owns what is unpacked.
type Owner struct{ UID, GID int }

// Tree writes entries below a directory.
type Tree struct {
	root  *os.Root
	owner Owner
	room  Room
	made  int // directories that the archive leaves out
}

// NewTree returns a sink that writes below root, an empty directory.
func NewTree(root *os.Root, owner Owner, room Room) *Tree {
	return &Tree{root: root, owner: owner, room: room}
}

// Entry implements Sink. An entry replaces an earlier one of the same name.
func (t *Tree) Entry(e Entry, content io.Reader) error {
	blocks := (e.Size + blockBytes - 1) / blockBytes
	if err := t.room((blocks + 1) * blockBytes); err != nil {
		return err
	}
	if err := t.parents(path.Dir(e.Name)); err != nil {
		return err
	}
	if err := t.entry(e, content); err != nil {
		return blame(e, err)
	}
	return nil
}

// blame tells a disk that does not work from an archive that asks for what cannot be, for example for a
// file below a file.
func blame(e Entry, err error) error {
	var wrong *Error
	if errors.As(err, &wrong) {
		return err
	}
	for _, disk := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, disk) {
			return fmt.Errorf("write %q: %w", e.Name, err)
		}
	}
	return bad("write %q: %w", e.Name, err)
}

func (t *Tree) entry(e Entry, content io.Reader) error {
	if e.Mode.IsDir() {
		return t.dir(e)
	}
	if err := t.root.Remove(e.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case e.Hard:
		return t.root.Link(e.Link, e.Name)
	case e.Mode.Type() == fs.ModeSymlink:
		if err := t.root.Symlink(e.Link, e.Name); err != nil {
			return err
		}
		return t.root.Lchown(e.Name, t.owner.UID, t.owner.GID)
	}
	return t.file(e, content)
}

// parents makes the directories that an archive leaves out. They take room as those that it names.
func (t *Tree) parents(name string) error {
	if name == "." {
		return nil
	}
	if info, err := t.root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := t.parents(path.Dir(name)); err != nil {
		return err
	}
	if t.made++; t.made > MaxEntries {
		return bad("it leaves out more than %d directories", MaxEntries)
	}
	if err := t.room(blockBytes); err != nil {
		return err
	}
	e := Entry{Name: name, Mode: fs.ModeDir | 0o755}
	if err := t.dir(e); err != nil {
		return blame(e, err)
	}
	return nil
}

func (t *Tree) dir(e Entry) error {
	if info, err := t.root.Lstat(e.Name); err == nil && !info.IsDir() {
		if err := t.root.Remove(e.Name); err != nil {
			return err
		}
	}
	if err := t.root.Mkdir(e.Name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return errors.Join(t.root.Lchown(e.Name, t.owner.UID, t.owner.GID), t.root.Chmod(e.Name, e.Mode.Perm()))
}

func (t *Tree) file(e Entry, content io.Reader) error {
	file, err := t.root.OpenFile(e.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyExactly(file, content, e)
	err = errors.Join(err, file.Chown(t.owner.UID, t.owner.GID), file.Chmod(e.Mode.Perm()), file.Close())
	if err != nil {
		return err
	}
	return t.root.Chtimes(e.Name, e.Mtime, e.Mtime)
}

// Close implements Sink.
func (t *Tree) Close() error { return nil }
