package privatecontainerd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Daemon {
	t.Helper()
	d, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func stopAfter(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if err := Stop(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestOpenTwiceIsOneDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stopAfter(t, dir)
	first, second := open(t, dir), open(t, dir)
	if first.PID != second.PID {
		t.Fatalf("two daemons in one directory: %d and %d", first.PID, second.PID)
	}
	if err := Stop(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	<-first.exited
	if !gone(first.PID) {
		t.Fatalf("process %d is still there", first.PID)
	}
	if err := Stop(t.Context(), dir); err != nil {
		t.Fatalf("stop again: %v", err)
	}
	if third := open(t, dir); third.PID == first.PID {
		t.Fatal("the stopped daemon was taken for a live one")
	}
}

func TestKilledDaemonIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stopAfter(t, dir)
	first := open(t, dir)
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.exited
	if second := open(t, dir); second.PID == first.PID {
		t.Fatal("a dead daemon was taken for a live one")
	}
}

func TestStrangersAreLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, configFile)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tail", "-f", name) // somebody looks at the configuration
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := Stop(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if gone(cmd.Process.Pid) {
		t.Fatal("a stranger was ended")
	}
}

func TestStopUnmounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	point := filepath.Join(dir, stateDir, "deep")
	if err := os.MkdirAll(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	if err := Stop(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(point); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("left after Stop: %v", err)
	}
}

func TestBadDirectoriesAreExplained(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{Dir: filepath.Join(t.TempDir(), strings.Repeat("long", 30))})
	if err == nil || !strings.Contains(err.Error(), "choose a shorter directory") {
		t.Fatalf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Fatalf("got %v", err)
	}
}
