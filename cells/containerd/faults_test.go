package containerd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	appimage "muster/integration/apps/image"
	"muster/internal/privatecontainerd"
)

func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	check(t, unix.Stat(path, &stat))
	return stat.Blocks * 512
}

// killDaemon ends containerd as a crash does.
func (s *stack) killDaemon(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(s.daemon.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Error(err)
	}
}

// startReady starts a container and returns its log behind the line "ready".
func startReady(t *testing.T, e *Engine, spec engine.Spec) engine.Log {
	t.Helper()
	_, err := e.Create(t.Context(), spec)
	check(t, err)
	check(t, e.Start(t.Context(), spec.ID))
	logs, err := e.Logs(t.Context(), spec.ID, true)
	check(t, err)
	t.Cleanup(func() { logs.Close() })
	expect(t, logs, "ready")
	return logs
}

// expect reads the next line of a log.
func expect(t *testing.T, log engine.Log, want string) {
	t.Helper()
	if line, err := log.Next(); err != nil || string(line.Text) != want {
		t.Fatalf("read %q, %v; want %q", line.Text, err, want)
	}
}

// containerd dies at the end of each step of a Create. Whatever Create then says: after containerd is
// back, a later life of the engine either has a container that works, or can destroy what is listed.
func TestContainerdDiesInCreate(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"image", "record", "snapshot", "network", "task", "create"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			url := s.archive(t, "app.tar", appConfig)
			runOnce(t, s.engine(t), probeSpec("before", url, "exit", "0"))
			before := s.traces(t)
			var once sync.Once
			s.cfg.Step = func(_ engine.ID, step string, _ time.Duration) {
				if step == at {
					once.Do(func() { s.killDaemon(t) })
				}
			}
			_, err := s.engine(t).Create(t.Context(), probeSpec("victim", url, "run"))
			if err != nil && !errors.Is(err, engine.ErrAway) {
				t.Errorf("the app is blamed: %v", err)
			}
			s.cfg.Step = nil
			s.open(t)
			s.settle(t, url, err == nil)
			if left := s.traces(t); strings.Join(left, "\n") != strings.Join(before, "\n") {
				t.Errorf("left behind: %q, before: %q", left, before)
			}
		})
	}
}

// containerd dies while shim and runc make the process.
func TestContainerdDiesInTheMidstOfATask(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	url := s.archive(t, "app.tar", appConfig)
	e := s.engine(t)
	runOnce(t, e, probeSpec("before", url, "exit", "0"))
	before := s.traces(t)
	made := make(chan error, 1)
	go func() {
		_, err := e.Create(t.Context(), probeSpec("victim", url, "run"))
		made <- err
	}()
	bundle := filepath.Join(s.dir, "c/state/io.containerd.runtime.v2.task", s.cfg.Namespace, "victim", "address")
	poll(t, func() bool { _, err := os.Stat(bundle); return err == nil })
	s.killDaemon(t)
	err := <-made
	s.open(t)
	s.settle(t, url, err == nil)
	if left := s.traces(t); strings.Join(left, "\n") != strings.Join(before, "\n") {
		t.Errorf("left behind: %q, before: %q", left, before)
	}
}

// settle uses or destroys what is left of the victim.
func (s *stack) settle(t *testing.T, url string, works bool) {
	t.Helper()
	e := s.engine(t)
	all, err := e.List(t.Context())
	check(t, err)
	if works {
		if len(all) != 1 || all[0].Status != engine.Created {
			t.Fatalf("Create succeeded, listed: %+v", all)
		}
		check(t, e.Start(t.Context(), "victim"))
		check(t, e.Kill(t.Context(), "victim", syscall.SIGKILL))
		_, err := e.Wait(t.Context(), "victim")
		check(t, err)
	}
	for _, c := range all {
		check(t, e.Destroy(t.Context(), c.ID))
	}
	runOnce(t, e, probeSpec("after", url, "exit", "0")) // the cell works, and what leases held is let go
}

// A running container, its Wait and its output live through a crash of containerd.
func TestContainersOutliveContainerd(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig)
	spec := probeSpec("survivor", url, "tick")
	r := startReady(t, e, spec)
	type result struct {
		exit engine.Exit
		err  error
	}
	waited := make(chan result, 1)
	go func() {
		exit, err := e.Wait(t.Context(), spec.ID)
		waited <- result{exit, err}
	}()
	s.killDaemon(t)
	if err := ping(t, e); err == nil {
		t.Error("a dead containerd answers")
	}
	s.open(t)
	poll(t, func() bool { return ping(t, e) == nil })
	all, err := e.List(t.Context())
	check(t, err)
	if len(all) != 1 || all[0].Status != engine.Running {
		t.Fatalf("listed: %+v", all)
	}
	select {
	case got := <-waited:
		t.Fatalf("the crash of containerd was taken for an exit: %+v", got)
	default:
	}
	expect(t, r, "tick 1")
	check(t, e.Kill(t.Context(), spec.ID, syscall.SIGTERM))
	if got := <-waited; got.err != nil || got.exit.Result == nil || got.exit.Result.Reason != "cancelled" {
		t.Errorf("waited: %+v", got)
	}
	check(t, e.Destroy(t.Context(), spec.ID))
}

// poll returns when done says so; what is looked at has no way to tell by itself.
func poll(t *testing.T, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// A shim that is killed takes its container along; that is an exit like by SIGKILL.
func TestLostShim(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig)
	spec := probeSpec("orphan", url, "run")
	startReady(t, e, spec)
	for _, pid := range s.shims(t) {
		check(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	exit, err := e.Wait(t.Context(), spec.ID)
	check(t, err)
	if exit.Code != 137 {
		t.Errorf("exit %+v, want 137", exit)
	}
	all, err := e.List(t.Context())
	check(t, err)
	if len(all) != 1 || all[0].Status != engine.Exited {
		t.Errorf("listed: %+v", all)
	}
	check(t, e.Destroy(t.Context(), spec.ID))
	if left := s.traces(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// shims returns the processes of the shims of the cell.
func (s *stack) shims(t *testing.T) []int {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(t, err)
	var pids []int
	for _, name := range found {
		text, _ := os.ReadFile(name)
		if strings.Contains(string(text), "containerd-shim") && strings.Contains(string(text), s.cfg.Namespace) {
			pid := 0
			for _, digit := range filepath.Base(filepath.Dir(name)) {
				pid = pid*10 + int(digit-'0')
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// What callers leave that died within Create or Destroy is listed and can be destroyed.
func TestHalfMadeContainersAreListed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig)
	runOnce(t, e, probeSpec("before", url, "exit", "0"))
	before := s.traces(t)
	ctx := e.scope(t.Context())

	check(t, e.paths.claim(engine.Spec{ID: "claimed"}))
	check(t, makeNetns(e.paths.netns("only-netns")))
	anySpec, err := typeurl.MarshalAny(&specs.Spec{})
	check(t, err)
	_, err = e.client.ContainerService().Create(ctx, containers.Container{
		ID: "only-record", Spec: anySpec, Runtime: containers.RuntimeInfo{Name: s.cfg.Runtime}, Labels: map[string]string{"a": "b"},
	})
	check(t, err)
	img, err := e.image(ctx, engine.Spec{RootFS: url})
	check(t, err)
	_, err = e.client.ContainerService().Create(ctx, containers.Container{
		ID: "snapshot", Spec: anySpec, Runtime: containers.RuntimeInfo{Name: s.cfg.Runtime}, Snapshotter: s.cfg.Snapshotter, SnapshotKey: "snapshot",
	})
	check(t, err)
	_, err = e.snapshot(ctx, engine.Spec{ID: "snapshot", RootFS: url}, img)
	check(t, err)
	networked := engine.Spec{ID: "networked", Ports: []engine.Port{{Container: 80, Host: port()}}}
	check(t, e.paths.claim(networked))
	check(t, e.paths.fill(networked, nil))
	_, err = e.connect(ctx, networked, make(chan struct{}))
	check(t, err)

	unmounted := engine.Spec{ID: "unmounted", Ports: []engine.Port{{Container: 80, Host: port()}}}
	check(t, e.paths.claim(unmounted))
	check(t, e.paths.fill(unmounted, nil))
	check(t, os.WriteFile(e.paths.netns("unmounted"), nil, 0o444))

	all, err := s.engine(t).List(t.Context())
	check(t, err)
	if len(all) != 6 {
		t.Errorf("listed: %+v", all)
	}
	for _, c := range all {
		if want := map[engine.ID][]engine.Port{"networked": networked.Ports, "unmounted": unmounted.Ports}[c.ID]; !slices.Equal(c.Ports, want) {
			t.Errorf("%s has the ports %v, want %v", c.ID, c.Ports, want)
		}
		if c.Status != engine.Partial {
			t.Errorf("%s is %s", c.ID, c.Status)
		}
		check(t, e.Destroy(t.Context(), c.ID))
		check(t, e.Destroy(t.Context(), c.ID))
	}
	if left := s.traces(t); strings.Join(left, "\n") != strings.Join(before, "\n") {
		t.Errorf("left behind: %q, before: %q", left, before)
	}
}

// The disk of containerd is full: nothing can be made, the error says so, and nothing is left.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "muster")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	daemon := filepath.Join(dir, "c")
	root := filepath.Join(daemon, "root")
	check(t, os.MkdirAll(root, 0o711))
	check(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=16m"))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) }) // Stop has done it unless the test failed early
	s := &stack{dir: dir}
	s.open(t)
	s.cfg = s.config()
	t.Cleanup(func() { s.remove(t) })
	e := s.engine(t)
	big := make([]byte, 24<<20)
	for i := range big {
		big[i] = byte(i * i >> 8)
	}
	url := s.archive(t, "big.tar", appConfig, appimage.File{Path: "/big", Mode: 0o644, Data: big})
	s.refused(t, e, probeSpec("big", url, "exit", "0"), engine.ErrNoSpace, url, "free some")

	small := s.archive(t, "small.tar", appConfig)
	if exit := runOnce(t, e, probeSpec("small", small, "exit", "2")); exit.Code != 2 {
		t.Errorf("after that a smaller image ends with %+v", exit)
	}
}

// ping asks whether containerd answers, and waits for a connection no longer than it should take.
func ping(t *testing.T, e *Engine) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return e.Ping(ctx)
}

// Stop of the private containerd ends what runs in it, even when the daemon was killed.
func TestStopEndsContainersOfADeadDaemon(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig)
	startReady(t, e, probeSpec("left", url, "stubborn"))
	s.killDaemon(t)
	check(t, privatecontainerd.Stop(t.Context(), filepath.Join(s.dir, "c")))
	if shims := s.shims(t); len(shims) > 0 {
		t.Errorf("shims left: %d", shims)
	}
	s.open(t)
	poll(t, func() bool { return ping(t, e) == nil })
	all, err := e.List(t.Context())
	check(t, err)
	if len(all) != 1 || all[0].Status != engine.Exited {
		t.Errorf("listed: %+v", all)
	}
	check(t, e.Destroy(t.Context(), "left"))
	if left := s.traces(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
