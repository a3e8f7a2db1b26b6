package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockTime is how long to wait for another up or down that is about to end.
const lockTime = time.Second

// lock makes sure that only one Up or Down works on a state directory. The kernel gives the lock
// back when its holder dies, however that happens.
func lock(ctx context.Context, s *Stack, verb string) (func(), error) {
	deadline := time.Now().Add(lockTime)
	for {
		f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f) {
			if err := errors.Join(f.Truncate(0), write(f, fmt.Sprintf("muster %s, process %d", verb, os.Getpid()))); err != nil {
				f.Close()
				return nil, err
			}
			return func() { f.Close() }, nil
		}
		holder := make([]byte, 100)
		n, _ := f.ReadAt(holder, 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is at work on %s: wait until it has ended", strings.TrimSpace(string(holder[:n])), s.StateDir)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func write(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// sameFile tells whether the name still leads to the open file: a Down may have removed it.
func sameFile(f *os.File) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(f.Name())
	return err == nil && os.SameFile(a, b)
}
