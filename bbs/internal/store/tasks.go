package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/task"
)

// DesireTask creates a task: of t, only GUID, Domain and Definition count.
func (s *Store) DesireTask(ctx context.Context, t task.Task, c Call) error {
	o := &taskOp{ev: task.Event{Name: task.Desire, GUID: t.GUID, Task: &t}, policy: s.TaskPolicy}
	if err := o.ev.Validate(); err != nil {
		return err // without troubling the database
	}
	return s.create(ctx, o, c)
}

// ApplyTask runs the rules for one event of a task and stores what becomes of it. shouldStart tells a
// cell that asked to start the task that it is the one to run it; it is said once.
func (s *Store) ApplyTask(ctx context.Context, ev task.Event, c Call) (shouldStart bool, err error) {
	o := &taskOp{ev: ev, policy: s.TaskPolicy}
	if err := ev.Validate(); err != nil {
		return false, err
	}
	if err := s.do(ctx, o, c); err != nil {
		return false, err // and the writer may still be at it
	}
	return o.shouldStart, nil
}

// taskOp is something that happened to a task.
type taskOp struct {
	ev          task.Event
	policy      task.Policy
	shouldStart bool // of the newest decision
}

func (o *taskOp) needs(s *subjects) { add(&s.tasks, o.ev.GUID) }

func (o *taskOp) decide(w *world, c Call) error {
	before := w.task(o.ev.GUID).after
	out, err := task.Apply(before, o.ev, o.policy, w.now)
	if err != nil {
		return err
	}
	o.shouldStart = out.ShouldStart && !c.ValidateOnly
	change := task.Diff(before, out.Task)
	if change == nil {
		return nil
	}
	dr := w.draft()
	dr.guid, dr.task = o.ev.GUID, out.Task
	dr.events = []event.Event{{Task: &task.Change{Before: summary(change.Before), After: summary(change.After)}}}
	dr.keep(c)
	return nil
}

func summary(t *task.Task) *task.Task {
	if t == nil {
		return nil
	}
	short := t.Summary()
	return &short
}

// taskState is a task of a batch: as it was, and as it has become. nil: there is none.
type taskState struct {
	before, after *task.Task
	gone          bool // in between it was deleted
}

func (w *world) task(guid task.GUID) *taskState {
	t := w.tasks[guid]
	if t == nil {
		t = &taskState{}
		if w.tasks == nil {
			w.tasks = map[task.GUID]*taskState{}
		}
		w.tasks[guid] = t
	}
	return t
}

// taskStateNames are the labels of the enum task_state, by number.
var taskStateNames = [...]string{task.Pending: "PENDING", task.Running: "RUNNING", task.Completed: "COMPLETED", task.Resolving: "RESOLVING"}

func taskStateName(s task.State) string {
	if s <= task.Invalid || int(s) >= len(taskStateNames) {
		return fmt.Sprintf("state %d", s) // the column refuses it
	}
	return taskStateNames[s]
}

// taskStateOf is the state of a label; Invalid if there is none with that label.
func taskStateOf(label string) task.State {
	return task.State(max(0, slices.Index(taskStateNames[:], label)))
}

// The columns of insert_tasks and update_tasks.
const (
	taskColumns       = 13
	taskUpdateColumns = 10
)

// insertTask appends the columns of insert_tasks.
func insertTask(c columns, t *task.Task, definition []byte) {
	row(c, string(t.GUID), string(t.Domain), taskStateName(t.State), string(t.Cell), t.CreatedAt, t.UpdatedAt)
	appendTo(c, 6, timeOrNull(t.FirstCompletedAt))
	row(c[7:], t.Result, t.Failed, t.FailureReason, t.RejectionCount, t.RejectionReason, definition)
}

// updateTask appends the columns of update_tasks.
func updateTask(c columns, t *task.Task) {
	row(c, string(t.GUID), taskStateName(t.State), string(t.Cell), t.UpdatedAt)
	appendTo(c, 4, timeOrNull(t.FirstCompletedAt))
	row(c[5:], t.Result, t.Failed, t.FailureReason, t.RejectionCount, t.RejectionReason)
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// scanTask reads a row of read_tasks or list_tasks.
func (s *Store) scanTask(rows pgx.CollectableRow) (task.Task, error) {
	var t task.Task
	var state string
	var completed *time.Time
	var definition []byte
	err := rows.Scan(&t.GUID, &t.Domain, &state, &t.Cell, &t.CreatedAt, &t.UpdatedAt, &completed, &t.Result, &t.Failed,
		&t.FailureReason, &t.RejectionCount, &t.RejectionReason, &definition)
	if err != nil {
		return task.Task{}, err
	}
	t.State, t.CreatedAt, t.UpdatedAt, t.FirstCompletedAt = taskStateOf(state), t.CreatedAt.UTC(), t.UpdatedAt.UTC(), timeOrZero(completed)
	t.Definition, err = s.openTask(t.GUID, definition)
	return t, firstUnreadable("tasks", string(t.GUID), columnError{"definition", err})
}

func (s *Store) readTasks(w *world, rows pgx.Rows) error {
	return eachRow(s, rows, s.scanTask,
		func(t task.Task) {
			state := w.task(t.GUID)
			state.before, state.after = &t, &t
		},
		func(t task.Task, u *Unreadable) { w.block().tasks[t.GUID] = u })
}

// planTasks compares the tasks that were with those that have become.
func (s *Store) planTasks(p *plan, w *world) error {
	if len(w.tasks) == 0 {
		return nil
	}
	p.insertTasks, p.updateTasks = make(columns, taskColumns), make(columns, taskUpdateColumns)
	for _, guid := range slices.Sorted(maps.Keys(w.tasks)) {
		t := w.tasks[guid]
		switch {
		case t.before == t.after:
		case t.after == nil:
			p.deleteTasks = append(p.deleteTasks, string(guid))
		case t.before != nil && !t.gone:
			updateTask(p.updateTasks, t.after)
		default:
			if t.before != nil { // deleted and desired again in one batch
				p.deleteTasks = append(p.deleteTasks, string(guid))
			}
			definition, err := s.sealTask(guid, t.after.Definition)
			if err != nil {
				return fmt.Errorf("encode the definition of task %s: %w", guid, err)
			}
			insertTask(p.insertTasks, t.after, definition)
		}
	}
	return nil
}

// cellsOf returns the cell that ran a task before a change, and the one that runs it then.
func cellsOf(c *task.Change) (before, after lrp.CellID) {
	if c.Before != nil {
		before = c.Before.Cell
	}
	if c.After != nil {
		after = c.After.Cell
	}
	return before, after
}
