package inmem

import (
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"muster/cells/engine"
)

// container is one container of a host. Its lock is never held together with the host's.
type container struct {
	spec      engine.Spec
	program   Program
	address   string
	createdAt time.Time

	signals chan syscall.Signal
	killed  chan struct{} // closed by kill
	ended   chan struct{} // closed when exit is set
	gone    chan struct{} // closed by destroy
	done    chan struct{} // closed when the program has returned; nil before start

	out, err *record

	mu     sync.Mutex
	status engine.Status
	exit   engine.Exit
}

func newContainer(spec engine.Spec, program Program) *container {
	spec.Labels = maps.Clone(spec.Labels)
	spec.Ports = slices.Clone(spec.Ports)
	spec.Process.Args = slices.Clone(spec.Process.Args)
	spec.Process.Env = slices.Clone(spec.Process.Env)
	c := &container{
		spec: spec, program: program, status: engine.Created, createdAt: time.Now(),
		signals: make(chan syscall.Signal, maxSignals),
		killed:  make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	c.out, c.err = newRecord(c.gone), newRecord(c.gone)
	return c
}

// start runs the program. It reports false when the container was not waiting for that.
func (c *container) start() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != engine.Created {
		return false
	}
	c.status = engine.Running
	c.done = make(chan struct{})
	process := c.spec.Process
	proc := Proc{
		Args: process.Args, Env: process.Env, Dir: process.Dir, User: process.User,
		Signals: c.signals, Killed: c.killed, Stdout: c.out, Stderr: c.err,
	}
	go func(done chan struct{}) {
		defer close(done)
		c.end(c.program(proc))
	}(c.done)
	return true
}

// end notes the exit; the first one counts.
func (c *container) end(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != engine.Running {
		return
	}
	c.status = engine.Exited
	c.exit = engine.Exit{Code: code, At: time.Now()}
	close(c.ended)
}

// signal delivers a signal to a running program; the kernel's SIGKILL needs no co-operation.
func (c *container) signal(s syscall.Signal) {
	if s == syscall.SIGKILL {
		c.kill()
		return
	}
	select {
	case c.signals <- s:
	default:
	}
}

func (c *container) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != engine.Running {
		return
	}
	c.status = engine.Exited
	c.exit = engine.Exit{Code: 128 + int(syscall.SIGKILL), At: time.Now()}
	close(c.ended)
	closeOnce(c.killed)
}

// destroy ends the process, waits for its program and ends all readers of its output.
func (c *container) destroy() {
	c.kill()
	c.mu.Lock()
	done := c.done
	closeOnce(c.killed) // a program that has been outlived by its process still looks at it
	c.mu.Unlock()
	if done != nil {
		<-done
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	closeOnce(c.gone)
}

// describe returns what the engine tells of the container.
func (c *container) describe() engine.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	return engine.Container{
		ID: c.spec.ID, Labels: maps.Clone(c.spec.Labels), Status: c.status, Exit: c.exit,
		Address: c.address, Ports: slices.Clone(c.spec.Ports), CreatedAt: c.createdAt,
	}
}

// closeOnce closes ch unless it is; the container's lock is held.
func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}
