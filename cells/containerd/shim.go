package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"muster/cells/engine"
)

// strayPause is how often a bundle is looked at that containerd is to clean up.
const strayPause = 20 * time.Millisecond

// endStrayShims ends shims of a container of which containerd knows no task: one that it started
// just before it died, for example. Once the shim is gone containerd cleans up after it, processes,
// mounts and bundle; that is waited for.
func (e *Engine) endStrayShims(ctx context.Context, id engine.ID) error {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, command := range commands {
		proc := filepath.Dir(command)
		if !isShim(command, e.cfg.Namespace, id) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			return err
		}
		bundle, err := os.Readlink(filepath.Join(proc, "cwd"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone by itself
		}
		if err != nil {
			return fmt.Errorf("shim %d: %w", pid, err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("shim %d: %w", pid, err)
		}
		if err := awaitGone(ctx, bundle); err != nil {
			return fmt.Errorf("clean-up after shim %d in %s: %w", pid, bundle, err)
		}
	}
	return nil
}

// isShim tells whether a command line is that of a container's shim.
func isShim(command, namespace string, id engine.ID) bool {
	text, err := os.ReadFile(command)
	if err != nil {
		return false
	}
	args := strings.Split(string(text), "\x00")
	return strings.Contains(filepath.Base(args[0]), "containerd-shim") &&
		follows(args, "-namespace", namespace) && follows(args, "-id", string(id))
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
