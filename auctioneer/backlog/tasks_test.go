package backlog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

func (w *world) task(state task.State, guid, cell string) {
	t := task.Task{
		GUID: task.GUID(guid), Domain: "d", State: state, Cell: lrp.CellID(cell), UpdatedAt: w.now,
		Definition: task.Definition{RootFS: "docker:///x", MemoryMB: 10, DiskMB: 10},
	}
	w.b.ChangeTask(task.Change{After: &t}, "trace")
}

// tasks prints the orders of a round as CELL:guid,guid, sorted by cell, and its rejections.
func (w *world) tasks(want string) Round {
	w.t.Helper()
	r := w.b.Round(w.now)
	var parts []string
	for _, o := range r.Orders {
		var guids []string
		for _, t := range o.Tasks {
			guids = append(guids, string(t.Key.GUID))
		}
		parts = append(parts, fmt.Sprintf("%s:%s", o.Cell, strings.Join(guids, ",")))
	}
	slices.Sort(parts)
	for _, f := range r.Rejections {
		parts = append(parts, fmt.Sprintf("reject %s %s", f.GUID, f.Reason))
	}
	if got := strings.Join(parts, " "); got != want {
		w.t.Fatalf("round: %q, want %q", got, want)
	}
	return r
}

func TestTasks(t *testing.T) { // K1, K2
	t.Parallel()
	w := newWorld(t, "a", "b")
	for _, guid := range []string{"t0", "t1", "t2"} {
		w.task(task.Pending, guid, "")
	}
	r := w.tasks("a:t0,t2 b:t1")
	if got := r.Orders[0]; got.Tasks[0].TraceID != "trace" || len(got.Since) != len(got.Tasks) {
		t.Errorf("order %+v", got)
	}
	w.tasks("")
	w.task(task.Running, "t0", "a")
	w.task(task.Completed, "t0", "")
	for _, o := range r.Orders {
		w.b.Answered(o, nil, Delivered, w.now)
	}
	w.now = w.now.Add(DefaultLimits().HeldWait)
	w.tasks("a:t1 b:t2") // what was kept for t0 is free
	w.b.ChangeTask(task.Change{Before: &task.Task{GUID: "t1"}}, "")
	w.b.CellGone("b")
	w.tasks("a:t2")
}

// A task that runs when its list comes, and one that is over, are nobody's work; so is what is not listed.
func TestListedTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	w.task(task.Pending, "gone", "")
	list := func(guids ...string) (all []task.Task) {
		for i, guid := range guids {
			all = append(all, task.Task{GUID: task.GUID(guid), State: task.State(i + 1), Definition: task.Definition{RootFS: "docker:///x"}})
		}
		return all
	}
	w.b.Load(World{Tasks: list("pending", "running", "completed", "resolving"), Cells: []lrp.CellID{"a"}}, w.now)
	w.tasks("a:pending")
	if len(w.b.all) != 1 {
		t.Errorf("%d pieces are known", len(w.b.all))
	}
}

func TestRejectedTasks(t *testing.T) { // K3
	t.Parallel()
	w := newWorld(t, "a")
	w.state("a", 5)
	w.task(task.Pending, "t", "")
	w.tasks("reject t insufficient resources: memory")
	w.task(task.Pending, "t", "") // the rejection is counted
	for free := range int32(4) {
		w.now = w.now.Add(time.Second)
		w.state("a", 6+free)
		if r := w.tasks(""); r.Work != 1 {
			t.Errorf("tried %d pieces, want 1", r.Work)
		}
	}
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	w.tasks("reject t insufficient resources: memory")
	w.b.NotRejected("t")
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	w.tasks("reject t insufficient resources: memory")
	w.state("a", 10)
	w.now = w.now.Add(time.Second)
	r := w.tasks("a:t")
	refused := r.Orders[0].Tasks[0]
	w.b.Answered(r.Orders[0], []cells.Refusal{{Task: &refused, Reason: "no tasks here"}}, Delivered, w.now)
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	w.tasks("reject t no tasks here")
}

// That as many are starting as may is not counted against a task.
func TestTasksWaitForTheStartLimit(t *testing.T) { // K3
	t.Parallel()
	w := newWeightedWorld(t, auction.Weights{MaxStarting: 1}, "a")
	w.task(task.Pending, "t0", "")
	w.task(task.Pending, "t1", "")
	w.tasks("a:t0")
}
