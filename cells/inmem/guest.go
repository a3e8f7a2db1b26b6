package inmem

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"syscall"
	"time"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/guest/record"
	"muster/cells/step"
)

// guest is what the program of a container runs on.
type guest struct{ c *container }

var _ step.Host = guest{}

// Start starts a process: the Go function that the image has at that path.
func (g guest) Start(p step.Process) (step.Running, error) {
	program, err := g.c.image.program(p)
	if err != nil {
		return nil, err
	}
	r := &process{signals: make(chan syscall.Signal, maxSignals), killed: make(chan struct{}), ended: make(chan struct{})}
	out, errs := g.output(p, step.Stdout), g.output(p, step.Stderr)
	proc := Proc{
		Args: p.Args, Env: p.Env, Dir: p.Dir, User: p.User, Signals: r.signals, Killed: r.killed,
		Stdout: out, Stderr: errs, WriteFile: g.c.writeFile, ReadFile: g.c.readFile,
		Use: func(cpu time.Duration, memory int64) { r.use(g.c, cpu, memory) },
	}
	g.c.began()
	g.c.running.Go(func() {
		defer r.left(g.c)
		code := program(proc)
		out.flush()
		errs.flush()
		r.end(code)
	})
	g.c.running.Go(func() {
		select {
		case <-g.c.killed:
			r.kill()
		case <-r.ended:
		}
	})
	return r, nil
}

// process is a Go function that runs.
type process struct {
	signals chan syscall.Signal
	killed  chan struct{} // closed by SIGKILL
	ended   chan struct{}
	memory  int64 // that it uses; under the container's lock

	mu   sync.Mutex
	exit step.Exit
}

func (p *process) Signal(s syscall.Signal) {
	if s == syscall.SIGKILL {
		p.kill()
		return
	}
	select {
	case p.signals <- s:
	default:
	}
}

// kill ends the process, whenever its function returns.
func (p *process) kill() {
	p.mu.Lock()
	closeOnce(p.killed)
	p.mu.Unlock()
	p.end(128 + int(syscall.SIGKILL))
}

func (p *process) end(code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ended:
	default:
		p.exit = step.Exit{Code: code}
		close(p.ended)
	}
}

func (p *process) Ended() <-chan struct{} { return p.ended }

func (p *process) Exit() step.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// output splits what a process writes on one stream into lines of the log.
type output struct {
	to   step.Output // instead of the log; nil: the log
	line func(text []byte)

	mu    sync.Mutex
	split record.Splitter
}

func (g guest) output(p step.Process, stream step.Stream) *output {
	return &output{to: p.Output, line: func(text []byte) {
		g.c.logged(engine.Line{At: time.Now(), Source: p.Source, Stream: stream, Text: bytes.Clone(text)})
	}}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.to != nil {
		return o.to.Write(p)
	}
	for line := range o.split.Lines(p) {
		o.line(line)
	}
	return len(p), nil
}

func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range o.split.Rest() {
		o.line(line)
	}
}

// Download waits for an archive and puts its files into the container.
func (g guest) Download(ctx context.Context, n int, a *lrp.DownloadAction) (int64, bool, error) {
	answer, err := g.wait(ctx, step.Event{At: time.Now(), Name: step.Wants, N: n})
	if err != nil {
		return 0, false, err
	}
	if err := g.extract(answer.archive, a.To); err != nil {
		return 0, false, fmt.Errorf("Copying %s into the container failed: %w", a.Artifact, err)
	}
	return answer.Size, answer.Cached, nil
}

// Upload waits until a file was fetched.
func (g guest) Upload(ctx context.Context, n int, a *lrp.UploadAction) (int64, error) {
	content, err := g.c.readFile(a.From)
	if err != nil {
		return 0, err
	}
	answer, err := g.wait(ctx, step.Event{At: time.Now(), Name: step.Wants, N: n, Path: a.From, Bytes: int64(len(content))})
	return answer.Size, err
}

// wait tells that a transfer is wanted and waits for its answer.
func (g guest) wait(ctx context.Context, ev step.Event) (delivery, error) {
	g.Tell(ev)
	select {
	case answer := <-g.c.answer(ev.N):
		if answer.Error != "" {
			return delivery{}, errors.New(answer.Error)
		}
		return answer, nil
	case <-ctx.Done():
		return delivery{}, ctx.Err()
	case <-g.c.killed:
		return delivery{}, context.Canceled
	}
}

// extract puts the files of an archive into the container.
func (g guest) extract(archive []byte, to string) error {
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if err := g.c.writeFile(path.Join(to, h.Name), content); err != nil {
				return err
			}
		}
	}
}

// ReadFile returns a file that a process has written.
func (g guest) ReadFile(path string, limit int) ([]byte, error) {
	content, err := g.c.readFile(path)
	return content[:min(len(content), limit+1)], err
}

// Log writes a line to the log.
func (g guest) Log(source string, stream step.Stream, line string) {
	g.c.logged(engine.Line{At: time.Now(), Source: source, Stream: stream, Text: []byte(line)})
}

// Tell tells what happened.
func (g guest) Tell(ev step.Event) { g.c.events.add(ev) }
