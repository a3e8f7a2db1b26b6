package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's program be a daemon, too: one that says so and waits for its end.
func TestMain(m *testing.M) {
	if os.Getenv("STACK_TEST_DAEMON") == "" {
		os.Exit(m.Run())
	}
	// Not select {}: the runtime ends a program in which nothing can happen any more.
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	fmt.Println("ready")
	<-end
	os.Exit(1)
}

// run starts a daemon of a stack and waits until it is there.
func run(t *testing.T, stateDir, part string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append([]string{envStack + "=" + stateDir, envPart + "=" + part, envExe + "=" + exe, envDigest + "=d1", "STACK_TEST_DAEMON=1"}, env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by a signal
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestProcessesAreKnownByWhatTheKernelSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours := run(t, dir, "bbs")
	run(t, filepath.Join(dir, "other"), "bbs")    // of another stack
	run(t, dir, "rep", envExe+"=/bin/another")    // a child that runs another program
	run(t, dir+"x", "bbs", "X="+envStack+"="+dir) // only looks like it
	found, err := find(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || len(found["bbs"]) != 1 || found["bbs"][0].PID != ours.Process.Pid {
		t.Fatalf("found %v, want process %d alone", found, ours.Process.Pid)
	}
	p := found["bbs"][0]
	if p.Digest != "d1" || time.Since(p.Since) > time.Minute || time.Since(p.Since) < -time.Second {
		t.Errorf("digest %q, since %v", p.Digest, p.Since)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := run(t, dir, "bbs")
	p, ok := identify(cmd.Process.Pid, dir)
	if !ok {
		t.Fatal("not identified")
	}
	for range 2 { // the second time it is gone
		if err := stop(t.Context(), p, dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it was not ended by a signal")
	}
}

func TestStopLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := run(t, filepath.Join(dir, "other"), "bbs")
	// A number that went to somebody else in the meantime.
	if err := stop(t.Context(), livePart{PID: cmd.Process.Pid, Part: "bbs"}, dir); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process of another stack was ended: %v", err)
	}
	if _, ok := identify(cmd.Process.Pid, filepath.Join(dir, "other")); !ok {
		t.Error("a process of another stack was ended")
	}
}

func TestStartShowsWhyNot(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := fresh(t.TempDir())
	log := filepath.Join(s.StateDir, "x.log")
	_, err = s.start(t.Context(), daemonSpec{
		part: "x", exe: exe, args: []string{"-no-such-flag"}, log: log,
		ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	})
	var l *logged
	if !errors.As(err, &l) || !strings.Contains(err.Error(), "it ended at once: exit status 2") {
		t.Fatalf("error %v", err)
	}
	if lines := strings.Join(tail(l.log, 1000), "\n"); !strings.Contains(lines, "no-such-flag") {
		t.Errorf("the log shows %q", lines)
	}
}

func TestTakenPortNamesItsOwner(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	err = checkFree("http", port)
	want := fmt.Sprintf("port %d (http) is taken by process %d (", port, os.Getpid())
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "muster up --http-port N") {
		t.Errorf("error %v, want it to begin with %q and to say --http-port", err, want)
	}
	l.Close()
	if err := checkFree("http", port); err != nil {
		t.Errorf("a free port: %v", err)
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	s := fresh(t.TempDir())
	if err := s.checkPorts(); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
	if err := s.setPorts(20000, map[string]int{"http": 8090}); err != nil {
		t.Fatal(err)
	}
	if s.Ports["http"] != 8090 || s.Ports["router-status"] != 20001 || s.Ports["containers"] != 61000 {
		t.Errorf("ports %v", s.Ports)
	}
	for what, tc := range map[string]struct {
		ports map[string]int
		want  string
	}{
		"unknown":    {map[string]int{"htpp": 1}, `port "htpp" is unknown; known are auctioneer-debug,`},
		"twice":      {map[string]int{"bbs": 4222, "nats": 4222}, "port nats=4222 is also bbs"},
		"impossible": {map[string]int{"bbs": 70000}, "port bbs=70000: want 1 to 65535"},
		"containers": {map[string]int{"bbs": 61100}, "port bbs=61100 is one of those for containers"},
		"too high":   {map[string]int{"containers": 65000}, "port containers=65000"},
	} {
		if err := fresh(t.TempDir()).setPorts(0, tc.ports); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", what, err, tc.want)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	s := fresh(t.TempDir())
	unlock, err := lock(t.Context(), s, "up")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(t.Context(), s, "down"); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("muster up, process %d is at work", os.Getpid())) {
		t.Errorf("a second one: %v", err)
	}
	// A down removes the directory with the lock in it; the name then is somebody else's.
	if err := os.Remove(s.path("lock")); err != nil {
		t.Fatal(err)
	}
	again, err := lock(t.Context(), s, "up")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	again()
}

func TestDownTouchesOnlyStacks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("years"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ours(dir); err == nil || !strings.Contains(err.Error(), "holds thesis.txt") {
		t.Errorf("error %v, want a refusal", err)
	}
}

func TestProbeReturnsTheLastAnswer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	err := probe(ctx, func(context.Context) error {
		if asked++; asked == 3 {
			cancel()
			return fmt.Errorf("answer %d", asked)
		}
		return fmt.Errorf("answer %d", asked)
	})
	if err == nil || !strings.HasPrefix(err.Error(), "answer") || asked != 3 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if err := probe(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}
