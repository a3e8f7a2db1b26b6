package lrp

import (
	"strings"
	"testing"
)

// TestTaskDoor checks that the rules for processes answer for tasks, under the names of tasks, and that
// what only processes need is not asked of a task. The bounds themselves are tested in bbs/task.
func TestTaskDoor(t *testing.T) {
	t.Parallel()
	recipe := RunInfo{Action: &Action{Run: &RunAction{Path: "true", User: "vcap"}}}
	if found := TaskErrors("a-1", Desired{Domain: "d", RootFS: "preloaded:x", RunInfo: recipe}); len(found) != 0 {
		t.Errorf("a task needs no routes, tags or ports: %v", found)
	}
	names := func(found []FieldError) string {
		var all []string
		for _, f := range found {
			all = append(all, f.Field)
		}
		return strings.Join(all, ",")
	}
	for got, want := range map[string]string{
		names(TaskErrors("a b", Desired{MemoryMB: -1})):            "task_guid,domain,rootfs,memory_mb,action",
		names(TaskGUIDErrors("")) + " guid":                        "task_guid guid",
		names(NameErrors("cell_id", "", true)) + " needed":         "cell_id needed",
		names(NameErrors("cell_id", "", false)):                    "",
		names(NameErrors("c", strings.Repeat("x", 256), false)):    "c",
		names(TextErrors("reason", "")) + " text":                  "reason text",
		StorableReason(strings.Repeat("x", MaxReasonBytes))[1010:]: "xxx" + truncated,
		StorableText("a\x00\xff" + strings.Repeat("x", 2000))[:7]:  "a\uFFFD\uFFFD",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
