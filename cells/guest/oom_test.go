package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/step"
)

// memoryGroup makes a cgroup with a limit for memory. It returns its directory and where it is seen in a box.
func memoryGroup(t *testing.T, bytes int) (dir, seen string) {
	t.Helper()
	dir, seen, file := "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, seen, file = "/sys/fs/cgroup", "/sys/fs/cgroup", "memory.max"
		check(t, os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0))
	}
	dir = filepath.Join(dir, fmt.Sprintf("muster-guest-test-%d", os.Getpid()))
	check(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		if !poll(func() bool { return os.Remove(dir) == nil }) {
			t.Errorf("%s is left", dir)
		}
	})
	check(t, os.WriteFile(filepath.Join(dir, file), []byte(fmt.Sprint(bytes)), 0))
	return dir, seen
}

// Want of memory is said of the process that it ended, and of no later one; a plain SIGKILL is none.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	dir, seen := memoryGroup(t, 48<<20)
	try := func(script string) *lrp.Action { return &lrp.Action{Try: &lrp.TryAction{Action: sh(script)}} }
	b := newBox(t, plan(serial(try("kill -KILL $$"), try("tail /dev/zero"), try("kill -KILL $$"), try("tail /dev/zero; exit 3"), sh("exec tail /dev/zero"))))
	b.before = []string{"echo 0 >" + dir + "/cgroup.procs", fmt.Sprintf("mount --bind %s %s", dir, seen)}
	want := step.Result{Failed: true, Code: 137, OutOfMemory: true, Reason: "APP: Exited with status 137 (out of memory)"}
	if diff := cmp.Diff(want, b.start().result()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var got []string
	for _, line := range b.lines() {
		if strings.HasPrefix(line, "Exit") {
			got = append(got, line)
		}
	}
	lines := []string{"Exit status 137", "Exit status 137 (out of memory)", "Exit status 137", "Exit status 3", "Exit status 137 (out of memory)"}
	if diff := cmp.Diff(lines, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
