package task

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/cells"
)

// TestPlan meets every rule of bbs reference §9.5 (but 2, for which the auctioneer watches) just before
// and just when its time has come.
func TestPlan(t *testing.T) {
	t.Parallel()
	const grace = 15 * time.Second
	here := cells.Presences{Known: true, Cells: map[lrp.CellID]cells.Sight{"a": {}, "b": {}}}
	lost := func(ago time.Duration) cells.Presences {
		return cells.Presences{Known: true, Cells: map[lrp.CellID]cells.Sight{"a": {LostAt: testNow.Add(-ago)}, "b": {}}}
	}
	unknown := lost(time.Hour)
	unknown.Known = false
	alone := lost(time.Hour)
	delete(alone.Cells, "b")
	doubted := lost(time.Hour)
	doubted.Cells["a"] = cells.Sight{LostAt: testNow.Add(-time.Hour), Doubted: true}
	silent := inState(Completed, true)
	silent.FirstCompletedAt, silent.Definition.CompletionCallbackURL = testNow.Add(-time.Minute), ""
	silent.UpdatedAt = silent.FirstCompletedAt
	told := func(ago time.Duration) Task {
		t := inState(Completed, false)
		t.FirstCompletedAt, t.UpdatedAt = testNow.Add(-time.Minute), testNow.Add(-ago)
		return t
	}
	longKicked := inState(Resolving, true)
	longKicked.FirstCompletedAt = testNow.Add(-120 * time.Second)
	for name, c := range map[string]struct {
		task  Task
		cells cells.Presences
		step  EventName
		told  bool
		next  time.Duration // from now; 0: nothing is ever due
	}{
		"pending":                      {inState(Pending, false), here, "", false, 1},
		"pending for too long":         {inState(Pending, true), here, Expire, false, 0},
		"pending without cells":        {inState(Pending, true), cells.Presences{}, Expire, false, 0},
		"running":                      {inState(Running, true), here, "", false, 0},
		"cell lost":                    {inState(Running, true), lost(grace - 1), "", false, 1},
		"cell gone":                    {inState(Running, true), lost(grace), Lose, false, 0},
		"cell gone, but doubted":       {inState(Running, true), doubted, "", false, 0},
		"no cell left":                 {inState(Running, true), alone, "", false, 0},
		"no records of cells":          {inState(Running, true), cells.Presences{Known: true, Since: testNow.Add(-time.Hour)}, "", false, 0},
		"cells unknown":                {inState(Running, true), unknown, "", false, 0},
		"completed, told just now":     {told(0), here, "", false, 30 * time.Second},
		"completed, to be told soon":   {told(30*time.Second - 1), here, "", false, 1},
		"completed, to be told":        {told(30 * time.Second), here, "", true, time.Minute},
		"completed, nobody to be told": {silent, here, "", false, time.Minute},
		"completed":                    {inState(Completed, false), here, "", true, 1},
		"completed for too long":       {inState(Completed, true), here, Forget, false, 0},
		"resolving":                    {inState(Resolving, false), here, "", false, 1},
		"resolving for too long":       {inState(Resolving, true), here, Kick, true, 0},
		"kicked to be forgotten":       {longKicked, here, Kick, false, 0},
		"a state of the future":        {Task{GUID: "task", State: 9}, here, "", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Snapshot{Tasks: []Task{c.task}, Cells: c.cells, Grace: grace, Policy: DefaultPolicy()}
			var planned EventName
			for _, step := range Plan(s, testNow) {
				planned = step.Event.Name
				if step.Event.GUID != "task" || step.Why == "" {
					t.Errorf("planned %+v", step)
				}
			}
			if planned != c.step {
				t.Errorf("planned %q, want %q", planned, c.step)
			}
			told := Callbacks(s, testNow)
			if (len(told) == 1) != c.told || c.told && told[0].State != Completed {
				t.Errorf("told: %+v", told)
			}
			at, ok := Next(s, testNow)
			if ok != (c.next != 0) || ok && at.Sub(testNow) != c.next {
				t.Errorf("next in %v, %v; want %v", at.Sub(testNow), ok, c.next)
			}
		})
	}
}

// TestPlanIsOrderedAndBounded gives it more than fits.
func TestPlanIsOrderedAndBounded(t *testing.T) {
	t.Parallel()
	s := Snapshot{Policy: DefaultPolicy()}
	for i := range MaxSteps + 1 {
		task := inState(Resolving, true)
		task.GUID = GUID(fmt.Sprintf("t%05d", MaxSteps-i))
		s.Tasks = append(s.Tasks, task)
	}
	steps, told := Plan(s, testNow), Callbacks(s, testNow)
	if len(steps) != MaxSteps || len(told) != MaxSteps || steps[0].Event.GUID != "t00000" || told[1].GUID != "t00001" {
		t.Errorf("%d steps from %v, %d callbacks from %v", len(steps), steps[0].Event.GUID, len(told), told[0].GUID)
	}
}

// TestPlansAreAccepted applies plans to random worlds: every step is accepted and changes something,
// the second plan has nothing but what the kicked have outlived, and what is not known to be gone
// stays (bbs reference §20.2, "empty presence list = all cells lost").
func TestPlansAreAccepted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyWorld(t)
		before := slices.Clone(s.Tasks)
		steps := Plan(s, testNow)
		if diff := cmp.Diff(steps, Plan(s, testNow)) + cmp.Diff(before, s.Tasks); diff != "" {
			t.Fatal(diff)
		}
		kicked := map[GUID]bool{}
		for _, step := range steps {
			i := slices.IndexFunc(s.Tasks, func(t Task) bool { return t.GUID == step.Event.GUID })
			out, err := Apply(&s.Tasks[i], step.Event, s.Policy, testNow)
			if err != nil || Diff(&s.Tasks[i], out.Task) == nil {
				t.Fatalf("%+v: %v", step, err)
			}
			if cell := s.Tasks[i].Cell; step.Event.Name == Lose && (!s.Cells.Known || !s.Cells.AnyPresent() || s.Cells.Present(cell)) {
				t.Fatalf("task of %s failed, although %+v", cell, s.Cells)
			}
			kicked[step.Event.GUID] = step.Event.Name == Kick
			if out.Task == nil {
				s.Tasks = slices.Delete(s.Tasks, i, i+1)
			} else {
				s.Tasks[i] = *out.Task
			}
		}
		for _, step := range Plan(s, testNow) {
			if step.Event.Name != Forget || !kicked[step.Event.GUID] {
				t.Fatalf("planned again: %+v", step)
			}
		}
	})
}

// anyWorld draws tasks of every state and age, and any knowledge of cells.
func anyWorld(t *rapid.T) Snapshot {
	ago := func(what string) time.Duration {
		return time.Duration(rapid.SampledFrom([]int{0, 10, 15, 29, 30, 31, 119, 120, 1799, 1800, 9999}).Draw(t, what)) * time.Second
	}
	s := Snapshot{Grace: 15 * time.Second, Policy: DefaultPolicy()}
	s.Cells = cells.Presences{Known: rapid.Bool().Draw(t, "known"), Cells: map[lrp.CellID]cells.Sight{}}
	if rapid.Bool().Draw(t, "watched") {
		s.Cells.Since = testNow.Add(-ago("since"))
	}
	for _, cell := range []lrp.CellID{"a", "b"} {
		switch rapid.IntRange(0, 2).Draw(t, "cell") {
		case 0:
			s.Cells.Cells[cell] = cells.Sight{}
		case 1:
			s.Cells.Cells[cell] = cells.Sight{LostAt: testNow.Add(-ago("lost")), Doubted: rapid.Bool().Draw(t, "doubted")}
		}
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "tasks") {
		task := inState(rapid.SampledFrom([]State{Pending, Running, Completed, Resolving}).Draw(t, "state"), true)
		task.GUID = GUID(fmt.Sprint(i))
		if task.State == Running {
			task.Cell = rapid.SampledFrom([]lrp.CellID{"a", "b", "c"}).Draw(t, "on")
		}
		task.UpdatedAt = testNow.Add(-ago("updated"))
		task.CreatedAt = task.UpdatedAt.Add(-ago("created"))
		if !task.FirstCompletedAt.IsZero() {
			task.FirstCompletedAt = task.UpdatedAt.Add(-ago("completed"))
			task.CreatedAt = task.FirstCompletedAt
		}
		s.Tasks = append(s.Tasks, task)
	}
	return s
}
