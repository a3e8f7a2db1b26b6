// Package enginetest is the conformance suite of engine.Engine: what every engine must do, run on
// each of them. The program in the containers is package probe.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/step"
)

// patience bounds how long anything may take; a test fails when it is reached.
const patience = time.Minute

// Images are the images of a harness.
type Images struct {
	App     string // holds the probe at Program, the users root and app, and a PATH that leads to it
	Program string // absolute path
	Missing string // a well-formed URL of an image that is not there
}

// Harness is an engine under test with its surroundings.
type Harness struct {
	// Open returns one more life of the engine's owner on the same state. The harness ends it.
	Open   func(t *testing.T) engine.Engine
	Images Images
	// Port returns a free port of the cell.
	Port func() uint16
	// Reach, when set, asks the HTTP server behind a port for its page, over the container's address and
	// over the cell's. Engines without a network have none.
	Reach func(t *testing.T, c engine.Container, port engine.Port) []string
	// Traces lists everything on the machine that belongs to containers of the engine. It must be
	// the same before and after each test.
	Traces func(t *testing.T) []string
}

// Run runs the suite.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	h := open(t)
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"life of a container", (*suite).life},
		{"exit codes", (*suite).exitCodes},
		{"a stubborn process is killed", (*suite).stubborn},
		{"wait for an exit that was", (*suite).waitTwice},
		{"wait gives up with its context", (*suite).waitCancelled},
		{"output of both streams", (*suite).logs},
		{"output is followed", (*suite).follow},
		{"following ends with the container", (*suite).followUntilDestroyed},
		{"following ends with the context", (*suite).followUntilCancelled},
		{"a reader that is closed", (*suite).followUntilClosed},
		{"an identity is given once", (*suite).exists},
		{"destroy in every state", (*suite).destroy},
		{"what is not there", (*suite).notFound},
		{"a missing image", (*suite).missingImage},
		{"a missing program", (*suite).missingProgram},
		{"an unknown user", (*suite).unknownUser},
		{"setup, action and sidecar", (*suite).program},
		{"a download", (*suite).download},
		{"an upload", (*suite).upload},
		{"a result file", (*suite).resultFile},
		{"notes of the cell", (*suite).notes},
		{"events are waited for", (*suite).events},
		{"program of the PATH", (*suite).inPath},
		{"adoption", (*suite).adoption},
		{"adoption of an exit", (*suite).adoptionOfExit},
		{"ports", (*suite).ports},
		{"mounts", (*suite).mounts},
		{"egress rules that make no sense", (*suite).badEgress},
		{"usage", (*suite).usage},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var before []string
			if h.Traces != nil {
				before = h.Traces(t)
			}
			s := &suite{T: t, Harness: h, engine: h.Open(t)}
			test.run(s)
			if h.Traces != nil {
				if diff := cmp.Diff(before, h.Traces(t)); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			}
		})
	}
}

// suite is one test of the suite.
type suite struct {
	*testing.T
	Harness
	engine engine.Engine
	made   int
}

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	s.Cleanup(cancel)
	return ctx
}

// run returns an action that runs the probe.
func (s *suite) run(args ...string) *lrp.Action {
	return &lrp.Action{Run: &lrp.RunAction{Path: s.Images.Program, Args: args, User: "root"}}
}

// spec returns a container that runs the probe.
func (s *suite) spec(args ...string) engine.Spec {
	s.made++
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return 'x'
	}, s.Name()[strings.Index(s.Name(), "/")+1:])
	return engine.Spec{
		ID: engine.ID(fmt.Sprintf("%.30s-%d", name, s.made)), RootFS: s.Images.App,
		Labels:  map[string]string{"purpose": s.Name()},
		Program: step.Program{Action: s.run(args...), Source: "APP", Graceful: patience, LogBytes: -1},
	}
}

// create makes a container; it is destroyed at the end of the test in any case.
func (s *suite) create(spec engine.Spec) engine.Container {
	s.Helper()
	c, err := s.engine.Create(s.ctx(), spec)
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.engine.Destroy(ctx, spec.ID); err != nil && !s.Failed() {
			s.Error(err)
		}
	})
	s.must(err)
	return c
}

// start makes and starts a container that runs the probe.
func (s *suite) start(args ...string) engine.Container {
	s.Helper()
	c := s.create(s.spec(args...))
	s.must(s.engine.Start(s.ctx(), c.ID))
	return c
}

// ready returns a reader of the log of a container behind the line "ready".
func (s *suite) ready(id engine.ID) engine.Log {
	s.Helper()
	r := s.follow1(s.engine, id)
	s.line(r, "ready")
	return r
}

func (s *suite) follow1(e engine.Engine, id engine.ID) engine.Log {
	s.Helper()
	log, err := e.Logs(s.ctx(), id, true)
	s.must(err)
	s.Cleanup(func() { log.Close() })
	return log
}

// line reads the next line, which has to be this one.
func (s *suite) line(r engine.Log, want string) engine.Line {
	s.Helper()
	got, err := r.Next()
	if err != nil || string(got.Text) != want {
		s.Fatalf("read %q, %v; want %q", got.Text, err, want)
	}
	return got
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) destroyNow(id engine.ID) {
	s.Helper()
	s.must(s.engine.Destroy(s.ctx(), id))
}

// exit waits for the exit of a container.
func (s *suite) exit(e engine.Engine, id engine.ID) engine.Exit {
	s.Helper()
	exit, err := e.Wait(s.ctx(), id)
	s.must(err)
	if exit.At.IsZero() {
		s.Errorf("%s ended at no time", id)
	}
	return exit
}

// listed returns what List says of a container.
func (s *suite) listed(e engine.Engine, id engine.ID) (engine.Container, bool) {
	s.Helper()
	all, err := e.List(s.ctx())
	s.must(err)
	for _, c := range all {
		if c.ID == id {
			return c, true
		}
	}
	return engine.Container{}, false
}

func (s *suite) status(e engine.Engine, id engine.ID, want engine.Status) engine.Container {
	s.Helper()
	c, ok := s.listed(e, id)
	if !ok || c.Status != want {
		s.Fatalf("%s is %q (listed: %v), want %q", id, c.Status, ok, want)
	}
	return c
}

func (s *suite) absent(id engine.ID) {
	s.Helper()
	if c, ok := s.listed(s.engine, id); ok {
		s.Errorf("still listed: %+v", c)
	}
}

func (s *suite) refused(err, want error, texts ...string) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("got %v, want %v", err, want)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			s.Errorf("%q is not named in: %v", text, err)
		}
	}
}

func (s *suite) kill(id engine.ID, signal syscall.Signal) {
	s.Helper()
	s.must(s.engine.Kill(s.ctx(), id, signal))
}

// all returns the lines of a log, each with its source and stream before it.
func (s *suite) all(id engine.ID) []string {
	s.Helper()
	log, err := s.engine.Logs(s.ctx(), id, false)
	s.must(err)
	defer log.Close()
	var all []string
	for {
		line, err := log.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		s.must(err)
		if age := time.Since(line.At); age < 0 || age > patience {
			s.Errorf("line %q was written %v ago", line.Text, age)
		}
		all = append(all, fmt.Sprintf("%s %d %s", line.Source, line.Stream, line.Text))
	}
}

// told waits for the nth event, which has to be this one.
func (s *suite) told(id engine.ID, n int, want step.EventName) step.Event {
	s.Helper()
	events, err := s.engine.Events(s.ctx(), id, n)
	s.must(err)
	if events[0].Name != want {
		s.Fatalf("event %d is %+v, want %s", n, events[0], want)
	}
	return events[0]
}

// result returns how the program of a container ended.
func (s *suite) result(id engine.ID) step.Result {
	s.Helper()
	exit := s.exit(s.engine, id)
	if exit.Result == nil {
		s.Fatalf("exit %+v has no result", exit)
	}
	return *exit.Result
}
