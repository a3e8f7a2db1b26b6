package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"muster/cells/engine"
)

// cgroupRoot is where cgroups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// unified tells whether the cell has cgroup v2 alone; a mixture counts as v1, as for runc.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

// swapLimited tells whether the kernel can limit swap under cgroup v1; runc fails when it cannot.
func swapLimited() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes"))
	return unified() || err == nil
}

func (e *Engine) cgroup(id engine.ID) string { return filepath.Join(e.cfg.CgroupParent, string(id)) }

// outOfMemory tells whether the kernel has killed a process of a container for want of memory. The
// counters live as long as the cgroup, which is until the container is destroyed.
func (e *Engine) outOfMemory(id engine.ID) bool {
	file, key := filepath.Join(cgroupRoot, "memory", e.cgroup(id), "memory.oom_control"), "oom_kill"
	if unified() {
		file = filepath.Join(cgroupRoot, e.cgroup(id), "memory.events")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == key {
			count, err := strconv.Atoi(fields[1])
			return err == nil && count > 0
		}
	}
	return false
}

// cgroupMembers returns the processes in a cgroup and below it, of all hierarchies.
func cgroupMembers(path string) ([]int, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, root := range roots {
		_ = filepath.WalkDir(filepath.Join(root, path), func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil // what is gone has no processes
			}
			text, _ := os.ReadFile(file)
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !slices.Contains(pids, pid) { // 0: not of our PID namespace
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids, nil
}

// removeCgroups removes a cgroup and what is below it in all hierarchies; processes in it are an error.
func removeCgroups(path string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		errs = append(errs, removeCgroup(filepath.Join(root, path)))
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", dir, err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cgroup %s: %w", dir, err)
	}
	return nil
}

// removeCgroupIfEmpty removes a cgroup without anything below it from all hierarchies.
func removeCgroupIfEmpty(path string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		if err := os.Remove(filepath.Join(root, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// cgroupRoots returns the roots of the hierarchies.
func cgroupRoots() ([]string, error) {
	if unified() {
		return []string{cgroupRoot}, nil
	}
	return filepath.Glob(filepath.Join(cgroupRoot, "*"))
}
