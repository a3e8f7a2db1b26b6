// Package state keeps what a proxy has been told in a directory, a file for each container, so that a process
// that starts after a crash goes on with it. Files are replaced as a whole. They need not survive a crash of the
// machine, as no container does.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"muster/cells/proxy"
)

const (
	suffix  = ".json"
	newMark = ".new"
)

// Dir is a directory of containers.
type Dir struct{ path string }

// Open makes the directory when it is missing.
func Open(path string) (Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return Dir{}, fmt.Errorf("directory of containers: %w", err)
	}
	return Dir{path}, nil
}

func (d Dir) file(id string) string { return filepath.Join(d.path, id+suffix) }

// Save replaces what is kept of a container.
func (d Dir) Save(c proxy.Container) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("keep container %s: %w", c.ID, err)
	}
	if err := os.WriteFile(d.file(c.ID)+newMark, text, 0o600); err != nil {
		return fmt.Errorf("keep container %s: %w", c.ID, err)
	}
	if err := os.Rename(d.file(c.ID)+newMark, d.file(c.ID)); err != nil {
		return fmt.Errorf("keep container %s: %w", c.ID, err)
	}
	return nil
}

// Delete forgets a container; one that is not known is no error.
func (d Dir) Delete(id string) error {
	if err := os.Remove(d.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget container %s: %w", id, err)
	}
	return nil
}

// Load returns all containers. Files that cannot be understood are left where they are, and told as errors.
func (d Dir) Load() (all []proxy.Container, problems []error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, []error{fmt.Errorf("directory of containers: %w", err)}
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok {
			continue // a file that was not finished
		}
		c, err := d.read(id)
		if err != nil {
			problems = append(problems, fmt.Errorf("container of %s: %w", d.file(id), err))
			continue
		}
		all = append(all, c)
	}
	return all, problems
}

func (d Dir) read(id string) (proxy.Container, error) {
	var c proxy.Container
	text, err := os.ReadFile(d.file(id))
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, err
	}
	if c.ID != id {
		return c, fmt.Errorf("it is about container %q", c.ID)
	}
	return c, c.Check()
}
