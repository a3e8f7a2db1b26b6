package rep

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"muster/cells"
)

const (
	// preloadedScheme is the URL scheme of what the operator has put on the cell.
	preloadedScheme = "preloaded"
	// maxPreloaded bounds how many root file systems are preloaded: each is announced and kept on the disk.
	maxPreloaded = 64
)

var preloadedPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)

// preloaded returns the paths of the preloaded root file systems by name.
func (c *Config) preloaded() map[string]string {
	all := map[string]string{}
	for _, entry := range c.RootFSPreloaded {
		name, path, _ := strings.Cut(entry, "=")
		all[name] = path
	}
	return all
}

func (c *Config) preloadedProblems() []error {
	var errs []error
	bad := func(value, want string) {
		errs = append(errs, fmt.Errorf("rootfs_preloaded has %q: want %s", value, want))
	}
	if len(c.RootFSPreloaded) > maxPreloaded {
		errs = append(errs, fmt.Errorf("rootfs_preloaded has %d entries: want at most %d", len(c.RootFSPreloaded), maxPreloaded))
	}
	seen := map[string]bool{}
	for _, entry := range c.RootFSPreloaded {
		name, path, _ := strings.Cut(entry, "=")
		switch _, err := os.Stat(path); {
		case !preloadedPattern.MatchString(name):
			bad(entry, "NAME=PATH, NAME with 1 to 64 letters, digits, - _ and ., with a letter or digit at both ends")
		case seen[name]:
			bad(entry, "each name once")
		case !filepath.IsAbs(path):
			bad(entry, "NAME=PATH with an absolute path")
		case err != nil:
			bad(entry, fmt.Sprintf("a path that is there (%v)", err))
		}
		seen[name] = true
	}
	if slices.Contains(c.RootFSSchemes, preloadedScheme) {
		errs = append(errs, fmt.Errorf("rootfs_schemes has %q: want its names in rootfs_preloaded instead", preloadedScheme))
	}
	return errs
}

// providers returns which root file systems the cell can run.
func (c *Config) providers() map[string]cells.Provider {
	all := map[string]cells.Provider{}
	for _, scheme := range c.RootFSSchemes {
		all[scheme] = cells.Provider{}
	}
	if names := slices.Sorted(maps.Keys(c.preloaded())); len(names) > 0 {
		all[preloadedScheme] = cells.Provider{Names: names}
	}
	return all
}
