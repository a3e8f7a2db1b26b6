// Package process finds processes of this machine by what the kernel says about them, and ends them
// without ever hitting another one: a process number written down somewhere may belong to somebody
// else by now, or may never have been written, because who started the process was killed.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pollMillis is how often End looks whether its context has ended, in milliseconds.
const pollMillis = 50

// All returns the command lines of all processes by their numbers. Those that are gone, zombies and
// threads of the kernel have none.
func All() (map[int][]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := map[int][]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if args := arguments(pid); args != nil {
			all[pid] = args
		}
	}
	return all, nil
}

// arguments returns the command line of a process; nil when it has none.
func arguments(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
}

// Runs tells whether a process has this command line.
func Runs(pid int, args []string) bool { return slices.Equal(arguments(pid), args) }

// Step is a signal, and how long a process may take to end after it.
type Step struct {
	Signal unix.Signal
	Wait   time.Duration
}

// End takes the steps until the process is gone. The process is held by a handle first, and only then
// meant is asked whether it is the one to end; if not, or if it is gone, nothing is done. A process that
// does not even end after the last step is an error.
func End(ctx context.Context, pid int, meant func() bool, steps ...Step) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !meant() {
		return nil
	}
	for _, step := range steps {
		if err := unix.PidfdSendSignal(fd, step.Signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
		ended, err := awaitEnd(ctx, fd, step.Wait)
		if ended || err != nil {
			return err
		}
	}
	return fmt.Errorf("process %d does not end: if %v did not end it, it hangs in the kernel, and only a reboot removes it", pid, steps[len(steps)-1].Signal)
}

// awaitEnd tells whether the process of a handle ended within a time.
func awaitEnd(ctx context.Context, fd int, within time.Duration) (bool, error) {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, pollMillis)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for a process: %w", err)
		}
		if n > 0 {
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
	return false, nil
}
