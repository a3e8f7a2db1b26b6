package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/pgtest"
)

// job is a task that passes validation.
func job(guid string) task.Task {
	return task.Task{GUID: task.GUID(guid), Domain: "d", Definition: task.Definition{
		RootFS: "docker://r/i#t", Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/true", User: "vcap"}},
		Env: []lrp.EnvVar{{Name: "SECRET", Value: "s3cr3t"}}, MemoryMB: 64, Annotation: "a",
	}}
}

// read returns a task that must be there.
func (s *Store) mustTask(t testing.TB, guid task.GUID) task.Task {
	t.Helper()
	got, err := s.Task(t.Context(), guid)
	must(t, err)
	if got == nil {
		t.Fatalf("task %s is not there", guid)
	}
	return *got
}

func TestLifeOfATask(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return now }})
	ctx := t.Context()
	must(t, s.DesireTask(ctx, job("t"), Call{TraceID: "trace-1"}))
	want := job("t")
	want.State, want.CreatedAt, want.UpdatedAt = task.Pending, now, now
	if diff := cmp.Diff(want, s.mustTask(t, "t"), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("read back (-desired +read):\n%s", diff)
	}
	var refusal *task.Refusal
	if err := s.DesireTask(ctx, job("t"), Call{}); !errors.As(err, &refusal) || refusal.Why != task.Exists {
		t.Errorf("desired twice: %v, want a refusal with %s", err, task.Exists)
	}
	for _, want := range []bool{true, false} { // asked again, it is no error, but not to be started again
		if should, err := s.ApplyTask(ctx, task.Event{Name: task.Start, GUID: "t", Cell: "c"}, Call{}); err != nil || should != want {
			t.Errorf("start: %v, %v; want %v", should, err, want)
		}
	}
	now = now.Add(time.Second)
	apply := func(ev task.Event) {
		t.Helper()
		ev.GUID = "t"
		_, err := s.ApplyTask(ctx, ev, Call{})
		must(t, err)
	}
	apply(task.Event{Name: task.Complete, Cell: "c", Result: "42"})
	if got := s.mustTask(t, "t"); got.State != task.Completed || got.Result != "42" || got.FirstCompletedAt != now || got.Cell != "" {
		t.Errorf("completed: %+v", got)
	}
	apply(task.Event{Name: task.Resolve})
	checkReplay(t, s)
	apply(task.Event{Name: task.Delete})
	if got, err := s.Task(ctx, "t"); err != nil || got != nil {
		t.Errorf("deleted: %+v, %v", got, err)
	}
	checkReplay(t, s)
	log := history(t, s)
	if len(log) != 5 || log[0].Task == nil || log[0].TraceID != "trace-1" || len(log[0].Task.After.Definition.Env) != 0 {
		t.Errorf("the log is %+v, want 5 changes of summaries", log)
	}
}

// Many cells want to start a task, on two replicas: exactly one of them is to run it (§8.1: at most
// once).
func TestOneCellStartsATask(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	replicas := []*Store{open(t, url, Options{}), open(t, url, Options{})}
	const callers, rounds = 16, 10
	for round := range rounds {
		guid := task.GUID(fmt.Sprint("t", round))
		must(t, replicas[0].DesireTask(t.Context(), job(string(guid)), Call{}))
		should := make([]bool, callers)
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				var refusal *task.Refusal
				var err error
				should[c], err = replicas[c%2].ApplyTask(t.Context(), task.Event{Name: task.Start, GUID: guid, Cell: lrp.CellID(fmt.Sprint("c", c/2))}, Call{})
				if err != nil && !errors.As(err, &refusal) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		winner := slices.Index(should, true)
		if winner < 0 || slices.Contains(should[winner+1:], true) {
			t.Fatalf("the callers were told %v, want exactly one true", should)
		}
		if got := replicas[1].mustTask(t, guid); got.Cell != lrp.CellID(fmt.Sprint("c", winner/2)) {
			t.Errorf("the task is on %s, and cell c%d was told to start it", got.Cell, winner/2)
		}
	}
	checkReplay(t, replicas[1])
}

// A task that cannot be stored fails alone; LRPs and tasks of its batch do not notice.
func TestPoisonedTaskFailsAlone(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	desire := func(x task.Task) *taskOp {
		return &taskOp{ev: task.Event{Name: task.Desire, GUID: x.GUID, Task: &x}, policy: task.DefaultPolicy()}
	}
	poisoned := job("poisoned")
	poisoned.Domain = "a\x00b"
	var requests []*request
	for _, o := range []op{desire(job("t1")), &desireOp{desired: app("p", 1), epoch: newEpoch}, desire(poisoned), desire(job("t2"))} {
		requests = append(requests, &request{ctx: t.Context(), call: &Call{}, op: o, answer: make(chan error, 1)})
	}
	s.commit(t.Context(), requests, func() {})
	for i, r := range requests {
		err := <-r.answer
		var inv *lrp.Invalid
		if i == 2 && !errors.As(err, &inv) || i != 2 && err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if got := tables(t, s); len(got.Tasks) != 2 || len(got.Desired) != 1 {
		t.Errorf("%d tasks and %d processes are stored, want 2 and 1", len(got.Tasks), len(got.Desired))
	}
	checkReplay(t, s)
}

// A task that is deleted and desired again in one batch is replaced in one transaction, also when no time
// has passed.
func TestTaskReplacedInOneBatch(t *testing.T) {
	t.Parallel()
	now, commits := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), 0
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return now }, Committed: func(Commit) { commits++ }})
	must(t, s.DesireTask(t.Context(), job("t"), Call{}))
	again := job("t")
	again.Definition.Annotation = "again"
	var requests []*request
	for _, ev := range []task.Event{
		{Name: task.Cancel}, {Name: task.Resolve}, {Name: task.Delete}, {Name: task.Desire, Task: &again}, {Name: task.Start, Cell: "c"},
	} {
		ev.GUID = "t"
		requests = append(requests, &request{ctx: t.Context(), call: &Call{}, op: &taskOp{ev: ev, policy: task.DefaultPolicy()}, answer: make(chan error, 1)})
	}
	s.commit(t.Context(), requests, func() {})
	for _, r := range requests {
		must(t, <-r.answer)
	}
	if commits != 2 {
		t.Errorf("%d transactions, want one for the batch", commits-1)
	}
	if got := s.mustTask(t, "t"); got.State != task.Running || got.Definition.Annotation != "again" {
		t.Errorf("stored is %+v, want the second task, running", got)
	}
	checkReplay(t, s)
}

// anyTask draws a task that keeps the invariants, and then spoils one member of some.
func anyTask(t *rapid.T) task.Task {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	x := job("t")
	x.State, x.CreatedAt, x.UpdatedAt = rapid.SampledFrom([]task.State{task.Pending, task.Running, task.Completed, task.Resolving}).Draw(t, "state"), at, at
	switch x.State {
	case task.Running:
		x.Cell = "c"
	case task.Completed, task.Resolving:
		x.FirstCompletedAt = at
		if x.Failed = rapid.Bool().Draw(t, "failed"); x.Failed {
			x.FailureReason = "r"
		} else {
			x.Result = "r"
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "flaws") {
		rapid.SampledFrom([]func(){
			func() { x.Domain = "" },
			func() { x.CreatedAt = time.Time{} },
			func() { x.UpdatedAt = at.Add(-time.Second) },
			func() { x.UpdatedAt = at.Add(time.Second) },
			func() { x.State = task.Invalid },
			func() { x.State = 5 },
			func() { x.State = task.Pending },
			func() { x.State = task.Resolving },
			func() { x.Cell = "" },
			func() { x.Cell = "c" },
			func() { x.FirstCompletedAt = time.Time{} },
			func() { x.FirstCompletedAt = at.Add(time.Second) },
			func() { x.Failed = !x.Failed },
			func() { x.Result = "r" },
			func() { x.FailureReason = "r" },
			func() { x.RejectionCount = -1 },
			func() { x.RejectionCount = 2 },
			func() { x.RejectionReason = "r" },
		}).Draw(t, "flaw")()
	}
	return x
}

// The schema accepts exactly the tasks that Task.Check accepts.
func TestTaskConstraintPair(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	valid, invalid := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		x := anyTask(rt)
		c := make(columns, taskColumns)
		insertTask(c, &x, []byte{1})
		err := pgx.BeginFunc(ctx, s.Pools.Read, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, s.sql["insert_tasks"], c...); err != nil {
				return err
			}
			return errUndo
		})
		want := x.Check()
		if accepted := errors.Is(err, errUndo); accepted != (want == nil) {
			rt.Fatalf("the schema says %v, Task.Check says %v", err, want)
		}
		if want == nil {
			valid++
		} else {
			invalid++
		}
	})
	if valid == 0 || invalid == 0 {
		t.Errorf("%d valid and %d invalid tasks were tried: the generator is lopsided", valid, invalid)
	}
}
