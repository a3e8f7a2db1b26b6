package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"muster/bbs/lrp"
)

// filesDir is below which the files of an action are; that of Diego's cells.
const filesDir = "/etc/cf-service-bindings"

// place writes the files of an action. They belong to root and the group of the user, who may read but not
// change them. Each appears whole: another action may be reading the one of before.
func place(files []lrp.File, who account) error {
	if len(files) == 0 {
		return nil
	}
	if err := os.MkdirAll(filesDir, 0o755); err != nil {
		return err
	}
	dir, err := os.OpenRoot(filesDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, f := range files {
		if err := placeOne(dir, f, who); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
	}
	return nil
}

func placeOne(dir *os.Root, f lrp.File, who account) error {
	name := path.Clean(f.Path)
	if path.IsAbs(name) {
		name = name[1:]
	}
	if !filepath.IsLocal(name) || name == "." {
		return fmt.Errorf("want a path below %s", filesDir)
	}
	if isThere(dir, name, f.Content) {
		return nil
	}
	if err := dir.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	draft := fmt.Sprintf("%s.%d.new", name, os.Getpid())
	file, err := dir.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o440)
	if err != nil {
		return err
	}
	_, err = file.WriteString(f.Content)
	err = errors.Join(err, file.Chown(0, who.gid), file.Close())
	if err == nil {
		err = dir.Rename(draft, name)
	}
	if err != nil {
		if left := dir.Remove(draft); !errors.Is(left, fs.ErrNotExist) {
			err = errors.Join(err, left)
		}
	}
	return err
}

// isThere tells whether a file that everybody may read is as it should be: those of the container are mounted
// read-only, and hold those of its actions too.
func isThere(dir *os.Root, name, content string) bool {
	info, err := dir.Stat(name)
	if err != nil || info.Mode().Perm()&0o004 == 0 || info.Size() != int64(len(content)) {
		return false
	}
	there, err := dir.ReadFile(name)
	return err == nil && string(there) == content
}
