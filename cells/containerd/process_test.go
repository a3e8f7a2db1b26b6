package containerd

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/cells/engine"
	"muster/cells/engine/enginetest/probe"
	appimage "muster/integration/apps/image"
)

// awaitListening returns when somebody listens.
func awaitListening(t *testing.T, address string) {
	t.Helper()
	poll(t, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// describe runs the probe and returns how it saw itself.
func describe(t *testing.T, e *Engine, spec engine.Spec) probe.Description {
	t.Helper()
	_, err := e.Create(t.Context(), spec)
	check(t, err)
	check(t, e.Start(t.Context(), spec.ID))
	logs, err := e.Logs(t.Context(), spec.ID, true)
	check(t, err)
	defer logs.Close()
	line, err := logs.Next()
	check(t, err)
	var d probe.Description
	check(t, json.Unmarshal(line.Text, &d))
	check(t, e.Destroy(t.Context(), spec.ID))
	return d
}

func TestProcessAndIsolation(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig,
		appimage.File{Path: "/evil", Link: "/etc/../../../../.."}, appimage.File{Path: "/srv/here", Dir: true, Mode: 0o755})
	nofile := uint64(1234)
	spec := probeSpec("process-1", url, "describe")
	spec.Program.Env = []string{"BOTH=spec", "TWICE=1", "TWICE=2"}
	run := spec.Program.Action.Run
	run.Dir, run.Nofile = "/made/for/app", &nofile
	app := describe(t, e, spec)
	slices.Sort(app.Env)
	want := []string{"BOTH=spec", "FROM=image", "HOME=/home/app", "PATH=/usr/bin:/bin", "TWICE=2", "USER=app"}
	if diff := cmp.Diff(want, app.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if app.UID != 1000 || app.GID != 1000 || !slices.Contains(app.Groups, 2000) {
		t.Errorf("runs as %d:%d with %d, want 1000:1000 with 2000", app.UID, app.GID, app.Groups)
	}
	if app.Dir != "/made/for/app" || app.DirUID != 1000 {
		t.Errorf("in %s of user %d, want /made/for/app of 1000", app.Dir, app.DirUID)
	}
	if app.Nofile != 1234 || app.Hostname != "process-1" || app.Seccomp != "2" {
		t.Errorf("nofile %d, host name %s, seccomp %s", app.Nofile, app.Hostname, app.Seccomp)
	}
	const none, some = "0000000000000000", "00000000a80425fb" // the second as Docker's containers have it
	if app.CapEff != none || app.CapAmb != none || app.CapInh != none || app.CapBnd != some {
		t.Errorf("capabilities: effective %s ambient %s inheritable %s bounding %s", app.CapEff, app.CapAmb, app.CapInh, app.CapBnd)
	}

	spec.ID, run.User, run.Dir, run.Nofile = "process-2", "root", "", nil
	root := describe(t, e, spec)
	if root.UID != 0 || root.Dir != "/root" || root.CapEff != some || root.CapAmb != none || root.Nofile != 16384 {
		t.Errorf("root: %+v", root)
	}
	spec.ID, run.User, run.Dir = "process-3", "4242:77", "/evil/new"
	if d := describe(t, e, spec); d.UID != 4242 || d.GID != 77 || d.Dir != "/new" {
		t.Errorf("numeric user in a directory behind a link: %+v", d)
	}
	if _, err := os.Stat("/new"); err == nil {
		t.Error("a link in the image led to a directory on the cell")
	}
	spec.ID, spec.Privileged, run.User, run.Dir = "process-4", true, "root", "/srv/here"
	if d := describe(t, e, spec); d.Seccomp != "0" || d.CapEff <= some || d.Dir != "/srv/here" {
		t.Errorf("privileged: %+v", d)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig)
	spec := probeSpec("limits", url, "run")
	spec.Limits = engine.Limits{MemoryMB: 48, MaxPids: 77, CPUWeight: 50}
	_, err := e.Create(t.Context(), spec)
	check(t, err)
	check(t, e.Start(t.Context(), spec.ID))
	want := map[string]string{
		"memory/memory.limit_in_bytes": "50331648", "memory/memory.memsw.limit_in_bytes": "50331648", "pids/pids.max": "93", "cpu/cpu.shares": "512",
	}
	if unified() {
		want = map[string]string{"memory.max": "50331648", "memory.swap.max": "0", "pids.max": "93", "cpu.weight": "20"}
	}
	for name, value := range want {
		controller, file := filepath.Split(name)
		text, err := os.ReadFile(filepath.Join(cgroupRoot, controller, e.cgroup(spec.ID), file))
		if err != nil || strings.TrimSpace(string(text)) != value {
			t.Errorf("%s is %q, %v; want %s", name, text, err, value)
		}
	}
	check(t, e.Destroy(t.Context(), spec.ID))

	spec = probeSpec("greedy", url, "eat", "100")
	spec.Limits.MemoryMB = 32
	_, err = e.Create(t.Context(), spec)
	check(t, err)
	check(t, e.Start(t.Context(), spec.ID))
	exit, err := e.Wait(t.Context(), spec.ID)
	check(t, err)
	if exit.Code != 137 || !exit.OOMKilled {
		t.Errorf("exit %+v, want 137 for want of memory", exit)
	}
	all, err := s.engine(t).List(t.Context())
	check(t, err)
	if len(all) != 1 || !all[0].Exit.OOMKilled {
		t.Errorf("the next engine lists %+v", all)
	}
	check(t, e.Destroy(t.Context(), spec.ID))
}

func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.cfg.LogLimitBytes = 1 << 20
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig)
	spec := probeSpec("flood", url, "flood", "4")
	_, err := e.Create(t.Context(), spec)
	check(t, err)
	follower, err := e.Logs(t.Context(), spec.ID, true)
	check(t, err)
	defer follower.Close()
	check(t, e.Start(t.Context(), spec.ID))
	for line := (engine.Line{}); string(line.Text) != "ready"; {
		line, err = follower.Next()
		check(t, err)
	}
	check(t, e.trimLogs())
	path := e.paths.file(spec.ID, logFile)
	if used := blocksOf(t, path); used > s.cfg.LogLimitBytes {
		t.Errorf("%d bytes on disk after the limit was enforced, want at most %d", used, s.cfg.LogLimitBytes)
	}
	late, err := e.Logs(t.Context(), spec.ID, true)
	check(t, err)
	defer late.Close()
	first, count := "", 0
	for ; ; count++ {
		line, err := late.Next()
		check(t, err)
		if count == 0 {
			first = string(line.Text)
		}
		if string(line.Text) == "ready" {
			break
		}
	}
	if !strings.HasPrefix(first, "line ") || count < 1000 || strings.HasPrefix(first, "line 00000000") {
		t.Errorf("a late reader gets %d lines from %q on, want the newer ones, whole", count, first)
	}
	check(t, e.Kill(t.Context(), spec.ID, 15))
	expect(t, follower, "stopping") // it has not lost its place
	check(t, e.Destroy(t.Context(), spec.ID))
}
