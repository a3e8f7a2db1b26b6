package enginetest

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/step"
)

func (s *suite) life() {
	s.must(s.engine.Ping(s.ctx()))
	spec := s.spec("run")
	spec.Ports = []engine.Port{{Container: 8080, Host: s.Port()}}
	made := s.create(spec)
	if made.ID != spec.ID || made.Status != engine.Created || made.Address == "" || made.CreatedAt.IsZero() {
		s.Errorf("made %+v", made)
	}
	created := s.status(s.engine, spec.ID, engine.Created)
	if diff := cmp.Diff(spec.Labels, created.Labels); diff != "" {
		s.Errorf("labels (-asked +listed):\n%s", diff)
	}
	if diff := cmp.Diff(spec.Ports, created.Ports); diff != "" || created.Address != made.Address {
		s.Errorf("network %q, want %q; ports (-asked +listed):\n%s", created.Address, made.Address, diff)
	}
	s.must(s.engine.Start(s.ctx(), spec.ID))
	r := s.ready(spec.ID)
	s.status(s.engine, spec.ID, engine.Running)
	s.kill(spec.ID, syscall.SIGTERM)
	if exit := s.exit(s.engine, spec.ID); exit.Code != 1 || exit.OOMKilled || exit.Result == nil || exit.Result.Reason != "cancelled" {
		s.Errorf("exit %+v, want that of an interrupted program", exit)
	}
	s.line(r, "stopping")
	s.line(r, "Exit status 3")
	if ended := s.status(s.engine, spec.ID, engine.Exited); ended.Exit.Code != 1 {
		s.Errorf("listed exit %+v, want code 1", ended.Exit)
	}
	s.kill(spec.ID, syscall.SIGTERM) // a process that has ended is no error
	s.destroyNow(spec.ID)
	s.absent(spec.ID)
}

func (s *suite) exitCodes() {
	for text, code := range map[string]int{"0": 0, "1": 1, "255": 255} {
		c := s.start("exit", text)
		if exit := s.exit(s.engine, c.ID); exit.Code != code {
			s.Errorf("exit %+v, want code %d", exit, code)
		}
		s.destroyNow(c.ID)
	}
}

func (s *suite) stubborn() {
	c := s.start("stubborn")
	r := s.ready(c.ID)
	s.kill(c.ID, syscall.SIGTERM)
	s.line(r, "ignored")
	s.status(s.engine, c.ID, engine.Running)
	s.kill(c.ID, syscall.SIGKILL)
	if exit := s.exit(s.engine, c.ID); exit.Code != 137 || exit.OOMKilled || exit.Result != nil {
		s.Errorf("exit %+v, want code 137", exit)
	}
	s.destroyNow(c.ID)
}

func (s *suite) waitTwice() {
	c := s.start("exit", "4")
	first := s.exit(s.engine, c.ID)
	if second := s.exit(s.engine, c.ID); !first.At.Equal(second.At) || first.Code != second.Code {
		s.Errorf("first %+v, then %+v", first, second)
	}
	s.destroyNow(c.ID)
}

func (s *suite) waitCancelled() {
	c := s.start("run")
	s.ready(c.ID)
	ctx, cancel := context.WithCancel(s.ctx())
	done := make(chan error, 1)
	go func() {
		_, err := s.engine.Wait(ctx, c.ID)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		s.Errorf("got %v", err)
	}
	s.status(s.engine, c.ID, engine.Running)
	s.destroyNow(c.ID)
}

func (s *suite) exists() {
	c := s.start("run")
	s.ready(c.ID)
	again := s.spec("exit", "0")
	again.ID = c.ID
	_, err := s.engine.Create(s.ctx(), again)
	s.refused(err, engine.ErrExists, string(c.ID))
	s.status(s.engine, c.ID, engine.Running) // the first one is left alone
	s.kill(c.ID, syscall.SIGTERM)
	s.exit(s.engine, c.ID)
	s.destroyNow(c.ID)
	s.must(func() error { _, err := s.engine.Create(s.ctx(), again); return err }()) // now it is free
	s.destroyNow(c.ID)
}

func (s *suite) destroy() {
	created := s.create(s.spec("run"))
	s.destroyNow(created.ID)
	s.absent(created.ID)

	running := s.start("stubborn")
	s.ready(running.ID)
	waiting := make(chan error, 1)
	go func() {
		_, err := s.engine.Wait(s.ctx(), running.ID)
		waiting <- err
	}()
	s.destroyNow(running.ID)
	<-waiting // with an exit or without: it must not hang
	s.absent(running.ID)

	exited := s.start("exit", "1")
	s.exit(s.engine, exited.ID)
	s.destroyNow(exited.ID)
	s.destroyNow(exited.ID)
	s.absent(exited.ID)
}

func (s *suite) notFound() {
	const nobody engine.ID = "nobody"
	s.destroyNow(nobody)
	s.refused(s.engine.Start(s.ctx(), nobody), engine.ErrNotFound, string(nobody))
	s.refused(s.engine.Kill(s.ctx(), nobody, syscall.SIGTERM), engine.ErrNotFound, string(nobody))
	_, err := s.engine.Wait(s.ctx(), nobody)
	s.refused(err, engine.ErrNotFound, string(nobody))
	_, err = s.engine.Logs(s.ctx(), nobody, false)
	s.refused(err, engine.ErrNotFound, string(nobody))
	_, err = s.engine.Events(s.ctx(), nobody, 0)
	s.refused(err, engine.ErrNotFound, string(nobody))
	_, err = s.engine.Answered(s.ctx(), nobody, 0)
	s.refused(err, engine.ErrNotFound, string(nobody))
	_, err = s.engine.Open(s.ctx(), nobody, "/etc/passwd")
	s.refused(err, engine.ErrNotFound, string(nobody))
	s.refused(s.engine.Deliver(s.ctx(), nobody, 0, engine.Delivery{}), engine.ErrNotFound, string(nobody))
	s.refused(s.engine.Note(s.ctx(), nobody, engine.Line{}), engine.ErrNotFound, string(nobody))
}

func (s *suite) missingImage() {
	spec := s.spec("run")
	spec.RootFS = s.Images.Missing
	_, err := s.engine.Create(s.ctx(), spec)
	s.refused(err, engine.ErrImage, s.Images.Missing)
	s.absent(spec.ID)
}

func (s *suite) missingProgram() {
	for _, path := range []string{"/no/such/program", "no-such-program"} {
		spec := s.spec("run")
		spec.Program.Action.Run.Path = path
		s.fails(spec, path)
	}
}

func (s *suite) unknownUser() {
	spec := s.spec("run")
	spec.Program.Action.Run.User = "stranger"
	s.fails(spec, "stranger")
}

// fails runs a container whose program cannot be started; both the result and the log name why.
func (s *suite) fails(spec engine.Spec, why string) {
	s.Helper()
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	result := s.result(c.ID)
	if !result.Failed || !strings.Contains(result.Reason, why) {
		s.Errorf("result %+v, want one that names %s", result, why)
	}
	s.line(s.follow1(s.engine, c.ID), "failed-creating-process: "+result.Reason)
	s.destroyNow(c.ID)
}

func (s *suite) inPath() {
	spec := s.spec("exit", "5")
	run := spec.Program.Action.Run
	run.Path = run.Path[strings.LastIndex(run.Path, "/")+1:]
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	if exit := s.exit(s.engine, c.ID); exit.Code != 5 {
		s.Errorf("exit %+v, want code 5", exit)
	}
	s.destroyNow(c.ID)
}

func (s *suite) adoption() {
	spec := s.spec("tick")
	spec.Ports = []engine.Port{{Container: 8080, Host: s.Port()}}
	made := s.create(spec)
	s.must(s.engine.Start(s.ctx(), spec.ID))
	s.ready(spec.ID)

	next := s.Open(s.T)
	adopted := s.status(next, spec.ID, engine.Running)
	if diff := cmp.Diff(spec.Labels, adopted.Labels); diff != "" {
		s.Errorf("labels (-asked +adopted):\n%s", diff)
	}
	if diff := cmp.Diff(spec.Ports, adopted.Ports); diff != "" || adopted.Address != made.Address {
		s.Errorf("network %q, want %q; ports (-asked +adopted):\n%s", adopted.Address, made.Address, diff)
	}
	r := s.follow1(next, spec.ID)
	s.line(r, "ready") // output of before is there
	s.line(r, "tick 1")
	events, err := next.Events(s.ctx(), spec.ID, 0)
	s.must(err)
	if len(events) != 2 || events[0].Name != step.Begun || events[1].Name != step.Ready {
		s.Errorf("events of before: %+v", events)
	}
	s.must(next.Kill(s.ctx(), spec.ID, syscall.SIGTERM))
	if exit := s.exit(next, spec.ID); exit.Result == nil || exit.Result.Reason != "cancelled" {
		s.Errorf("exit %+v, want that of an interrupted program", exit)
	}
	s.must(next.Destroy(s.ctx(), spec.ID))
	s.absent(spec.ID)
}

func (s *suite) adoptionOfExit() {
	c := s.start("exit", "9")
	s.exit(s.engine, c.ID)
	next := s.Open(s.T)
	if adopted := s.status(next, c.ID, engine.Exited); adopted.Exit.Code != 9 {
		s.Errorf("listed exit %+v, want code 9", adopted.Exit)
	}
	if exit := s.exit(next, c.ID); exit.Code != 9 {
		s.Errorf("exit %+v, want code 9", exit)
	}
	s.must(next.Destroy(s.ctx(), c.ID))
}

func (s *suite) ports() {
	if s.Reach == nil {
		return // an engine without a network; the life of a container covers what it reports
	}
	spec := s.spec("serve", "8080")
	port := engine.Port{Container: 8080, Host: s.Port()}
	spec.Ports = []engine.Port{port}
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	s.ready(c.ID)
	for _, page := range s.Reach(s.T, c, port) {
		if page != "hello\n" {
			s.Errorf("page %q", page)
		}
	}
	s.destroyNow(c.ID)
}

func (s *suite) logs() {
	c := s.start("say", "to stdout", "to stderr")
	s.exit(s.engine, c.ID)
	r := s.follow1(s.engine, c.ID) // the engine may still be writing when the exit is known
	for range 3 {
		_, err := r.Next()
		s.must(err)
	}
	all := s.all(c.ID)
	if last := len(all) - 1; last != 2 || all[last] != "APP 1 Exit status 0" {
		s.Fatalf("log %q", all)
	}
	slices.Sort(all[:2]) // of two streams no order is promised
	if diff := cmp.Diff([]string{"APP 1 to stdout", "APP 2 to stderr"}, all[:2]); diff != "" {
		s.Error(diff)
	}
	s.destroyNow(c.ID)
	_, err := s.engine.Logs(s.ctx(), c.ID, false)
	s.refused(err, engine.ErrNotFound)
}

func (s *suite) follow() {
	c := s.start("tick")
	one := s.ready(c.ID)
	s.line(one, "tick 1")
	s.line(one, "tick 2")
	two := s.ready(c.ID) // a later reader gets everything
	for _, want := range []string{"tick 1", "tick 2", "tick 3"} {
		s.line(two, want)
	}
	s.line(one, "tick 3")
	s.destroyNow(c.ID)
}

func (s *suite) followUntilDestroyed() {
	c := s.start("run")
	r := s.ready(c.ID)
	s.kill(c.ID, syscall.SIGTERM)
	s.exit(s.engine, c.ID)
	s.line(r, "stopping")
	s.line(r, "Exit status 3")
	s.destroyNow(c.ID)
	if rest, err := r.Next(); !errors.Is(err, io.EOF) {
		s.Errorf("read %q, %v; want the end", rest.Text, err)
	}
}

func (s *suite) followUntilCancelled() {
	c := s.start("stubborn")
	ctx, cancel := context.WithCancel(s.ctx())
	r, err := s.engine.Logs(ctx, c.ID, true)
	s.must(err)
	defer r.Close()
	s.line(r, "ready")
	cancel()
	if _, err := r.Next(); !errors.Is(err, context.Canceled) {
		s.Errorf("got %v", err)
	}
	s.destroyNow(c.ID)
}

func (s *suite) followUntilClosed() {
	c := s.start("stubborn")
	r := s.ready(c.ID)
	done := make(chan error, 1)
	go func() {
		_, err := r.Next()
		done <- err
	}()
	s.must(r.Close())
	if err := <-done; err == nil {
		s.Error("reading from a closed reader succeeds")
	}
	s.destroyNow(c.ID)
}

// mounts reads and writes what of the cell a container has mounted.
func (s *suite) mounts() {
	dir, file := s.TempDir(), filepath.Join(s.TempDir(), "file")
	s.must(os.WriteFile(filepath.Join(dir, "there"), []byte("from the cell\n"), 0o644))
	s.must(os.WriteFile(file, []byte("one file\n"), 0o644))
	s.must(os.Chmod(dir, 0o777))
	spec := s.spec("write", "/deep/writable/new", "from the container")
	spec.Mounts = []engine.Mount{
		{Source: dir, Target: "/deep/writable", Writable: true}, {Source: dir, Target: "/readable"}, {Source: file, Target: "/etc/one.conf"},
	}
	spec.Program.Setup = &lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{
		s.run("cat", "/readable/there"), s.run("cat", "/etc/one.conf"), s.run("cat", "/deep/writable/there"),
		{Try: &lrp.TryAction{Action: s.run("write", "/readable/refused", "x")}},
	}}}
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	if result := s.result(c.ID); result.Failed {
		s.Errorf("result %+v", result)
	}
	all := s.all(c.ID)
	for text, want := range map[string]int{"APP 1 from the cell": 2, "APP 1 one file": 1} {
		if got := count(all, text); got != want {
			s.Errorf("%q is %d times in the log, want %d: %q", text, got, want, all)
		}
	}
	written, err := os.ReadFile(filepath.Join(dir, "new"))
	if string(written) != "from the container" || err != nil {
		s.Errorf("written %q, %v", written, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "refused")); !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("a mount that is not writable was written to: %v", err)
	}
	s.destroyNow(c.ID)
	if _, err := os.Stat(filepath.Join(dir, "there")); err != nil {
		s.Errorf("the source after the end of the container: %v", err)
	}
	bad := s.spec("exit", "0")
	bad.Mounts = []engine.Mount{{Source: dir, Target: "/proc"}}
	_, err = s.engine.Create(s.ctx(), bad)
	if err == nil || !strings.Contains(err.Error(), `mounts[0]: target "/proc"`) {
		s.Errorf("a mount over /proc: %v", err)
	}
	missing := s.spec("exit", "0")
	missing.Mounts = []engine.Mount{{Source: filepath.Join(dir, "missing"), Target: "/m"}}
	_, err = s.engine.Create(s.ctx(), missing)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "missing")) {
		s.Errorf("a mount of what is not there: %v", err)
	}
	s.absent(missing.ID)
}

func count(lines []string, want string) (n int) {
	for _, l := range lines {
		if l == want {
			n++
		}
	}
	return n
}

// badEgress: a rule that makes no sense is refused before anything is made, and the error names it.
func (s *suite) badEgress() {
	spec := s.spec("run")
	spec.Egress = []lrp.EgressRule{{Protocol: "tcp", Destinations: []string{"10.0.0.0/33"}, Ports: []uint32{80}}}
	if _, err := s.engine.Create(s.ctx(), spec); err == nil || !strings.Contains(err.Error(), `"10.0.0.0/33"`) {
		s.Errorf("a bad rule: %v", err)
	}
	s.absent(spec.ID)
}
