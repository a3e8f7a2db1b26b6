package privatecontainerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster/internal/process"
)

// Where Debian's shim keeps what cannot be configured.
const (
	shimSockets = "/run/containerd/s"
	runcStates  = "/run/containerd/runc"
)

// Stop ends the daemon of dir, if there is one, and everything that it ran: shims, containers,
// mounts, sockets. It works after the daemon was killed, from any process, and may be repeated.
func Stop(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("stop private containerd in %q: %w", dir, err)
	}
	var errs []error
	pid, err := daemonPID(dir)
	errs = append(errs, err)
	if pid != 0 {
		errs = append(errs, endDaemon(ctx, dir, pid))
	}
	errs = append(errs, endContainers(ctx, dir), unmountBelow(dir))
	for _, name := range []string{socketFile, socketFile + ".ttrpc", stateDir} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	for _, shared := range []string{shimSockets, runcStates, filepath.Dir(runcStates)} {
		_ = os.Remove(shared) // only when empty: another containerd may use it
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop private containerd in %s: %w", dir, err)
	}
	return nil
}

// endContainers ends the shims of dir and what they ran, and removes what the shims keep elsewhere.
func endContainers(ctx context.Context, dir string) error {
	shims, err := shimsOf(filepath.Join(dir, socketFile))
	if err != nil {
		return err
	}
	var errs []error
	for shim, args := range shims {
		same := func() bool { return process.Runs(shim, args) }
		for _, child := range children(shim) {
			errs = append(errs, end(ctx, child, same, unix.SIGKILL))
		}
		errs = append(errs, end(ctx, shim, same, unix.SIGKILL))
	}
	bundles, err := filepath.Glob(filepath.Join(dir, stateDir, "io.containerd.runtime.v2.task", "*", "*"))
	if err != nil {
		return err
	}
	for _, bundle := range bundles {
		if address, err := os.ReadFile(filepath.Join(bundle, "address")); err == nil {
			if socket, ok := strings.CutPrefix(string(address), "unix://"+shimSockets); ok {
				_ = os.Remove(filepath.Join(shimSockets, filepath.Base(socket)))
			}
		}
		id, namespace := filepath.Base(bundle), filepath.Base(filepath.Dir(bundle))
		errs = append(errs, os.RemoveAll(filepath.Join(runcStates, namespace, id)))
		_ = os.Remove(filepath.Join(runcStates, namespace))
	}
	return errors.Join(errs...)
}

// shimsOf returns the processes of the shims that serve the containerd at address.
func shimsOf(address string) (map[int][]string, error) {
	all, err := process.All()
	maps.DeleteFunc(all, func(_ int, args []string) bool {
		at := slices.Index(args, "-address")
		return !strings.Contains(filepath.Base(args[0]), "containerd-shim") || at < 0 || at+1 == len(args) || args[at+1] != address
	})
	return all, err
}

// children returns the child processes of a process.
func children(pid int) []int {
	var found []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // gone in the meantime: no children
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

// endDaemon ends the daemon of dir, if it is still that process.
func endDaemon(ctx context.Context, dir string, pid int) error {
	return end(ctx, pid, func() bool { now, err := daemonPID(dir); return err == nil && now == pid }, unix.SIGTERM)
}

// end signals the process that is meant, kills it when that does not end it, and returns when it is gone.
func end(ctx context.Context, pid int, meant func() bool, first unix.Signal) error {
	return process.End(ctx, pid, meant, process.Step{Signal: first, Wait: stopGrace}, process.Step{Signal: unix.SIGKILL, Wait: stopGrace})
}

// unmountBelow unmounts everything mounted below dir, the latest first.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points)
	var errs []error
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}
