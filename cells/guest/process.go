package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"muster/cells/guest/internal/helper"
	"muster/cells/step"
)

// defaultNofile is how many files a process may open unless it is told otherwise.
const defaultNofile = 16384

// process is a program of the container that runs.
type process struct {
	child *child
	pumps []*pump
	kills int // of the kernel, for want of memory, when it was started
	ended chan struct{}
	exit  step.Exit
}

// Signal sends a signal to the process alone.
func (p *process) Signal(s syscall.Signal) { p.child.signal(s) }

// Ended is closed when the process has ended and its output was read.
func (p *process) Ended() <-chan struct{} { return p.ended }

// Exit says how it ended.
func (p *process) Exit() step.Exit { return p.exit }

// Start starts a process.
func (h *host) Start(p step.Process) (step.Running, error) {
	defer h.guard()
	out, err := h.outputs(p)
	if err != nil {
		return nil, fmt.Errorf("program %q: %w", p.Path, err)
	}
	defer closeAll(out.files)
	started := &process{pumps: out.pumps, kills: oomKills(), ended: make(chan struct{})}
	started.child, err = h.execute(p, out.files)
	if err != nil {
		out.drop()
		return nil, err
	}
	for _, one := range out.pumps {
		h.pumps.Go(func() {
			defer h.guard()
			one.run()
		})
	}
	go func() {
		defer h.guard()
		started.await()
	}()
	return started, nil
}

// execute makes a process of a program, with files for its output.
func (h *host) execute(p step.Process, files []int) (*child, error) {
	nofile := p.Nofile
	if nofile == 0 {
		nofile = defaultNofile
	}
	a, err := h.ask(helper.Exec, helper.Order{
		User: p.User, Dir: p.Dir, Path: p.Path, Args: p.Args, Env: p.Env, Nofile: nofile, Files: p.Files,
	}, files...)
	if err != nil {
		return nil, fmt.Errorf("program %q: %w", p.Path, err)
	}
	said := a.said()
	switch {
	case said == string(helper.Going):
		return a.child, nil
	case said == "":
		<-a.child.ended
		return nil, fmt.Errorf("program %q: its process ended with status %d before it could be executed", p.Path, a.child.code())
	case said[0] == helper.Going:
		said = said[1:]
	}
	<-a.child.ended
	return nil, errors.New(said)
}

// await waits for the end of a process, and then for the output that it left.
func (p *process) await() {
	<-p.child.ended
	within, cancel := context.WithTimeout(context.Background(), drainWait)
	defer cancel()
	for _, one := range p.pumps {
		one.drain(within)
	}
	p.exit = step.Exit{Code: p.child.code(), OutOfMemory: p.outOfMemory()}
	close(p.ended)
}

// outOfMemory tells whether want of memory ended the process: it was ended by SIGKILL, or with the status with
// which a shell says so of its child, and since it was started the kernel has killed something in the
// container for want of memory. Where the init cannot see that the answer is no.
func (p *process) outOfMemory() bool {
	return p.child.code() == 128+int(syscall.SIGKILL) && oomKills() > p.kills
}

// outputs are where a process writes to, and who reads it.
type outputs struct {
	files []int // of the process, standard output and error
	pumps []*pump
}

// drop closes what was made for a process that did not come to be.
func (o *outputs) drop() {
	for _, p := range o.pumps {
		_ = p.from.Close()
	}
}

// outputs makes the outputs of a process. What nobody wants to have goes nowhere, at no cost.
func (h *host) outputs(p step.Process) (*outputs, error) {
	o := &outputs{}
	if p.Output == io.Discard {
		for range 2 {
			fd, err := unix.FcntlInt(uintptr(h.null), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return nil, errors.Join(err, closeAll(o.files))
			}
			o.files = append(o.files, fd)
		}
		return o, nil
	}
	var mu sync.Mutex // for both streams
	for _, s := range []step.Stream{step.Stdout, step.Stderr} {
		to, rest := io.Writer(&shared{&mu, p.Output}), func() {}
		if p.Output == nil {
			log := h.log.stream(p.Source, s)
			to, rest = log, log.rest
		}
		one, fd, err := newPump(to, rest)
		if err != nil {
			o.drop()
			return nil, errors.Join(fmt.Errorf("make a pipe: %w", err), closeAll(o.files))
		}
		o.files, o.pumps = append(o.files, fd), append(o.pumps, one)
	}
	return o, nil
}

// shared is a writer of several goroutines.
type shared struct {
	mu *sync.Mutex
	to step.Output
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Write(p)
}

func closeAll(fds []int) error {
	var errs []error
	for _, fd := range fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}
