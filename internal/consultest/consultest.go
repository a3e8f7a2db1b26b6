// Package consultest gives tests a real Consul: one private agent for all tests of a process, started when first
// needed, or one for a test alone, to be paused, killed and wiped at will.
//
// Nothing is left behind, however the process ends: a watchdog outside of it notices its end, kills the agent and
// removes its files. There is no skipping: without Consul, which is built from source once, the tests fail.
package consultest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"muster/internal/consulagent"
)

const (
	// MinTTL is the shortest TTL of a session: short ones keep tests short.
	MinTTL = 500 * time.Millisecond
	// readyTime is how long an agent may take to be ready.
	readyTime = 30 * time.Second
	// pollEvery is how often a starting one is asked.
	pollEvery = 20 * time.Millisecond
	// attempts is how often ports are chosen anew when they were taken meanwhile.
	attempts = 3
	// token is what the agents ask for, so that tests show that it is sent.
	token = "4d757374-6572-4d75-9374-65724d757374"
)

// Agent is a running agent.
type Agent struct {
	// Config is how it runs.
	Config consulagent.Config

	exe    string
	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

var (
	shared = sync.OnceValues(open)
	// prefixes numbers those that tests are given.
	prefixes atomic.Int64
	// held keeps the write ends of the watchdogs from being collected and closed.
	held sync.Map
)

// Shared returns the agent of this process, and a prefix that no other test was given.
func Shared(t testing.TB) (*Agent, string) {
	t.Helper()
	a, err := shared()
	if err != nil {
		t.Fatalf("tests need Consul: %v", err)
	}
	return a, "t" + strconv.FormatInt(prefixes.Add(1), 10)
}

// Own returns an agent of this test alone.
func Own(t testing.TB) *Agent {
	t.Helper()
	a, err := open()
	if err != nil {
		t.Fatalf("tests need Consul: %v", err)
	}
	t.Cleanup(a.Kill)
	return a
}

// Address is where its API is.
func (a *Agent) Address() string { return a.Config.Address() }

// Token is the token that it wants.
func (a *Agent) Token() string { return token }

// Client returns a client of the agent.
func (a *Agent) Client(t testing.TB) *api.Client {
	t.Helper()
	c, err := a.Config.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Kill ends the agent as a crash would, and waits until it is gone. What it has on disk stays.
func (a *Agent) Kill() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kill()
}

func (a *Agent) kill() {
	// The process is ours and not waited for by others: its number is still its own.
	_ = a.cmd.Process.Signal(syscall.SIGKILL) // an error: it has ended
	<-a.exited
}

// Restart starts a killed agent again, with what it has on disk.
func (a *Agent) Restart(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
}

// Wipe kills the agent and starts it again with nothing, at the same address.
func (a *Agent) Wipe(t testing.TB) {
	t.Helper()
	a.Kill()
	if err := os.RemoveAll(filepath.Join(a.Config.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	a.Restart(t)
}

// Pause stops the agent where it is; connections stay open, and nobody answers.
func (a *Agent) Pause(t testing.TB) { a.signal(t, syscall.SIGSTOP) }

// Resume lets a paused agent go on.
func (a *Agent) Resume(t testing.TB) { a.signal(t, syscall.SIGCONT) }

func (a *Agent) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// open starts an agent in a directory of its own, with a watchdog beside it.
func open() (*Agent, error) {
	exe, err := consulagent.Binary(context.Background(), nil, ".")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "consultest-")
	if err != nil {
		return nil, err
	}
	if err := watchdog(dir); err != nil {
		return nil, err
	}
	a := &Agent{exe: exe}
	for range attempts {
		a.Config, err = consulagent.Config{Dir: dir, Token: token, MinSessionTTL: MinTTL}.FreePorts()
		if err != nil {
			return nil, err
		}
		if err = a.start(); err == nil {
			return a, nil
		}
	}
	return nil, err
}

// start starts the agent and waits until it is ready.
func (a *Agent) start() error {
	text, err := a.Config.JSON()
	if err != nil {
		return err
	}
	file, log := filepath.Join(a.Config.Dir, "consul.json"), filepath.Join(a.Config.Dir, "consul.log")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	defer out.Close()
	a.cmd = exec.Command(a.exe, "agent", "-config-file", file)
	a.cmd.Dir, a.cmd.Stdout, a.cmd.Stderr = a.Config.Dir, out, out
	if err := a.cmd.Start(); err != nil {
		return fmt.Errorf("start Consul: %w", err)
	}
	a.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		_ = cmd.Wait() // it is killed in the end
	}(a.cmd, a.exited)
	if err := a.ready(); err != nil {
		a.kill()
		said, _ := os.ReadFile(log)
		return fmt.Errorf("%w; it says: %s", err, said)
	}
	return nil
}

func (a *Agent) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTime)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := a.Config.Check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-a.exited:
			return errors.New("Consul ended at once")
		case <-ctx.Done():
			return fmt.Errorf("Consul is not ready after %v: %w", readyTime, err)
		case <-tick.C:
		}
	}
}

// script waits for the end of its input, which comes with the end of the test process, and then clears
// everything away.
const script = `cat >/dev/null
for p in /proc/[0-9]*; do
	if [ "$(readlink $p/cwd 2>/dev/null)" = "$1" ] && [ "$p" != "/proc/$$" ]; then kill -KILL "${p#/proc/}" 2>/dev/null; fi
done
rm -rf "$1"`

func watchdog(dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", script, "consultest-watchdog", dir)
	// A session of its own: what kills the test's process group must not kill it.
	cmd.Stdin, cmd.Dir, cmd.SysProcAttr = r, "/", &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the watchdog of Consul: %w", err)
	}
	// The write end stays open, and the process unreaped, for as long as this process lives.
	held.Store(dir, w)
	return nil
}
