package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	// openTimeout bounds how long a new process may take until it answers.
	openTimeout = 20 * time.Second
	// pollEvery is how often a process that starts is asked.
	pollEvery = 5 * time.Millisecond
	// A process that keeps ending is started again after growing waits, between these.
	restartMin = 100 * time.Millisecond
	restartMax = 5 * time.Second
)

// Process says which process is wanted.
type Process struct {
	Dir     string   // its directory, absolute; made when missing; it belongs to one cell
	Program string   // path of cell-proxy
	Args    []string // its settings but for -dir
	// Version is the one wanted; a process with another one, or with other settings, hands over to a new one.
	Version string
}

func (p Process) args() []string { return append([]string{"-dir", p.Dir}, p.Args...) }

func (p Process) is(s Self) bool { return s.Version == p.Version && slices.Equal(s.Args, p.args()) }

// Open returns a client of the wanted process: the one that is there, or one that it starts. It outlives the
// caller. Two callers at once get the same one.
func Open(ctx context.Context, p Process) (*Client, error) {
	if !filepath.IsAbs(p.Dir) || len(filepath.Join(p.Dir, HandoverFile)) > MaxSocketPath {
		return nil, fmt.Errorf("directory %q of the proxy: want an absolute path of at most %d bytes", p.Dir, MaxSocketPath-len(HandoverFile)-1)
	}
	c := NewClient(p.Dir)
	self, err := c.Self(ctx)
	if err == nil && p.is(self) {
		return c, nil
	}
	ended, err := p.start(err == nil)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Program, err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for {
		if self, err := c.Self(ctx); err == nil && p.is(self) {
			return c, nil
		}
		select {
		case err, running := <-ended:
			if !running { // told before: somebody else's may still come up
				ended = nil
			} else if self, again := c.Self(ctx); again == nil && p.is(self) {
				return c, nil
			} else if err != nil {
				return nil, fmt.Errorf("start %s: %w: see %s", p.Program, err, filepath.Join(p.Dir, LogFile))
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("start %s: it does not answer: %w: see %s", p.Program, ctx.Err(), filepath.Join(p.Dir, LogFile))
		case <-time.After(pollEvery):
		}
	}
}

// start starts a process in a session of its own. The channel tells how it ended.
func (p Process) start(takeOver bool) (<-chan error, error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(p.Dir, LogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := p.args()
	if takeOver {
		args = append(args, "-takeover")
	}
	cmd := exec.Command(p.Program, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- cmd.Wait()
	}()
	return ended, nil
}

// Keep sees to it that the wanted process is there until ctx ends, and leaves it running then.
func Keep(ctx context.Context, log *slog.Logger, p Process) error {
	wait := restartMin
	for {
		begun := time.Now()
		c, err := Open(ctx, p)
		if err == nil {
			err = c.Await(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(begun) > restartMax {
			wait = restartMin
		}
		if err == nil {
			err = errors.New("it has ended")
		}
		log.Warn("cell-proxy is away", "again_in", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, restartMax)
	}
}
