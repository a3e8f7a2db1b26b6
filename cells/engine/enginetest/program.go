package enginetest

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/step"
)

// program runs setup, then an action with a sidecar, whose end ends it all.
func (s *suite) program() {
	spec := s.spec("stubborn")
	spec.Program.Graceful = 0 // the stubborn one is killed at once
	spec.Program.Setup = s.run("say", "setting up", "carefully")
	sidecar := s.run("exit", "6")
	sidecar.Run.LogSource = "SIDE"
	spec.Program.Sidecars = []*lrp.Action{sidecar}
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	s.told(c.ID, 0, step.Begun)
	result := s.result(c.ID)
	if diff := cmp.Diff(step.Result{Failed: true, Reason: "SIDE: Exited with status 6", Code: 6}, result); diff != "" {
		s.Error(diff)
	}
	s.untilLine(c.ID, "(exceeded 0s graceful shutdown interval)") // by SIGKILL, or SIGTERM if it was not that far
	all := s.all(c.ID)
	before := slices.Index(all, "APP 1 Exit status 0")
	after := slices.Index(all, "SIDE 1 Exit status 6")
	if before < 0 || after < before || !slices.Contains(all[:before], "APP 1 setting up") || !slices.Contains(all[:before], "APP 2 carefully") {
		s.Errorf("log %q", all)
	}
	s.destroyNow(c.ID)
}

// untilLine reads a log up to a line that contains a text.
func (s *suite) untilLine(id engine.ID, want string) {
	s.Helper()
	r := s.follow1(s.engine, id)
	for {
		line, err := r.Next()
		s.must(err)
		if strings.Contains(string(line.Text), want) {
			return
		}
	}
}

// archive writes a tar file with one file in it.
func (s *suite) archive(name, content string) string {
	s.Helper()
	path := filepath.Join(s.TempDir(), "archive.tar")
	file, err := os.Create(path)
	s.must(err)
	w := tar.NewWriter(file)
	s.must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}))
	_, err = io.WriteString(w, content)
	s.must(errors.Join(err, w.Close(), file.Close()))
	return path
}

// download fetches an archive in setup; the action sees its file. A second one fails.
func (s *suite) download() {
	spec := s.spec("cat", "/data/here/greeting")
	spec.Program.Setup = &lrp.Action{Download: &lrp.DownloadAction{Artifact: "greetings", From: "http://not.used", To: "/data/here", User: "root"}}
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	if wants := s.told(c.ID, 0, step.Wants); wants.N != 0 {
		s.Errorf("wanted %+v", wants)
	}
	s.answered(c.ID, false)
	answer := engine.Delivery{Archive: s.archive("greeting", "hello from afar\n"), Size: 2048}
	s.must(s.engine.Deliver(s.ctx(), c.ID, 0, answer))
	s.answered(c.ID, true)
	s.must(s.engine.Deliver(s.ctx(), c.ID, 0, engine.Delivery{Error: "too late"}))
	if result := s.result(c.ID); result.Failed {
		s.Errorf("result %+v", result)
	}
	r := s.follow1(s.engine, c.ID)
	for _, want := range []string{"Downloading greetings...", "Downloaded greetings (2K)", "hello from afar", "Exit status 0"} {
		s.line(r, want)
	}
	s.destroyNow(c.ID)

	refused := s.spec("exit", "0")
	refused.Program.Setup = spec.Program.Setup
	c = s.create(refused)
	s.must(s.engine.Start(s.ctx(), c.ID))
	s.told(c.ID, 0, step.Wants)
	s.must(s.engine.Deliver(s.ctx(), c.ID, 0, engine.Delivery{Error: "Downloading greetings failed"}))
	if result := s.result(c.ID); !result.Failed || result.Reason != "Downloading greetings failed" {
		s.Errorf("result %+v", result)
	}
	s.destroyNow(c.ID)
}

// answered asks another life of the caller whether the first transfer was answered.
func (s *suite) answered(id engine.ID, want bool) {
	s.Helper()
	if got, err := s.Open(s.T).Answered(s.ctx(), id, 0); err != nil || got != want {
		s.Errorf("answered: %v, %v; want %v", got, err, want)
	}
}

// upload brings a file out of a container; after a restart of the caller it is still wanted.
func (s *suite) upload() {
	spec := s.spec("run")
	spec.Program.Action = &lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{
		s.run("write", "/tmp/out", "a result"),
		{Upload: &lrp.UploadAction{Artifact: "result", From: "/tmp/out", To: "http://not.used", User: "root"}},
	}}}
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	s.told(c.ID, 0, step.Begun)
	s.told(c.ID, 1, step.Ready)
	wants := s.told(c.ID, 2, step.Wants)
	if wants.Path != "/tmp/out" || wants.Bytes != int64(len("a result")) {
		s.Errorf("wanted %+v", wants)
	}
	next := s.Open(s.T)
	file, err := next.Open(s.ctx(), c.ID, wants.Path)
	s.must(err)
	content, err := io.ReadAll(file)
	s.must(errors.Join(err, file.Close()))
	if string(content) != "a result" {
		s.Errorf("content %q", content)
	}
	if _, err := next.Open(s.ctx(), c.ID, "/no/such/file"); err == nil || errors.Is(err, engine.ErrNotFound) {
		s.Errorf("opened a file that is not there: %v", err)
	}
	s.must(next.Deliver(s.ctx(), c.ID, wants.N, engine.Delivery{Size: int64(len(content))}))
	if result := s.result(c.ID); result.Failed {
		s.Errorf("result %+v", result)
	}
	s.destroyNow(c.ID)
}

func (s *suite) resultFile() {
	spec := s.spec("write", "/tmp/result", "42")
	spec.Program.ResultFile = "/tmp/result"
	c := s.create(spec)
	s.must(s.engine.Start(s.ctx(), c.ID))
	if diff := cmp.Diff(step.Result{Output: "42"}, s.result(c.ID)); diff != "" {
		s.Error(diff)
	}
	s.destroyNow(c.ID)

	missing := s.spec("exit", "0")
	missing.Program.ResultFile = "/tmp/result"
	c = s.create(missing)
	s.must(s.engine.Start(s.ctx(), c.ID))
	if result := s.result(c.ID); !result.Failed || result.Reason != "failed to fetch result" {
		s.Errorf("result %+v", result)
	}
	s.destroyNow(c.ID)
}

// notes writes lines of the cell, before the program runs and while it does.
func (s *suite) notes() {
	c := s.create(s.spec("stubborn"))
	note := func(text string) {
		s.must(s.engine.Note(s.ctx(), c.ID, engine.Line{At: time.Now(), Source: "CELL 1", Stream: step.Stderr, Text: []byte(text)}))
	}
	note("about to start")
	s.must(s.engine.Start(s.ctx(), c.ID))
	r := s.follow1(s.engine, c.ID)
	if line := s.line(r, "about to start"); line.Source != "CELL 1" || line.Stream != step.Stderr {
		s.Errorf("line %+v", line)
	}
	s.line(r, "ready")
	note("it runs")
	s.line(r, "it runs")
	s.destroyNow(c.ID)
}

// events waits for an event that comes later, and gives up.
func (s *suite) events() {
	c := s.create(s.spec("stubborn"))
	first := make(chan error, 1)
	go func() {
		_, err := s.engine.Events(s.ctx(), c.ID, 0) // before it was started
		first <- err
	}()
	s.must(s.engine.Start(s.ctx(), c.ID))
	s.must(<-first)
	s.told(c.ID, 1, step.Ready)
	ctx, cancel := context.WithCancel(s.ctx())
	done := make(chan error, 1)
	go func() {
		_, err := s.engine.Events(ctx, c.ID, 2)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		s.Errorf("got %v", err)
	}
	s.destroyNow(c.ID)
}
