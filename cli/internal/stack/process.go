package stack

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/internal/process"
)

// What the environment of a process of a stack says about it.
const (
	envStack  = "MUSTER_STACK"       // the state directory
	envPart   = "MUSTER_STACK_PART"  // which part it is
	envExe    = "MUSTER_STACK_EXE"   // its program; children that run another one inherit the rest
	envDigest = "MUSTER_STACK_STATE" // of program and configuration
)

const (
	// stopTime is how long a process may take to end after SIGTERM.
	stopTime = 10 * time.Second
	// killTime is how long it may take to go after SIGKILL.
	killTime = 5 * time.Second
)

// livePart is a running part of a stack.
type livePart struct {
	PID    int
	Part   string
	Digest string
	Since  time.Time
}

// find returns the running processes of a stack, by part. It believes only what the kernel says:
// the environment with which a process was started, and the program it runs now.
func find(stateDir string) (map[string][]livePart, error) {
	all, err := process.All()
	if err != nil {
		return nil, err
	}
	byPID := map[int]livePart{}
	for pid := range all {
		if p, ok := identify(pid, stateDir); ok {
			byPID[pid] = p
		}
	}
	found := map[string][]livePart{}
	for pid, p := range byPID {
		if _, ok := byPID[parent(pid)]; ok {
			continue // a child on its way from fork to exec still looks like its parent
		}
		found[p.Part] = append(found[p.Part], p)
	}
	return found, nil
}

// identify tells whether a process belongs to a stack.
func identify(pid int, stateDir string) (livePart, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return livePart{}, false // gone, or somebody else's
	}
	env := map[string]string{}
	for _, e := range bytes.Split(text, []byte{0}) {
		name, value, _ := strings.Cut(string(e), "=")
		env[name] = value
	}
	if env[envStack] != stateDir || env[envPart] == "" {
		return livePart{}, false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || strings.TrimSuffix(exe, " (deleted)") != env[envExe] {
		return livePart{}, false
	}
	since, err := startedAt(pid)
	if err != nil {
		return livePart{}, false
	}
	return livePart{PID: pid, Part: env[envPart], Digest: env[envDigest], Since: since}, true
}

// statFields returns the fields of /proc/PID/stat from the third on: the second may hold spaces.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

func parent(pid int) int {
	f := statFields(pid)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1]) // the kernel writes numbers
	return n
}

// startedAt returns when a process was started.
func startedAt(pid int) (time.Time, error) {
	f := statFields(pid)
	if len(f) < 20 {
		return time.Time{}, fmt.Errorf("process %d is gone", pid)
	}
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}, err
	}
	const ticksPerSecond = 100 // USER_HZ, the same on every Linux that Go runs on
	age := time.Duration(now.Nano()) - time.Duration(ticks)*time.Second/ticksPerSecond
	return time.Now().Add(-age), nil
}

// stop ends a process of a stack and waits until it is gone.
func stop(ctx context.Context, p livePart, stateDir string) error {
	meant := func() bool {
		now, ok := identify(p.PID, stateDir)
		return ok && now.Part == p.Part
	}
	err := process.End(ctx, p.PID, meant, process.Step{Signal: unix.SIGTERM, Wait: stopTime}, process.Step{Signal: unix.SIGKILL, Wait: killTime})
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.Part, err)
	}
	return nil
}

// daemonSpec says how to run a part.
type daemonSpec struct {
	part   string
	exe    string
	args   []string
	config []byte // content of the file that args name
	log    string
	ports  []string // names of the ports it listens on
	ready  func(context.Context) error
}

// digest changes when the program, its arguments or its configuration do.
func (d *daemonSpec) digest() (string, error) {
	id, err := buildID(d.exe)
	if err != nil {
		return "", err
	}
	return digestOf(append([]string{id, string(d.config)}, d.args...)...), nil
}

// buildID returns what the linker wrote into a Go program to tell its versions apart.
func buildID(exe string) (string, error) {
	f, err := elf.Open(exe)
	if err != nil {
		return "", err
	}
	defer f.Close()
	section := f.Section(".note.go.buildid")
	if section == nil {
		return "", fmt.Errorf("%s is not a Go program", exe)
	}
	id, err := section.Data()
	return string(id), err
}

// version returns the version of the program that a process runs, even when its file was replaced.
func version(exe string) string {
	info, err := buildinfo.ReadFile(exe)
	if err != nil {
		return ""
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+"
		}
	}
	if revision == "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return revision + dirty
}

// start starts a part, detached from us, and waits until it is ready.
func (s *Stack) start(ctx context.Context, d daemonSpec) (int, error) {
	digest, err := d.digest()
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", d.exe, err)
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(d.exe, d.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(inherited(os.Environ()),
		envStack+"="+s.StateDir, envPart+"="+d.part, envExe+"="+d.exe, envDigest+"="+digest)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", d.exe, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ready := make(chan error, 1)
	rctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	go func() { ready <- d.ready(rctx) }()
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("exit status 0")
		}
		return 0, &logged{fmt.Errorf("it ended at once: %w", err), d.log}
	case err := <-ready:
		if err != nil {
			return 0, &logged{fmt.Errorf("it runs (process %d) but is not ready after %v: %w", cmd.Process.Pid, readyTime, err), d.log}
		}
		return cmd.Process.Pid, nil
	}
}

// inherited keeps what daemons need of an environment: how to find programs and reach registries.
func inherited(env []string) []string {
	keep := []string{"PATH", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"}
	var out []string
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); slices.Contains(keep, name) {
			out = append(out, e)
		}
	}
	return out
}

// binary returns the path of a program that is built beside ours.
func binary(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("program %s is missing: build it with make build, or name the directory with --bin-dir: %w", path, err)
	}
	return path, nil
}
