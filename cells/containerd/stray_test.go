package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
)

// slowRunc is a runc that does not get done with making the victim: as long as the test's directory is
// there, a hook holds it at the point where it has its state directory, its child and their cgroup. Nor
// does it delete the victim, as when containerd gives that up. The verbs are the directory, how the real
// runc is run to make the victim, and the real runc.
const slowRunc = `#!/bin/sh
case "$*" in
*" create "*victim)
	sed -i 's|^{|{"hooks":{"createRuntime":[{"path":"/bin/sh","args":["sh","-c","echo >%[1]s/making; while [ -e %[1]s ]; do sleep 0.01; done"]}]},|' config.json
	%[2]s "$@"
	exit ;;
*" delete "*victim)
	exit 1 ;;
esac
exec %[3]s "$@"
`

// A caller dies while runc makes its container, and containerd forgets the task. What shim and runc
// have made is found nevertheless, whether runc ends with its shim, as it should, or works on.
func TestDestroyEndsWhatACutOffStartLeft(t *testing.T) { // not parallel: it changes the PATH
	runc, err := exec.LookPath("runc")
	check(t, err)
	for name, run := range map[string]string{"runc ends with its shim": "exec " + runc, "runc works on": runc} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, "runc"), fmt.Appendf(nil, slowRunc, dir, run, runc), 0o755))
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			s := newStack(t)
			url := s.archive(t, "app.tar", appConfig)
			runOnce(t, s.engine(t), probeSpec("before", url, "exit", "0"))
			before := s.traces(t)
			s.cutOff(t, url, filepath.Join(dir, "making"))
			check(t, s.engine(t).Destroy(t.Context(), "victim"))
			if left := s.traces(t); strings.Join(left, "\n") != strings.Join(before, "\n") {
				t.Errorf("left behind: %q, before: %q", left, before)
			}
		})
	}
}

// cutOff starts to make the victim and, when a file is there, goes away as a caller does that dies. It
// returns when containerd has forgotten the task.
func (s *stack) cutOff(t *testing.T, url, file string) {
	t.Helper()
	e, err := New(s.cfg)
	check(t, err)
	made := make(chan error, 1)
	go func() {
		_, err := e.Create(t.Context(), probeSpec("victim", url, "run"))
		made <- err
	}()
	poll(t, func() bool { _, err := os.Stat(file); return err == nil })
	check(t, e.Close())
	if err := <-made; err == nil {
		t.Fatal("the victim was made")
	}
	next := s.engine(t)
	poll(t, func() bool {
		answer, err := next.client.TaskService().List(next.scope(t.Context()), &tasks.ListTasksRequest{})
		return err == nil && len(answer.Tasks) == 0
	})
}
