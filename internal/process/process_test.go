package process

import (
	"bufio"
	"context"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start runs a shell script that says a line once it is ready.
func start(t *testing.T, script string) (*exec.Cmd, <-chan error) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	if _, err := cmd.StdinPipe(); err != nil { // open as long as the process runs
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the script does not start")
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, done
}

func yes() bool { return true }

func TestEndTakesOneStepAfterTheOther(t *testing.T) {
	t.Parallel()
	cmd, done := start(t, `trap "" TERM; echo ready; while :; do sleep 1; done`)
	err := End(t.Context(), cmd.Process.Pid, yes, Step{unix.SIGTERM, 50 * time.Millisecond}, Step{unix.SIGKILL, 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	<-done
	if s := cmd.ProcessState.String(); s != "signal: killed" {
		t.Errorf("it ended with %s", s)
	}
	if err := End(t.Context(), cmd.Process.Pid, yes, Step{unix.SIGKILL, time.Second}); err != nil {
		t.Errorf("ending it again: %v", err)
	}
}

func TestEndSparesWhoIsNotMeant(t *testing.T) {
	t.Parallel()
	cmd, _ := start(t, "echo ready; exec sleep 60")
	if err := End(t.Context(), cmd.Process.Pid, func() bool { return false }, Step{unix.SIGKILL, time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("it was ended: %v", err)
	}
}

func TestEndGivesUp(t *testing.T) {
	t.Parallel()
	cmd, _ := start(t, `trap "" TERM; echo ready; while :; do sleep 1; done`)
	if err := End(t.Context(), cmd.Process.Pid, yes, Step{unix.SIGTERM, 20 * time.Millisecond}); err == nil {
		t.Error("a process that lives on counts as ended")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := End(ctx, cmd.Process.Pid, yes, Step{unix.SIGTERM, time.Hour}); err == nil {
		t.Error("it waits although nobody waits for it")
	}
}

func TestAllFindsByCommandLine(t *testing.T) {
	t.Parallel()
	cmd, _ := start(t, "echo ready; read what never comes")
	all, err := All()
	if err != nil || !slices.Equal(all[cmd.Process.Pid], cmd.Args) {
		t.Errorf("found %q, %v", all[cmd.Process.Pid], err)
	}
}
