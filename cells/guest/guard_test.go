package guest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"muster/cells/guest/record"
	"muster/cells/step"
)

// panicInGuard is what a goroutine of the init does that panics.
func panicInGuard(cause string) {
	h := &host{events: newEvents()}
	done := make(chan struct{})
	go func() {
		defer h.guard()
		panic(cause)
	}()
	<-done
}

func TestPanic(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_PANIC=a bug")
	var out strings.Builder
	cmd.Stderr = &out
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != Broken {
		t.Errorf("status %d, want %d", code, Broken)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	e, err := record.ParseEvent([]byte(lines[len(lines)-1]))
	check(t, err)
	if e.Name != step.Ended || e.Result.Reason != "init of the container: panic: a bug" || e.Result.Code != Broken {
		t.Errorf("%+v", e)
	}
}
