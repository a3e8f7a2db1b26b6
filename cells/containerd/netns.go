package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// makeNetns makes a network namespace with its loopback device up, and keeps it by a bind mount.
func makeNetns(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	file.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, being of no more use
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := loopbackUp(); err != nil {
				return fmt.Errorf("loopback: %w", err)
			}
			own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			return unix.Mount(own, path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-done; err != nil {
		return errors.Join(fmt.Errorf("network namespace %s: %w", path, err), removeNetns(path))
	}
	return nil
}

// loopbackUp brings lo up in the namespace of the thread.
func loopbackUp() error {
	return setFlags("lo", unix.IFF_UP)
}

// setFlags replaces the flags of a network device; only IFF_UP matters to the kernel here.
func setFlags(device string, flags uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	request.SetUint16(flags)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// dropUnmounted removes the file for a network namespace on which none is mounted: its maker died in
// between. With no file the plugins undo what there is, with a plain one they do nothing but fail.
func dropUnmounted(path string) error {
	var on unix.Statfs_t
	err := unix.Statfs(path, &on)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	if on.Type == unix.NSFS_MAGIC {
		return nil
	}
	return removeNetns(path)
}

// removeNetns lets a network namespace go; it ends when its last process has.
func removeNetns(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	return nil
}
