package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Times and pauses of starting and stopping.
const (
	// pollEvery is how often the state of a server that starts or stops is looked at.
	pollEvery = 10 * time.Millisecond
	// startTime bounds a start; recovery after a crash is part of it.
	startTime = 60 * time.Second
	// fastStopTime is how long a server may take to stop before it is told to stop at once.
	fastStopTime = 15 * time.Second
	// quitTime is how long it may take then before it is killed.
	quitTime = 5 * time.Second
)

// postmaster returns the process id of the server that works on a data directory, or 0. A process
// counts only if its working directory is that directory, which a server never leaves: so a stale
// postmaster.pid whose number went to somebody else is not believed.
func postmaster(data string) int {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 0 || !worksIn(pid, data) {
		return 0
	}
	return pid
}

func worksIn(pid int, data string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == data
}

// ready tells whether the server accepts connections: it says so in the eighth line of its pid file.
func ready(data string) bool {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && strings.TrimSpace(lines[7]) == "ready"
}

// clearRemains waits until no process of a killed server works on the data directory any more (they
// end by themselves once they notice) and removes its pid file.
func clearRemains(ctx context.Context, data string) error {
	err := waitFor(ctx, func() (bool, error) { return len(workersIn(data)) == 0, nil })
	if err != nil {
		return fmt.Errorf("processes %v of a killed server still work in %s: %w", workersIn(data), data, err)
	}
	if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// halfMade is where a cluster is made before it is moved into its place.
func halfMade(dir string) string { return filepath.Join(dir, "run", "initdb") }

// removeHalfMade removes what an interrupted initdb left. Its helpers outlive it for a moment, and go
// on writing: they end once they find that nobody tells them what to do any more.
func removeHalfMade(ctx context.Context, half string) error {
	err := waitFor(ctx, func() (bool, error) {
		if len(workersIn(half)) > 0 {
			return false, nil
		}
		err := os.RemoveAll(half)
		return err == nil, ignore(err, syscall.ENOTEMPTY)
	})
	if err != nil {
		return fmt.Errorf("remove half-made cluster %s: %w", half, err)
	}
	return nil
}

// ignore returns err unless it is the one to ignore.
func ignore(err, which error) error {
	if errors.Is(err, which) {
		return nil
	}
	return err
}

func workersIn(data string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && worksIn(pid, data) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stopServer stops the server of a data directory, whoever started it, and waits until it is gone.
func stopServer(ctx context.Context, data string) error {
	pid := postmaster(data)
	if pid == 0 {
		// One that has only just been started has no pid file yet.
		for _, pid := range workersIn(data) {
			if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop PostgreSQL (pid %d): %w", pid, err)
			}
		}
		return clearRemains(ctx, data)
	}
	gone := func() (bool, error) { return !worksIn(pid, data), nil }
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, fastStopTime}, {syscall.SIGQUIT, quitTime}, {syscall.SIGKILL, quitTime}} {
		if err := syscall.Kill(pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop PostgreSQL (pid %d): %w", pid, err)
		}
		wctx, cancel := context.WithTimeout(ctx, step.wait)
		err := waitFor(wctx, gone)
		cancel()
		if err == nil {
			return clearRemains(ctx, data)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stop PostgreSQL (pid %d): %w", pid, ctx.Err())
		}
	}
	return fmt.Errorf("PostgreSQL (pid %d) does not end", pid)
}

// waitFor looks every so often whether something has come true.
func waitFor(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Kill kills the server as a crash would, and waits until it is gone. For tests of those who use it.
func (c *Cluster) Kill(ctx context.Context) error {
	pid := postmaster(c.data)
	if pid == 0 {
		return errors.New("kill PostgreSQL: it does not run")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill PostgreSQL (pid %d): %w", pid, err)
	}
	return waitFor(ctx, func() (bool, error) { return !worksIn(pid, c.data), nil })
}
