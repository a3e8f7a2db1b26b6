package helper

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// makeDir makes a directory, with those above it, and gives what it makes to the account. It holds on to
// each directory while it makes the next, so that nobody can put a link in its way.
func makeDir(dir string, owner account) error {
	if !path.IsAbs(dir) {
		return fmt.Errorf("directory %q: want an absolute path", dir)
	}
	fd, err := makeAt(path.Clean(dir), owner)
	if err != nil {
		return fmt.Errorf("directory %q: %w", dir, err)
	}
	return unix.Close(fd)
}

// makeAt returns a directory, opened as a place only; what is missing of its path is made.
func makeAt(dir string, owner account) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := unix.Open(dir, flags, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	above, err := makeAt(path.Dir(dir), owner)
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	name := path.Base(dir)
	switch err := unix.Mkdirat(above, name, 0o755); {
	case errors.Is(err, unix.EEXIST): // made in the meantime, or a link that leads nowhere
		return unix.Openat(above, name, flags, 0)
	case err != nil:
		return -1, err
	}
	fd, err = unix.Openat(above, name, flags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Fchownat(fd, "", owner.uid, owner.gid, unix.AT_EMPTY_PATH)
}
