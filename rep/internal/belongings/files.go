package belongings

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/rep/recipe"
)

// The modes of files and directories let every user of a container read and none write. The directory of all
// containers can be passed by whoever sets one up, and not be listed.
const (
	fileMode  = 0o444
	dirMode   = 0o755
	filesMode = 0o711
)

// Files are small files that are written for one container each, below a directory of its own.
type Files struct{ root *os.Root }

// OpenFiles makes the directory, or finds that of an earlier life. Close lets go of it.
func OpenFiles(dir string) (*Files, error) {
	if err := os.MkdirAll(dir, filesMode); err != nil {
		return nil, fmt.Errorf("open the files of containers: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the files of containers: %w", err)
	}
	return &Files{root}, nil
}

// Close lets go of the directory; containers keep their files.
func (f *Files) Close() error { return f.root.Close() }

// Prepare writes the files of a container.
func (f *Files) Prepare(_ context.Context, c Container) (Grant, error) {
	if len(c.Needs.Files) == 0 {
		return Grant{}, nil
	}
	if err := f.write(string(c.ID), c.Needs.Files); err != nil {
		return Grant{}, &Error{Reason: "failed to create volume mounted files", Err: err}
	}
	return Grant{Mounts: []engine.Mount{{Source: filepath.Join(f.root.Name(), string(c.ID)), Target: recipe.FilesDir}}}, nil
}

func (f *Files) write(id string, files []lrp.File) error {
	if err := f.dir(id); err != nil {
		return err
	}
	for _, file := range files {
		name := path.Join(id, file.Path)
		if err := f.dir(path.Dir(name)); err != nil {
			return err
		}
		if err := f.root.WriteFile(name, []byte(file.Content), fileMode); err != nil {
			return err
		}
		if err := f.root.Chmod(name, fileMode); err != nil { // whatever the umask says
			return err
		}
	}
	return nil
}

// dir makes a directory and those that it is in, if they are missing.
func (f *Files) dir(name string) error {
	err := f.root.Mkdir(name, dirMode)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case errors.Is(err, os.ErrNotExist):
		if err := f.dir(path.Dir(name)); err != nil {
			return err
		}
		return f.dir(name)
	case err != nil:
		return err
	}
	return f.root.Chmod(name, dirMode)
}

// Keep does nothing: the files are on disk.
func (f *Files) Keep(context.Context, engine.Container) error { return nil }

// Release removes the files of a container.
func (f *Files) Release(_ context.Context, id engine.ID) error {
	if err := f.root.RemoveAll(string(id)); err != nil {
		return fmt.Errorf("remove the files of container %s: %w", id, err)
	}
	return nil
}

// Holders returns the containers that have files.
func (f *Files) Holders(context.Context) ([]engine.ID, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list containers with files: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list containers with files: %w", err)
	}
	ids := make([]engine.ID, len(names))
	for i, name := range names {
		ids[i] = engine.ID(name)
	}
	return ids, nil
}
