package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PartStatus says how one part of a stack is.
type PartStatus struct {
	Part    string    `json:"part"`
	Up      bool      `json:"up"`
	PID     int       `json:"pid,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Address string    `json:"address,omitempty"`
	Version string    `json:"version,omitempty"`
	Note    string    `json:"note,omitempty"` // what is wrong
	Log     string    `json:"log,omitempty"`
}

// Status looks at every part.
func Status(ctx context.Context, stateDir string) ([]PartStatus, error) {
	dir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "stack.json")); err != nil {
		return nil, fmt.Errorf("no stack in %s: start one with muster up: %w", dir, err)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("the processes of %s belong to root: run muster status as root (sudo)", dir)
	}
	s, err := load(dir)
	if err != nil {
		return nil, err
	}
	running, err := find(dir)
	if err != nil {
		return nil, err
	}
	return s.status(ctx, running), nil
}

// status asks all parts at the same time: one that hangs must not make others look down.
func (s *Stack) status(ctx context.Context, running map[string][]livePart) []PartStatus {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	names := s.parts()
	list := make([]PartStatus, 2+len(names))
	var wg sync.WaitGroup
	wg.Go(func() { list[0], list[1] = s.postgresStatus(), s.containerdStatus(ctx) })
	for i, part := range names {
		wg.Go(func() { list[2+i] = s.partStatus(ctx, part, running[part]) })
	}
	wg.Wait()
	return list
}

func (s *Stack) partStatus(ctx context.Context, part string, running []livePart) PartStatus {
	st := PartStatus{Part: part, Address: s.where(part), Log: s.log(part)}
	switch len(running) {
	case 0:
		st.Note = "not running; log: " + st.Log
		return st
	case 1:
	default:
		st.Note = fmt.Sprintf("runs %d times", len(running))
		return st
	}
	p := running[0]
	st.PID, st.Since = p.PID, p.Since
	// First, because the time for it runs; reading a large program takes some, too.
	if err := s.check(ctx, part); err != nil {
		st.Note = "does not answer: " + err.Error()
	} else {
		st.Up = true
	}
	st.Version = version(fmt.Sprintf("/proc/%d/exe", p.PID))
	return st
}

func (s *Stack) postgresStatus() PartStatus {
	st := PartStatus{Part: "postgres", Address: s.path("postgres"), Log: s.path("postgres", "postgres.log")}
	data := s.path("postgres", "data")
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err == nil {
		lines := strings.Split(string(text), "\n")
		pid, err := strconv.Atoi(lines[0])
		cwd, cwdErr := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err == nil && cwdErr == nil && cwd == data {
			st.PID = pid
			st.Since, _ = startedAt(pid) // zero when it ended just now
			st.Up = len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
		}
	}
	if v, err := os.ReadFile(filepath.Join(data, "PG_VERSION")); err == nil {
		st.Version = strings.TrimSpace(string(v))
	}
	if !st.Up {
		st.Note = "not running; log: " + st.Log
	}
	return st
}

func (s *Stack) containerdStatus(ctx context.Context) PartStatus {
	st := PartStatus{Part: "containerd", Address: s.Containerd}
	st.Up = s.Containerd != "" && listens(ctx, s.Containerd)
	switch {
	case s.Containerd == systemContainerd:
		st.Version = "the machine's"
	case s.Containerd != "":
		st.Log = s.path("containerd", "containerd.log")
	}
	if !st.Up {
		st.Note = "does not answer"
	}
	return st
}
