package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockFile is what the owner of a state directory holds a lock on.
const lockFile = "owner.lock"

// Own makes this engine the only one that works for its cell, until Close or the end of the process,
// however that ends. Two would destroy each other's containers as strays.
func (e *Engine) Own() error {
	if err := os.MkdirAll(e.cfg.StateDir, 0o711); err != nil {
		return fmt.Errorf("state directory: %w", noSpace(err, e.cfg.StateDir))
	}
	file, err := os.OpenFile(filepath.Join(e.cfg.StateDir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("state directory: %w", noSpace(err, e.cfg.StateDir))
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("state directory %s belongs to a process that is running (lsof %s names it): stop that, or give each cell a state_dir of its own",
			e.cfg.StateDir, file.Name())
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	e.lock = file
	if err := e.guard.ready(); err != nil {
		return err
	}
	return e.haveInit()
}
