package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/pgtest"
)

// taskAtAnyTime is a task at any point of its life.
func taskAtAnyTime(t *rapid.T, n int, now time.Time) task.Task {
	ago := func(what string) time.Time {
		return now.Add(-rapid.SampledFrom([]time.Duration{
			0, time.Second, 30*time.Second - time.Microsecond, 30 * time.Second, time.Minute, 2*time.Minute - time.Microsecond, 2 * time.Minute,
			30*time.Minute - time.Microsecond, 30 * time.Minute, time.Hour,
		}).Draw(t, what))
	}
	one := job(fmt.Sprint("t", n))
	one.State = rapid.SampledFrom([]task.State{task.Pending, task.Running, task.Completed, task.Resolving}).Draw(t, "state")
	one.CreatedAt, one.UpdatedAt = now.Add(-2*time.Hour), ago("updated")
	switch one.State {
	case task.Pending:
		one.CreatedAt, one.RejectionCount = one.UpdatedAt, rapid.Int32Range(0, 3).Draw(t, "rejections")
	case task.Running:
		one.Cell = rapid.SampledFrom([]lrp.CellID{"c0", "c1", "c2"}).Draw(t, "cell")
	default:
		if one.FirstCompletedAt = ago("completed"); one.FirstCompletedAt.After(one.UpdatedAt) {
			one.FirstCompletedAt = one.UpdatedAt
		}
		if rapid.Bool().Draw(t, "has an owner") {
			one.Definition.CompletionCallbackURL = "http://owner.example/done"
		}
	}
	return one
}

// putTasks makes the database hold some tasks, and some cells that have been lost for some time; 0: they are
// present.
func putTasks(ctx context.Context, s *Store, tasks []task.Task, lost map[lrp.CellID]time.Duration) error {
	rows := make(columns, taskColumns)
	for i := range tasks {
		definition, err := s.sealTask(tasks[i].GUID, tasks[i].Definition)
		if err != nil {
			return err
		}
		insertTask(rows, &tasks[i], definition)
	}
	var pb pgx.Batch
	pb.Queue("truncate tasks, cells")
	pb.Queue(s.sql["insert_tasks"], rows...)
	for id, lost := range lost {
		pb.Queue(`insert into cells (cell_id, presence, ttl, last_seen, lost_at)
			values ($1, '', '1 s', now(), case when $2::bigint > 0 then clock_timestamp() - $2 * interval '1 millisecond' end)`, id, lost.Milliseconds())
	}
	return s.Pools.Read.SendBatch(ctx, &pb).Close()
}

// Narrowing: the plan for the tasks that the query selects is the plan for all of them, whoever is to be told
// is the same, and the next that becomes due is not missed.
func TestNarrowingOfTasks(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Microsecond) // and it stays now
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return now }})
	ctx := t.Context()
	left, steps, told := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		all := make([]task.Task, rapid.IntRange(0, 8).Draw(t, "tasks"))
		for i := range all {
			all[i] = taskAtAnyTime(t, i, now)
		}
		lost := map[lrp.CellID]time.Duration{}
		for _, id := range []lrp.CellID{"c0", "c1"} { // c2 was forgotten, or never there
			if rapid.Bool().Draw(t, "has a row") {
				lost[id] = rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "lost for")
			}
		}
		if err := putTasks(ctx, s, all, lost); err != nil {
			t.Fatal(err)
		}
		found, err := s.Compare(ctx, grace)
		if err != nil {
			t.Fatal(err)
		}
		found.Cells.Since = found.At.Add(-time.Hour)
		everything := task.Snapshot{Tasks: all, Cells: found.Cells, Grace: grace, Policy: s.TaskPolicy}
		selected := everything
		selected.Tasks = found.Tasks
		want := task.Plan(everything, found.At)
		if diff := cmp.Diff(want, task.Plan(selected, found.At)); diff != "" {
			t.Fatalf("steps for all tasks, and for what was selected (-want +got):\n%s", diff)
		}
		owners := task.Callbacks(everything, found.At)
		if diff := cmp.Diff(receivers(owners), receivers(task.Callbacks(selected, found.At))); diff != "" {
			t.Fatalf("to be told, of all and of what was selected (-want +got):\n%s", diff)
		}
		selected.Tasks = append(selected.Tasks, found.Waiting...)
		if at, ok := task.Next(everything, found.At); ok {
			if got, knows := task.Next(selected, found.At); !knows || got.After(at) {
				t.Fatalf("the next is due at %v, and is taken to be due at %v (%v)", at, got, knows)
			}
		}
		for state, n := range found.Counts.Tasks {
			for _, one := range all {
				if one.State == state {
					n--
				}
			}
			if n != 0 {
				t.Fatalf("%d more tasks are counted in state %v than there are", n, state)
			}
		}
		left, steps, told = left+len(all)-len(found.Tasks), steps+len(want), told+len(owners)
	})
	if left == 0 || steps == 0 || told == 0 {
		t.Errorf("%d tasks were left out, %d steps planned and %d to be told: the worlds say nothing", left, steps, told)
	}
}

func receivers(tasks []task.Task) (all []string) {
	for _, t := range tasks {
		all = append(all, string(t.GUID)+" "+t.Definition.CompletionCallbackURL)
	}
	return all
}

// Definitions are opened only of those tasks somebody may have to be told of: one that cannot be opened is
// met then, and left out.
func TestDefinitionsAreNotReadForNothing(t *testing.T) {
	t.Parallel()
	met := 0
	s := fresh(t)
	s.Unreadable = func(string) { met++ }
	ctx, now := t.Context(), s.now()
	all := make([]task.Task, 4)
	for i, state := range []task.State{task.Pending, task.Running, task.Completed, task.Completed} {
		all[i] = job(fmt.Sprint("t", i))
		all[i].State, all[i].CreatedAt, all[i].UpdatedAt = state, now.Add(-2*time.Hour), now.Add(-time.Hour)
	}
	all[1].Cell = "gone"
	all[2].FirstCompletedAt = all[2].UpdatedAt // to be forgotten
	all[3].UpdatedAt, all[3].FirstCompletedAt = now.Add(-time.Minute), now.Add(-time.Minute)
	must(t, putTasks(ctx, s, all, nil))
	_, err := s.Pools.Read.Exec(ctx, "update tasks set definition = 'spoilt'")
	must(t, err)
	found, err := s.Compare(ctx, grace)
	must(t, err)
	if len(found.Tasks) != 3 || met != 1 {
		t.Errorf("%d tasks were selected and %d definitions opened in vain, want 3 and that of the one to be told of", len(found.Tasks), met)
	}
}
