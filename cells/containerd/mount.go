package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// withMount mounts a snapshot for as long as use looks into it. The place is below the state
// directory, where a later life finds what a killed one left mounted.
func (p paths) withMount(ctx context.Context, mounts []mount.Mount, use func(root string) error) (err error) {
	if err := os.MkdirAll(p.mounts(), 0o700); err != nil {
		return fmt.Errorf("mount a snapshot: %w", err)
	}
	root, err := os.MkdirTemp(p.mounts(), "")
	if err != nil {
		return fmt.Errorf("mount a snapshot: %w", err)
	}
	// Only when unmounted: removing what is in a mount would remove it from the snapshot.
	defer func() { err = errors.Join(err, dropMount(root)) }()
	if err := mount.All(mounts, root); err != nil {
		return fmt.Errorf("mount a snapshot: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return use(root)
}

// dropMount unmounts whatever is mounted at root, and removes the directory, which is then empty.
func dropMount(root string) error {
	for {
		err := unix.Unmount(root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // nothing is mounted any more
			break
		}
		if err != nil {
			return fmt.Errorf("unmount snapshot at %s: %w", root, err)
		}
	}
	if err := os.Remove(root); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unmount snapshot: %w", err)
	}
	return nil
}

// dropMounts unmounts what an earlier life left mounted.
func (p paths) dropMounts() error {
	left, err := filepath.Glob(filepath.Join(p.mounts(), "*"))
	if err != nil {
		return err
	}
	errs := make([]error, len(left))
	for i, root := range left {
		errs[i] = dropMount(root)
	}
	return errors.Join(errs...)
}
