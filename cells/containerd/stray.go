package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/internal/process"
)

const (
	// runcState is where the shim has runc keep its state, whatever containerd's own directories are.
	runcState = "/run/containerd/runc"
	// strayPause is how often a bundle is looked at that containerd is to clean up.
	strayPause = 20 * time.Millisecond
	// strayWithin is how long a killed process may take to be gone.
	strayWithin = 10 * time.Second
)

// stray is a process that works for a container of which containerd knows no task.
type stray struct {
	pid    int
	meant  func() bool // asked once the process is held
	bundle string      // of a shim: what containerd removes, with the mounts in it, once the shim is gone
}

// runcDir is where runc keeps the state of a container.
func (e *Engine) runcDir(id engine.ID) string {
	return filepath.Join(runcState, e.cfg.Namespace, string(id))
}

// endStrays ends what works for a container of which containerd knows no task, and then removes what
// runc knows of it: a start that is cut off leaves such. containerd cleans up after the shim, but only
// for some seconds and as long as nobody ends that, so nothing but the bundle is left to it. Whoever
// ends may have started another just before, so it is looked again until nobody is found.
func (e *Engine) endStrays(ctx context.Context, id engine.ID) error {
	for {
		found, err := e.strays(id)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return os.RemoveAll(e.runcDir(id))
		}
		for _, s := range found {
			if err := process.End(ctx, s.pid, s.meant, process.Step{Signal: unix.SIGKILL, Wait: strayWithin}); err != nil {
				return fmt.Errorf("stray process: %w", err)
			}
		}
		for _, s := range found {
			if err := awaitGone(ctx, s.bundle); err != nil {
				return fmt.Errorf("clean-up after shim %d in %s: %w", s.pid, s.bundle, err)
			}
		}
	}
}

// strays returns the strays of a container in the order in which they start each other: shims, runc,
// and what is in the cgroup, which runc puts its child into before that does anything.
func (e *Engine) strays(id engine.ID) ([]stray, error) {
	all, err := process.All()
	if err != nil {
		return nil, err
	}
	var shims, others []stray
	for pid, args := range all {
		s := stray{pid: pid, meant: func() bool { return process.Runs(pid, args) }}
		switch {
		case isShim(args, e.cfg.Namespace, id):
			s.bundle, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)) // else it is gone by itself
			shims = append(shims, s)
		case isRunc(args, e.cfg.Namespace, id):
			others = append(others, s)
		}
	}
	members, err := cgroupMembers(e.cgroup(id))
	if err != nil {
		return nil, err
	}
	for _, pid := range members {
		others = append(others, stray{pid: pid, meant: func() bool {
			now, err := cgroupMembers(e.cgroup(id))
			return err == nil && slices.Contains(now, pid)
		}})
	}
	return append(shims, others...), nil
}

// isShim tells whether a command line is that of a container's shim.
func isShim(args []string, namespace string, id engine.ID) bool {
	return strings.Contains(filepath.Base(args[0]), "containerd-shim") &&
		follows(args, "-namespace", namespace) && follows(args, "-id", string(id))
}

// isRunc tells whether a command line is that of a runc which a container's shim has started.
func isRunc(args []string, namespace string, id engine.ID) bool {
	return follows(args, "--root", filepath.Join(runcState, namespace)) && slices.Contains(args, string(id))
}

// follows tells whether value comes right after name.
func follows(args []string, name, value string) bool {
	at := slices.Index(args, name)
	return at >= 0 && at+1 < len(args) && args[at+1] == value
}

// awaitGone returns when a path does not exist.
func awaitGone(ctx context.Context, path string) error {
	for {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(strayPause):
		}
	}
}
