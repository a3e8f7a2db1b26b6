package privatecontainerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	if pid := daemonPID(dir); pid != 0 {
		errs = append(errs, endProcess(ctx, pid))
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
	var errs []error
	for _, shim := range shimsOf(filepath.Join(dir, socketFile)) {
		for _, child := range children(shim) {
			errs = append(errs, killNow(ctx, child))
		}
		errs = append(errs, killNow(ctx, shim))
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
func shimsOf(address string) []int {
	var shims []int
	for pid, args := range processes() {
		at := slices.Index(args, "-address")
		if strings.Contains(filepath.Base(args[0]), "containerd-shim") && at >= 0 && at+1 < len(args) && args[at+1] == address {
			shims = append(shims, pid)
		}
	}
	return shims
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

// endProcess asks a process to end, kills it when it does not, and returns when it is gone.
func endProcess(ctx context.Context, pid int) error {
	return signalAndWait(ctx, pid, unix.SIGTERM, stopGrace)
}

// killNow kills a process and returns when it is gone.
func killNow(ctx context.Context, pid int) error {
	return signalAndWait(ctx, pid, unix.SIGKILL, stopGrace)
}

// signalAndWait signals a process by a handle, so that a number used anew is never hit.
func signalAndWait(ctx context.Context, pid int, signal unix.Signal, grace time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for _, s := range []unix.Signal{signal, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
		ended, err := awaitEnd(ctx, fd, grace)
		if err != nil {
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if ended {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end %v after SIGKILL: it hangs in the kernel; only a reboot removes it", pid, grace)
}

// awaitEnd tells whether the process of a handle ended within d.
func awaitEnd(ctx context.Context, fd int, d time.Duration) (bool, error) {
	deadline := time.Now().Add(d)
	for time.Now().Before(deadline) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, nil
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
