package task

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
)

// run applies events one after another, each a second later, and fails the test when one is refused.
func run(t *testing.T, task *Task, events ...Event) *Task {
	t.Helper()
	for i, ev := range events {
		ev.GUID = "task"
		out, err := Apply(task, ev, DefaultPolicy(), testNow.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatalf("%s: %v", ev.Name, err)
		}
		task = out.Task
	}
	return task
}

func desired() *Task {
	task := inState(Pending, false)
	return &task
}

// TestRejections counts as clients see it: rejections 1 to 3 keep a task PENDING, the 4th fails it with
// its own reason (bbs reference §8.2; "also fires for a task that could never be placed", §19).
func TestRejections(t *testing.T) {
	t.Parallel()
	task := desired()
	for n := int32(1); n <= 3; n++ {
		task = run(t, task, Event{Name: Reject, Reason: "insufficient resources: memory"})
		if task.State != Pending || task.RejectionCount != n || task.Failed {
			t.Fatalf("after rejection %d: %+v", n, task)
		}
	}
	task = run(t, task, Event{Name: Reject, Reason: "found no compatible cell"})
	if task.State != Completed || task.RejectionCount != 4 || task.FailureReason != "found no compatible cell" ||
		task.RejectionReason != "found no compatible cell" || task.FirstCompletedAt.IsZero() {
		t.Fatalf("after rejection 4: %+v", task)
	}
}

// TestRejectedAfterStart lets only the cell that has a task give it back (bbs reference §8.1, "never
// restarted"), and forgets the cell when it does (§8.2, quirk).
func TestRejectedAfterStart(t *testing.T) {
	t.Parallel()
	task := run(t, desired(), Event{Name: Start, Cell: "a"})
	for cell, why := range map[lrp.CellID]Why{"": InvalidStateTransition, "b": RunningOnDifferentCell} {
		var refused *Refusal
		_, err := Apply(task, Event{Name: Reject, GUID: "task", Cell: cell, Reason: "no answer"}, DefaultPolicy(), testNow)
		if !errors.As(err, &refused) || refused.Why != why {
			t.Errorf("reject by %q: %v", cell, err)
		}
	}
	task = run(t, task, Event{Name: Reject, Cell: "a", Reason: "no space"})
	if task.State != Pending || task.Cell != "" {
		t.Errorf("rejected: %+v", task)
	}
	if task = run(t, task, Event{Name: Start, Cell: "b"}); task.Cell != "b" {
		t.Errorf("started elsewhere: %+v", task)
	}
}

// TestWholeLife runs a task as vizzini does: to COMPLETED with its result, RESOLVING, gone (§19).
func TestWholeLife(t *testing.T) {
	t.Parallel()
	wanted := valid()
	task := run(t, nil, Event{Name: Desire, Task: &wanted}, Event{Name: Start, Cell: "a"}, Event{Name: Complete, Cell: "a", Result: "42"})
	if task.State != Completed || task.Result != "42" || task.Cell != "" || !task.FirstCompletedAt.Equal(testNow.Add(2*time.Second)) {
		t.Errorf("completed: %+v", task)
	}
	task = run(t, task, Event{Name: Resolve}, Event{Name: Delete})
	if task != nil {
		t.Errorf("deleted: %+v", task)
	}
}

// TestKickLeavesTheTime pins what makes the callback due at once (bbs reference §9.5, rules 4 and 6).
func TestKickLeavesTheTime(t *testing.T) {
	t.Parallel()
	before := inState(Resolving, true)
	after := run(t, &before, Event{Name: Kick})
	at, due := DefaultPolicy().CallbackAt(*after)
	if after.State != Completed || !after.UpdatedAt.Equal(before.UpdatedAt) || !due || at.After(testNow) {
		t.Errorf("kicked: %+v, callback at %v, %v", after, at, due)
	}
}

// TestTexts pins the texts that clients show to people (wire reference §5.2).
func TestTexts(t *testing.T) {
	t.Parallel()
	for text, event := range map[string]Event{
		"Cannot transition from Running to Resolving":   {Name: Resolve},
		"Cannot transition from Running to Running":     {Name: Start, Cell: "b"},
		"Running on cell a not b":                       {Name: Complete, Cell: "b"},
		"the requested resource already exists":         {Name: Desire, Task: &Task{GUID: "task", Domain: "other", Definition: valid().Definition}},
		"Cannot transition from Running to Pending":     {Name: Reject, Reason: "r"},
		"the requested resource could not be found":     {Name: Cancel},
		"Cannot transition from Completed to Resolving": {Name: Delete},
	} {
		task := inState(Running, false)
		met := &task
		switch event.Name {
		case Cancel:
			met = nil
		case Delete:
			task = inState(Completed, false)
		}
		event.GUID = "task"
		var refused *Refusal
		if _, err := Apply(met, event, DefaultPolicy(), testNow); !errors.As(err, &refused) || refused.Text() != text {
			t.Errorf("%s: %v, want %q", event.Name, err, text)
		}
	}
}

// TestReasonsAreCut cuts at, above and below the width of the column, and between characters (bbs
// reference §14.3).
func TestReasonsAreCut(t *testing.T) {
	t.Parallel()
	const mark = "(truncated)"
	for _, c := range []struct{ given, want string }{
		{strings.Repeat("x", 1023), strings.Repeat("x", 1023)},
		{strings.Repeat("x", 1024), strings.Repeat("x", 1013) + mark},
		{strings.Repeat("x", 1025), strings.Repeat("x", 1013) + mark},
		{strings.Repeat("x", 1012) + strings.Repeat("é", 10), strings.Repeat("x", 1012) + mark},
		{"a\x00b\xff", "a\uFFFDb\uFFFD"},
	} {
		for _, ev := range []Event{{Name: Fail}, {Name: Complete, Cell: "a", Failed: true}} {
			ev.Reason = c.given
			if got := run(t, desired(), Event{Name: Start, Cell: "a"}, ev).FailureReason; got != c.want {
				t.Errorf("%s with %d bytes: %q", ev.Name, len(c.given), got)
			}
		}
		if got := run(t, desired(), Event{Name: Reject, Reason: c.given}).RejectionReason; got != c.want {
			t.Errorf("reject with %d bytes: %q", len(c.given), got)
		}
	}
	got := run(t, desired(), Event{Name: Start, Cell: "a"}, Event{Name: Complete, Cell: "a", Result: strings.Repeat("é\x00", 2000)}).Result
	if want := strings.Repeat("é\uFFFD", 2000); got != want {
		t.Errorf("a result is not cut, but cleaned: %d bytes", len(got))
	}
}

// TestAnyHistory applies random events and checks what no history may break: the invariants, that a
// task is started at most once unless its cell gave it back, that it ends at most once, and that time
// does not run backwards.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var task *Task
		now := testNow
		given := true // whether the next start is the first since the task was given back or created
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(-5, 900).Draw(t, "seconds")) * time.Second)
			ev := Event{
				Name: rapid.SampledFrom(EventNames()).Draw(t, "name"), GUID: "task", Reason: rapid.String().Draw(t, "reason"),
				Cell: rapid.SampledFrom([]lrp.CellID{"", "a", "b"}).Draw(t, "cell"), Failed: rapid.Bool().Draw(t, "failed"), Result: rapid.String().Draw(t, "result"),
			}
			wanted := valid()
			ev.Task = &wanted
			out, err := Apply(task, ev, DefaultPolicy(), now)
			if err != nil {
				if Diff(task, out.Task) != nil {
					t.Fatalf("%s: %v, and yet changed", ev.Name, err)
				}
				continue
			}
			if out.ShouldStart && !given {
				t.Fatalf("%s starts a task again", ev.Name)
			}
			given = (given || task == nil || ev.Name == Reject && task.State == Running) && !out.ShouldStart
			if n := out.Task; n != nil {
				if err := n.Check(); err != nil {
					t.Fatalf("after %s: %v", ev.Name, err)
				}
				if task != nil && n.UpdatedAt.Before(task.UpdatedAt) {
					t.Fatalf("%s: updated at %v after %v", ev.Name, n.UpdatedAt, task.UpdatedAt)
				}
				if task != nil && !task.FirstCompletedAt.IsZero() && (!n.FirstCompletedAt.Equal(task.FirstCompletedAt) || n.Failed != task.Failed) {
					t.Fatalf("%s: ended twice", ev.Name)
				}
			}
			task = out.Task
		}
	})
}

// TestCheck breaks each invariant by itself.
func TestCheck(t *testing.T) {
	t.Parallel()
	for number, breakIt := range map[string]func(*Task){
		"T1": func(t *Task) { t.UpdatedAt = t.CreatedAt.Add(-1) },
		"T2": func(t *Task) { t.State = 5 },
		"T3": func(t *Task) { t.Cell = "a" },
		"T4": func(t *Task) { t.FirstCompletedAt = time.Time{} },
		"T5": func(t *Task) { *t = inState(Pending, false); t.Failed = true },
		"T6": func(t *Task) { t.Failed = true },
		"T7": func(t *Task) { t.FailureReason = "because" },
		"T8": func(t *Task) { t.RejectionReason = "because" },
	} {
		task := inState(Completed, false)
		breakIt(&task)
		if err := task.Check(); err == nil || !strings.Contains(err.Error(), " "+number+":") {
			t.Errorf("%s: %v", number, err)
		}
	}
}

// TestSummary keeps of a definition what watchers may see.
func TestSummary(t *testing.T) {
	t.Parallel()
	task := valid()
	task.Definition.MemoryMB, task.Definition.Annotation = 64, "mine"
	task.Definition.ImagePassword, task.Definition.Env = "secret", []lrp.EnvVar{{Name: "SECRET", Value: "secret"}}
	task.Definition.VolumeMounts = []lrp.VolumeMount{{Driver: "nfs", Shared: &lrp.SharedDevice{VolumeID: "v", MountConfig: "secret"}}}
	want := Definition{
		RootFS: "preloaded:cflinuxfs4", MemoryMB: 64, Annotation: "mine", CompletionCallbackURL: "https://cc/done",
		VolumeMounts: []lrp.VolumeMount{{Driver: "nfs"}},
	}
	if diff := cmp.Diff(want, task.Summary().Definition); diff != "" {
		t.Error(diff)
	}
}

// TestReasonsStayText guards the seam to the database: no reason that Apply keeps is refused by it.
func TestReasonsStayText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		reason := string(rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "reason"))
		out, err := Apply(desired(), Event{Name: Fail, GUID: "task", Reason: reason}, DefaultPolicy(), testNow)
		if err != nil {
			t.Fatal(err)
		}
		if got := out.Task.FailureReason; !utf8.ValidString(got) || strings.Contains(got, "\x00") || len(got) > 1024 {
			t.Fatalf("kept %q", got)
		}
	})
}
