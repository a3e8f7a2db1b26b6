package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/cells/engine"
	"muster/rep/align"
	"muster/rep/recipe"
)

// taskGone is why a task failed whose container is not there; Diego's words.
const taskGone = "task container does not exist"

// taskRecipe returns what to make for a task.
func (i *instance) taskRecipe() (spec engine.Spec, plan recipe.Plan, needs recipe.Needs, err error) {
	t, err := read(i, func(ctx context.Context) (task.Task, error) { return i.cell.bbs.Task(ctx, i.task()) })
	if err != nil {
		return spec, plan, needs, fmt.Errorf("read task %s: %w", i.task(), err)
	}
	if err := recipe.SupportedTask(t.Definition); err != nil {
		return spec, plan, needs, err
	}
	if needs, err = recipe.NeedsOfTask(t.Definition); err != nil {
		return spec, plan, needs, err
	}
	key := cells.TaskKey{GUID: cells.TaskGUID(t.GUID), Domain: t.Domain}
	spec, plan, err = recipe.BuildTask(t.Definition, recipe.Subject{Task: key, Instance: i.guid}, i.cell.Recipe)
	return spec, plan, needs, err
}

// task returns the GUID of the task; it never changes.
func (i *instance) task() task.GUID { return task.GUID(i.taskKey.GUID) }

// callTask makes one call of the BBS about a task.
func (i *instance) callTask(m align.Move) {
	ev := task.Event{Name: align.TaskCall(m, i.rec), GUID: i.task(), Cell: i.cell.Presence.Cell}
	res := i.rec.Result
	switch ev.Name {
	case task.Complete:
		ev.Failed, ev.Reason, ev.Result = res.Failed || res.Stopped, res.Reason, res.Output
	case task.Reject:
		ev.Reason = res.Reason
	}
	begin := time.Now()
	i.ask(m, func(ctx context.Context) (func(), error) {
		start, err := i.cell.bbs.ApplyTask(ctx, ev)
		return func() {
			switch {
			case ev.Name != task.Start:
				i.known = align.Known{Standing: align.Told}
			case start:
				i.cell.metrics.step("claim", begin)
				i.known = align.Known{Standing: align.Holds, State: lrp.Claimed}
			default:
				i.known = align.StartedBefore(i.rec, i.unanswered)
			}
		}, err
	})
}

// compareTasks makes the full comparison with the tasks that this cell is said to run.
func (c *Cell) compareTasks(ctx context.Context) error {
	asOf := time.Now()
	records, _, err := c.bbs.Tasks(ctx, bbsclient.TaskFilter{Cell: c.Presence.Cell})
	if err != nil {
		return fmt.Errorf("list the tasks of cell %s: %w", c.Presence.Cell, err)
	}
	listed := map[task.GUID]task.Task{}
	for _, t := range records {
		listed[t.GUID] = t
	}
	for _, i := range c.all() {
		if i.isTask {
			i.post(func() { i.listedTask(asOf, listed[i.task()]) })
		}
	}
	for _, t := range align.OrphanTasks(records, c.Presence.Cell, func(guid task.GUID) bool { return c.findTask(guid) != nil }) {
		c.failOrphan(t)
	}
	return nil
}

// listedTask takes what a list says; no task, if it does not show this one. A list that is older than the
// last answer of the BBS says nothing, and none takes back what is final.
func (i *instance) listedTask(asOf time.Time, t task.Task) {
	if i.heard.After(asOf) || i.known.Standing == align.Lost || i.known.Standing == align.Told {
		return
	}
	if i.known.Standing == align.Unheard && !i.rec.Launched && t.GUID == "" {
		return // not started yet
	}
	i.known = align.KnownOfTask(t, i.cell.Presence.Cell)
}

// hearTask takes a change of the record of a task.
func (c *Cell) hearTask(before, after *task.Task) {
	ours := func(t *task.Task) bool { return t != nil && t.State == task.Running && t.Cell == c.Presence.Cell }
	switch {
	case ours(after):
		if i := c.findTask(after.GUID); i != nil {
			i.post(func() {
				if i.known.Standing == align.Absent && i.rec.Launched {
					i.known = align.KnownOfTask(*after, c.Presence.Cell)
				}
			})
		}
	case ours(before):
		if i := c.findTask(before.GUID); i != nil {
			i.post(func() {
				if i.known.Standing == align.Holds {
					i.known = align.Known{Standing: align.Absent}
				}
			})
		}
	}
}

// findTask returns the runner of a task, or nil.
func (c *Cell) findTask(guid task.GUID) *instance {
	for _, i := range c.all() {
		if i.isTask && i.task() == guid {
			return i
		}
	}
	return nil
}

// failOrphan reports a task failed that a record says runs here and the cell does not have.
func (c *Cell) failOrphan(t task.Task) {
	log := c.log.With("task_guid", t.GUID)
	ev := task.Event{Name: task.Complete, GUID: t.GUID, Cell: c.Presence.Cell, Failed: true, Reason: taskGone}
	c.orphan(lrp.InstanceGUID(t.GUID), log, "task without container not reported", func(ctx context.Context) error {
		_, err := c.bbs.ApplyTask(ctx, ev)
		var refusal *task.Refusal
		if err != nil && !errors.As(err, &refusal) {
			return err
		}
		log.Info("task without container reported failed", "refused", refusal != nil)
		return nil
	})
}
