package world

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestUpAndDown brings a stack with the sample application up, repeats that, and takes it down:
// nothing may be left, not even after everything was killed first.
func TestUpAndDown(t *testing.T) {
	s := newStack(t)
	before := s.lookAtHost(t)
	out := s.must(t, s.upArgs()...)
	url := fmt.Sprintf("http://hello.localhost:%d/", httpPort)
	if strings.Count(out, url) < 2 || strings.Count(out, "muster ") < 4 {
		t.Errorf("up does not end with the URL and what to try next:\n%s", out)
	}
	answers(t, "nobody.localhost", http.StatusNotFound)
	answers(t, "hello.localhost", http.StatusOK)
	pids := map[string]int{}
	parts := []string{"postgres", "nats", "bbs", "auctioneer", "cell-1", "cell-2", "cell-3", "route-emitter", "gorouter"}
	for _, part := range parts {
		pids[part] = s.pidOf(t, part)
	}
	instances := s.mustInstances(t, "hello")
	s.must(t, s.upArgs()...)
	for _, part := range parts {
		if pid := s.pidOf(t, part); pid != pids[part] {
			t.Errorf("a second up restarted %s", part)
		}
	}
	for index, i := range s.mustInstances(t, "hello") {
		if i.InstanceGUID != instances[index].InstanceGUID {
			t.Errorf("a second up replaced instance %d", index)
		}
	}
	if during := s.lookAtHost(t).more(before); len(during) < 20 {
		t.Errorf("the look at the host sees too little: %q", during)
	}
	s.must(t, "down")
	if left := s.lookAtHost(t).more(before); len(left) > 0 {
		t.Errorf("down left behind: %q", left)
	}
	s.must(t, "down") // twice is as good as once

	s.must(t, s.upArgs()...)
	for _, part := range append(parts, "containerd") {
		pid := 0
		if part == "containerd" {
			pid = pidIn(t, filepath.Join(s.dir, "containerd"))
		} else {
			pid = s.pidOf(t, part)
		}
		if pid > 0 {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.must(t, "down")
	if left := s.lookAtHost(t).more(before); len(left) > 0 {
		t.Errorf("down after everything was killed left behind: %q", left)
	}
}

// pidIn returns the process whose configuration is below a directory: the private containerd. It
// returns 0 when there is none, because the machine has one of its own.
func pidIn(t *testing.T, dir string) int {
	t.Helper()
	for _, p := range glob(t, "/proc/[0-9]*") {
		text, err := os.ReadFile(filepath.Join(p, "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(string(text), "\x00")
		if filepath.Base(args[0]) == "containerd" && strings.Contains(string(text), dir) {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(p), "%d", &pid); err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	return 0
}

// TestUpKilledAtEveryStep kills "muster up" as soon as it has reported a step, for each step in
// turn; the next one must go on from there, and the last one must succeed.
func TestUpKilledAtEveryStep(t *testing.T) {
	s := newStack(t)
	before := s.lookAtHost(t)
	for kill := 1; ; kill++ {
		if s.upUntil(t, kill) {
			break
		}
	}
	answers(t, "hello.localhost", http.StatusOK)
	s.must(t, "down")
	if left := s.lookAtHost(t).more(before); len(left) > 0 {
		t.Errorf("down left behind: %q", left)
	}

	// And down after an up that was killed half way, with nothing in between.
	s.upUntil(t, 5)
	s.must(t, "down")
	if left := s.lookAtHost(t).more(before); len(left) > 0 {
		t.Errorf("down of a half-made stack left behind: %q", left)
	}
}

// upUntil runs "muster up" and kills it once it has reported a number of steps. It returns true when
// it ended before that, by itself and well.
func (s *stack) upUntil(t *testing.T, steps int) bool {
	t.Helper()
	up := s.command(s.upArgs("--json")...)
	var problem bytes.Buffer
	up.Stderr = &problem
	pipe, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(pipe)
	for n := 0; said.Scan(); {
		if n++; n < steps {
			continue
		}
		if err := up.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, pipe)
		_ = up.Wait() // it was killed: its status says only that
		return false
	}
	if err := up.Wait(); err != nil {
		t.Fatalf("up after %d steps were killed: %v: %s", steps-1, err, problem.String())
	}
	return true
}

// TestUpExplains checks what up says when it cannot.
func TestUpExplains(t *testing.T) {
	s := newStack(t)
	before := s.lookAtHost(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", httpPort))
	if err != nil {
		t.Fatal(err)
	}
	s.refuses(t, []string{fmt.Sprint(httpPort), "is taken by", "--http-port"}, s.upArgs()...)
	l.Close()
	s.refuses(t, []string{"program"}, s.upArgs("--bin-dir", t.TempDir())...)
	s.must(t, "down")
	if left := s.lookAtHost(t).more(before); len(left) > 0 {
		t.Errorf("failed ups and a down left behind: %q", left)
	}
	s.refuses(t, []string{"muster up"}, "lrps")

	nobody := s.command(s.upArgs()...)
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := os.Chmod(s.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := nobody.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "root") {
		t.Errorf("up as nobody: %v: %s", err, out)
	}
}
