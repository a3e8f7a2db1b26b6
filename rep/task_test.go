package rep_test

import (
	"testing"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/cells/inmem"
	"muster/internal/identity"
)

// desireTask wants a task that runs the probe.
func (w *world) desireTask(guid task.GUID, change func(*task.Definition), args ...string) cells.Task {
	w.t.Helper()
	d := task.Definition{RootFS: "docker:///app", Action: do(args...), MemoryMB: 100, DiskMB: 100, LogSource: "TASK", LogGUID: "log"}
	if change != nil {
		change(&d)
	}
	if err := w.bbs.DesireTask(w.ctx, task.Task{GUID: guid, Domain: "tasks", Definition: d}); err != nil {
		w.t.Fatal(err)
	}
	return cells.Task{
		Key:       cells.TaskKey{GUID: cells.TaskGUID(guid), Domain: "tasks"},
		Resources: cells.Resources{MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, Containers: 1}, RootFS: d.RootFS,
	}
}

// performTask gives a task to the cell, as the auctioneer does.
func (c *cell) performTask(t cells.Task) {
	c.w.t.Helper()
	refused, err := c.as(identity.Auctioneer).Perform(c.w.ctx, "z1", nil, []cells.Task{t})
	if err != nil || len(refused) > 0 {
		c.w.t.Fatalf("refused %v, %v", refused, err)
	}
}

// taskIn waits until a task is in a state.
func (w *world) taskIn(guid task.GUID, state task.State) task.Task {
	w.t.Helper()
	var got task.Task
	w.seen.until(w.t, "task "+string(guid)+" "+state.String(), func() bool {
		var err error
		if got, err = w.bbs.Task(w.ctx, guid); err != nil {
			w.t.Fatal(err)
		}
		return got.State == state
	})
	return got
}

func noTasks(s cells.State) bool { return len(s.Tasks) == 0 && s.Available == s.Capacity }

func runsTask(s cells.State) bool { return len(s.Tasks) == 1 && s.StartingContainers == 0 }

// awaitLine waits until the only container has written a line.
func (w *world) awaitLine(want string) {
	w.t.Helper()
	e := w.host.Engine()
	all, err := e.List(w.ctx)
	if err != nil || len(all) != 1 {
		w.t.Fatalf("containers %v, %v", all, err)
	}
	log, err := e.Logs(w.ctx, all[0].ID, true)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	for {
		line, err := log.Next()
		if err != nil {
			w.t.Fatal(err)
		}
		if string(line.Text) == want {
			return
		}
	}
}

// TestTasks runs tasks to their end, and shows how that is told.
func TestTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	for _, row := range []struct {
		guid   task.GUID
		args   []string
		change func(*task.Definition)
		want   task.Task // only Failed, FailureReason and Result count
	}{
		{"good", []string{"write", "/result", "42"}, func(d *task.Definition) { d.ResultFile = "/result" }, task.Task{Result: "42"}},
		{"bad", []string{"exit", "7"}, nil, task.Task{Failed: true, FailureReason: "TASK: Exited with status 7"}},
		{"no-result", []string{"exit", "0"}, func(d *task.Definition) { d.ResultFile = "/result" }, task.Task{Failed: true, FailureReason: "failed to fetch result"}},
		{"slow", []string{"stubborn"}, func(d *task.Definition) {
			d.Action = &lrp.Action{Timeout: &lrp.TimeoutAction{Action: d.Action, TimeoutMS: 50}}
		}, task.Task{Failed: true, FailureReason: "exceeded 50ms timeout"}},
	} {
		c.performTask(w.desireTask(row.guid, row.change, row.args...))
		got := w.taskIn(row.guid, task.Completed)
		if got.Failed != row.want.Failed || got.FailureReason != row.want.FailureReason || got.Result != row.want.Result {
			t.Errorf("%s: failed %v, reason %q, result %q; want %+v", row.guid, got.Failed, got.FailureReason, got.Result, row.want)
		}
	}
	c.untilState("no tasks", noTasks)
}

// TestTaskIsCancelled ends a task that nobody wants any more.
func TestTaskIsCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	c.performTask(w.desireTask("long", nil, "run"))
	w.taskIn("long", task.Running)
	c.untilState("one task", func(s cells.State) bool { return len(s.Tasks) == 1 && s.Tasks[0].Key.GUID == "long" })
	if _, err := w.bbs.ApplyTask(w.ctx, task.Event{Name: task.Cancel, GUID: "long"}); err != nil {
		t.Fatal(err)
	}
	c.untilState("no tasks", noTasks)
	if got := w.taskIn("long", task.Completed); got.FailureReason != "task was cancelled" {
		t.Errorf("reason %q", got.FailureReason)
	}
	if left, err := w.host.Engine().List(w.ctx); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestTaskLivesOn runs a task through a restart of the rep; it is not started again.
func TestTaskLivesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first := w.startRep()
	first.performTask(w.desireTask("job", func(d *task.Definition) {
		d.Action = &lrp.Action{Run: &lrp.RunAction{Path: "/app", User: "vcap", Env: []lrp.EnvVar{{Name: "INSTANCE_GUID", Value: "job"}}}}
	}))
	w.taskIn("job", task.Running)
	first.untilState("a task that runs", runsTask)
	w.awaitLine("started")
	first.stop()
	second := w.startRep()
	second.untilState("the task adopted", func(s cells.State) bool { return len(s.Tasks) == 1 })
	w.app.proc("job").exit <- 0
	if got := w.taskIn("job", task.Completed); got.Failed || w.app.started() != 1 {
		t.Errorf("task %+v, started %d times", got, w.app.started())
	}
	second.untilState("no tasks", noTasks)
}

// TestTaskWithoutContainer fails a task that the BBS believes here and is not.
func TestTaskWithoutContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first := w.startRep()
	first.performTask(w.desireTask("lost", nil, "run"))
	first.untilState("a task that runs", runsTask)
	first.stop()
	left, err := w.host.Engine().List(w.ctx)
	if err != nil || len(left) != 1 || !w.host.Lose(left[0].ID) {
		t.Fatalf("containers %v, %v", left, err)
	}
	w.startRep()
	if got := w.taskIn("lost", task.Completed); !got.Failed || got.FailureReason != "task container does not exist" {
		t.Errorf("failed %v, reason %q", got.Failed, got.FailureReason)
	}
}

// TestTaskGoesBack rejects a task whose container cannot be made: nothing of it ran, so it may be placed again.
func TestTaskGoesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.SetImage("docker:///none", inmem.Image{})
	c := w.startRep()
	c.performTask(w.desireTask("back", func(d *task.Definition) { d.RootFS = "docker:///missing" }, "exit", "0"))
	w.seen.until(t, "the task rejected", func() bool {
		got, err := w.bbs.Task(w.ctx, "back")
		return err == nil && got.State == task.Pending && got.RejectionCount == 1
	})
	c.untilState("no tasks", noTasks)
}
