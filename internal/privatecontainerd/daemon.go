package privatecontainerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"muster/internal/process"
)

const (
	// openTimeout bounds how long a new daemon may take until it answers.
	openTimeout = 20 * time.Second
	// stopGrace is how long a daemon may take to end after SIGTERM before it gets SIGKILL.
	stopGrace = 5 * time.Second
	// pollEvery is how often a daemon that starts or stops is looked at.
	pollEvery = 10 * time.Millisecond
	// configFlag is how a daemon is told its configuration file, by which it is found again.
	configFlag = "--config"
	// maxSocketPath is what fits into a Unix socket address, in bytes.
	maxSocketPath = 106
)

// Config says where a private containerd lives.
type Config struct {
	// Dir holds everything of the daemon; made when missing. Its path is at most about 90 bytes
	// long, because the socket's path must fit into a socket address.
	Dir string
	// Detached lets the daemon outlive the calling process; otherwise it ends with it.
	Detached bool
}

// Daemon is a running private containerd.
type Daemon struct {
	// Address is the path of its socket.
	Address string
	// PID is its process.
	PID int

	dir    string
	exited chan struct{} // closed when a daemon started by us has ended; nil when found running
}

// Open returns the containerd of a directory; it starts one unless one is there and answers.
func Open(ctx context.Context, cfg Config) (*Daemon, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("private containerd in %q: %w", cfg.Dir, err)
	}
	d := &Daemon{Address: filepath.Join(dir, socketFile), dir: dir}
	if len(d.Address) > maxSocketPath {
		return nil, fmt.Errorf("private containerd in %s: the socket's path would have %d bytes, more than %d: choose a shorter directory",
			dir, len(d.Address), maxSocketPath)
	}
	pid, err := daemonPID(dir)
	if err != nil {
		return nil, fmt.Errorf("private containerd in %s: %w", dir, err)
	}
	if pid != 0 {
		err := d.awaitServing(ctx, func() bool { now, err := daemonPID(dir); return err == nil && now != pid })
		if err == nil {
			d.PID = pid
			return d, nil
		}
		if !errors.Is(err, errEnded) {
			return nil, fmt.Errorf("private containerd with process %d in %s does not answer: %w: stop it, or look at %s",
				pid, dir, err, filepath.Join(dir, logFile))
		}
	}
	if err := d.start(cfg.Detached); err != nil {
		return nil, fmt.Errorf("start private containerd in %s: %w", dir, err)
	}
	if err := d.awaitServing(ctx, d.hasEnded); err != nil {
		err = fmt.Errorf("start private containerd in %s: %w; the end of its log: %s", dir, err, tail(filepath.Join(dir, logFile)))
		return nil, errors.Join(err, endDaemon(context.WithoutCancel(ctx), d.dir, d.PID))
	}
	return d, nil
}

// start writes the configuration and starts the daemon.
func (d *Daemon) start(detached bool) error {
	program, err := exec.LookPath("containerd")
	if err != nil {
		return fmt.Errorf("%w: install it, on Debian with: apt-get install containerd runc", err)
	}
	if os.Geteuid() != 0 {
		return errors.New("containerd needs root: run as root")
	}
	for _, sub := range []string{rootDir, stateDir} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o711); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir, configFile), []byte(configuration(d.dir)), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(d.dir, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, configFlag, filepath.Join(d.dir, configFile))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !detached {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	if err := d.run(cmd); err != nil {
		return err
	}
	d.PID = cmd.Process.Pid
	return nil
}

// run starts cmd and collects it. The parent-death signal is sent when the starting thread ends, so
// one thread is kept for that as long as the daemon lives.
func (d *Daemon) run(cmd *exec.Cmd) error {
	d.exited = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(d.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in its log
		}
	}()
	return <-started
}

// errEnded says that a daemon ended while it was waited for.
var errEnded = errors.New("it has ended")

// hasEnded tells whether the daemon that we started is no more.
func (d *Daemon) hasEnded() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

// awaitServing returns when the daemon answers, or has ended, or ctx ends.
func (d *Daemon) awaitServing(ctx context.Context, ended func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		gone := ended() // before it is asked: a dead one's last answer does not count
		err := ping(ctx, d.Address)
		switch {
		case gone:
			return errEnded
		case err == nil:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last answer: %w)", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// ping asks a daemon whether it serves.
func ping(ctx context.Context, address string) error {
	if _, err := os.Stat(address); err != nil {
		return err
	}
	client, err := containerd.New(address, containerd.WithTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	serving, err := client.IsServing(ctx)
	if err != nil {
		return err
	}
	if !serving {
		return errors.New("it is not serving yet")
	}
	return nil
}

// Close ends the daemon and leaves its containers running, as an upgrade of containerd does.
func (d *Daemon) Close(ctx context.Context) error {
	return endDaemon(ctx, d.dir, d.PID)
}

// daemonPID returns the process of a live daemon of dir, 0 when there is none. It is found by its
// command line, because a number that was written down may be missing, when who started it was
// killed, or belong to somebody else by now.
func daemonPID(dir string) (int, error) {
	all, err := process.All()
	for pid, args := range all {
		if filepath.Base(args[0]) == "containerd" && slices.Equal(args[1:], []string{configFlag, filepath.Join(dir, configFile)}) {
			return pid, nil
		}
	}
	return 0, err
}

// tailBytes is how much of a log goes into an error.
const tailBytes = 1000

// tail returns the end of a file.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-tailBytes):]))
}
