package guest

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"muster/cells/step"
)

// drainWithin is how long the output of a process that has ended may be held open, by children that it
// left for example. What they write later is still logged.
const drainWithin = time.Second

// process is a process of the program.
type process struct {
	children *reaper
	pid      int
	ended    chan struct{}
	exit     step.Exit // valid once ended is closed
}

// Start starts a process.
func (g *guest) Start(p step.Process) (step.Running, error) {
	out, errs, err := g.outputs(p)
	if err != nil {
		return nil, err
	}
	kills := oomKills()
	pid, status, err := g.launch(order{
		Path: p.Path, Args: p.Args, Env: p.Env, Dir: p.Dir, User: p.User, Nofile: p.Nofile,
	}, nil, out.write, errs.write)
	err = errors.Join(err, out.begin(), errs.begin())
	if err != nil {
		return nil, err
	}
	r := &process{children: g.children, pid: pid, ended: make(chan struct{})}
	go func() {
		s := <-status
		late := time.NewTimer(drainWithin)
		defer late.Stop()
		for _, read := range []<-chan struct{}{out.done, errs.done} {
			select {
			case <-read:
			case <-late.C:
				late.Reset(0) // for the other
			}
		}
		r.exit = step.Exit{Code: code(s), OutOfMemory: code(s) != 0 && oomKills() > kills}
		close(r.ended)
	}()
	return r, nil
}

// code returns the status of a process as a shell tells it.
func code(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

func (p *process) Signal(s syscall.Signal) { p.children.signal(p.pid, s) }
func (p *process) Ended() <-chan struct{}  { return p.ended }
func (p *process) Exit() step.Exit         { return p.exit }

// stream is one output of a process.
type stream struct {
	write *os.File // for the process
	read  *os.File // nil: nobody reads
	take  func(from io.Reader)
	done  chan struct{} // closed when all was read
}

// outputs returns where a process writes to.
func (g *guest) outputs(p step.Process) (out, errs *stream, err error) {
	var mu sync.Mutex
	open := func(s step.Stream) *stream {
		switch {
		case err != nil:
			return nil
		case p.Output == io.Discard:
			var null *os.File
			null, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			return newStream(null, nil, nil)
		}
		var read, write *os.File
		read, write, err = os.Pipe()
		return newStream(write, read, func(from io.Reader) {
			if p.Output == nil {
				g.log.copy(p.Source, s, from)
				return
			}
			_, _ = io.Copy(locked{&mu, p.Output}, from) // until the end; a buffer takes all
		})
	}
	return open(step.Stdout), open(step.Stderr), err
}

func newStream(write, read *os.File, take func(io.Reader)) *stream {
	return &stream{write: write, read: read, take: take, done: make(chan struct{})}
}

// begin reads the output of a process that was started or not; the process has its own end by now.
func (s *stream) begin() error {
	err := s.write.Close()
	if s.read == nil {
		close(s.done)
		return err
	}
	go func() {
		defer close(s.done)
		defer s.read.Close()
		s.take(s.read)
	}()
	return err
}

// locked lets several write to one output.
type locked struct {
	mu *sync.Mutex
	to step.Output
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}
