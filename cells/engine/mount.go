package engine

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Mount is a directory or file of the cell in a container. It stays the caller's: it must be there until the
// container is destroyed, and what is changed in it is seen in the container.
type Mount struct {
	Source   string // absolute path on the cell
	Target   string // absolute path in the container; made when it is missing. Later mounts may lie in earlier ones
	Writable bool
}

// MaxMounts is how many mounts a container may have.
const MaxMounts = 256

// reserved are the places of engines in a container, in which and around which nothing can be mounted.
var reserved = []string{"/proc", "/sys", "/dev", "/.muster", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// CheckMounts refuses mounts that no engine makes.
func CheckMounts(mounts []Mount) error {
	if len(mounts) > MaxMounts {
		return fmt.Errorf("mounts: %d of them, more than %d", len(mounts), MaxMounts)
	}
	for n, m := range mounts {
		if err := m.check(); err != nil {
			return fmt.Errorf("mounts[%d]: %w", n, err)
		}
		if other := slices.IndexFunc(mounts[:n], func(o Mount) bool { return o.Target == m.Target }); other >= 0 {
			return fmt.Errorf("mounts[%d]: target %q is that of mounts[%d]", n, m.Target, other)
		}
	}
	return nil
}

func (m Mount) check() error {
	if !filepath.IsAbs(m.Source) {
		return fmt.Errorf("source %q: want an absolute path", m.Source)
	}
	if err := CheckTarget(m.Target); err != nil {
		return fmt.Errorf("target %q: %w", m.Target, err)
	}
	return nil
}

// CheckTarget refuses a place in a container where nothing can be mounted.
func CheckTarget(target string) error {
	if !path.IsAbs(target) || path.Clean(target) != target || target == "/" || strings.ContainsRune(target, 0) {
		return errors.New("want an absolute path other than /, without . and .. and a / at its end")
	}
	for _, r := range reserved {
		if within(target, r) || within(r, target) {
			return fmt.Errorf("%s belongs to the cell", r)
		}
	}
	return nil
}

// within tells whether a clean path is a place or lies in it.
func within(name, place string) bool {
	return name == place || strings.HasPrefix(name, place+"/")
}

// Mounted returns the path on the cell of a path in a container that lies in one of its mounts, by their order, and
// that mount.
func Mounted(mounts []Mount, name string) (string, Mount, bool) {
	name = path.Clean(name)
	for _, m := range slices.Backward(mounts) {
		if within(name, m.Target) {
			return filepath.Join(m.Source, strings.TrimPrefix(name, m.Target)), m, true
		}
	}
	return "", Mount{}, false
}
