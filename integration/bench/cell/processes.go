package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/internal/process"
)

// kind says what a process is.
type kind int

const (
	app kind = iota
	guestInit
	shim
	repDaemon
	containerDaemon
)

// watched is a process of the cell.
type watched struct {
	kind      kind
	container string // in which it runs; empty: in none
	began     string // when, as the kernel counts
	cpu       time.Duration
}

// processes returns all processes of the cell by number.
func (b *bench) processes() (map[int]watched, error) {
	all, err := process.All()
	if err != nil {
		return nil, err
	}
	found := map[int]watched{}
	for pid, args := range all {
		p := watched{container: b.containerOf(pid)}
		switch {
		case pid == b.rep.PID():
			p.kind = repDaemon
		case pid == b.daemon.PID:
			p.kind = containerDaemon
		case path.Base(args[0]) == "containerd-shim-runc-v2" && slices.Contains(args, cellID) && slices.Contains(args, b.daemon.Address):
			p.kind = shim
		case p.container != "" && args[0] == "/.muster/init":
			p.kind = guestInit
		case p.container == "":
			continue
		}
		if p.began, p.cpu, err = times(pid); err == nil { // else it has just ended
			found[pid] = p
		}
	}
	return found, nil
}

// containerOf returns the container of the cell in which a process runs, by its cgroup.
func (b *bench) containerOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, b.cfg.CgroupParent+"/"); ok {
			name, _, _ := strings.Cut(strings.TrimSpace(rest), "/")
			return name
		}
	}
	return ""
}

// times returns when a process began, and the processor time of its threads. The kernel's statistics of the
// scheduler are to the nanosecond, and leave out threads that have ended.
func times(pid int) (began string, cpu time.Duration, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name, in parentheses, may contain anything
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", 0, fmt.Errorf("process %d: %q", pid, text)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return "", 0, err
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return "", 0, fmt.Errorf("%s: %w", thread, err)
		}
		cpu += time.Duration(ns)
	}
	return fields[19], cpu, nil
}

// restarts returns how many containers have another process than before.
func restarts(before, after map[int]watched) int {
	changed := map[string]bool{}
	compare := func(a, b map[int]watched) {
		for pid, p := range a {
			if p.container != "" && (b[pid].container != p.container || b[pid].began != p.began) {
				changed[p.container] = true
			}
		}
	}
	compare(before, after)
	compare(after, before)
	return len(changed)
}
