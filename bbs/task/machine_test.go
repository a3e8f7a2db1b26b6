package task

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
)

// update makes the tests write the files that they otherwise compare with.
var update = flag.Bool("update", false, "rewrite golden files and docs/task.md")

// testNow is the time of every event in these tests.
var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// TestRulesPartition proves that the rules do not overlap: for every event, state, caller and
// combination of facts at most one applies. It also finds rules that never apply.
func TestRulesPartition(t *testing.T) {
	t.Parallel()
	used := make([]bool, len(rules))
	for _, on := range EventNames() {
		for _, from := range anywhere() {
			for by := Caller(1); by < Anyone; by <<= 1 {
				for facts := range allFacts + 1 {
					var covering []int
					for i, r := range rules {
						if r.covers(on, from, by, facts) {
							covering = append(covering, i)
							used[i] = true
						}
					}
					if len(covering) > 1 {
						t.Errorf("%s from %v by %v with facts %02b: rules %v overlap", on, from, by, facts, covering)
					}
				}
			}
		}
	}
	for i, ok := range used {
		if !ok {
			t.Errorf("rule %d never applies: %+v", i, rules[i])
		}
	}
}

// TestAtMostOnce reads the rules for the promise that matters most: nothing leads from RUNNING back to
// PENDING but a Reject by the cell that runs it, and nothing leads to RUNNING but a Start from PENDING.
func TestAtMostOnce(t *testing.T) {
	t.Parallel()
	for i, r := range rules {
		if r.Do == DoNothing {
			continue
		}
		if r.To == Running && (r.On != Start || !slices.Equal(r.From, in(Pending))) {
			t.Errorf("rule %d starts a task: %+v", i, r)
		}
		if r.To == Pending && r.On != Desire && !slices.Equal(r.From, in(Pending)) && (r.On != Reject || r.By != Holder) {
			t.Errorf("rule %d makes a task that may have run PENDING: %+v", i, r)
		}
	}
}

// situation is an event that meets a task.
type situation struct {
	name  string
	task  *Task
	event Event
}

// situations are all there are, as far as the rules can tell them apart.
func situations() []situation {
	var all []situation
	for _, on := range EventNames() {
		for _, old := range []bool{false, true} {
			for _, state := range anywhere() {
				if old && (state == NoTask || on != Expire && on != Kick && on != Forget) {
					continue // nothing else looks at the time: TestRulesPartition has all facts
				}
				for _, rejections := range []int32{0, 2, 3} {
					if (on != Reject || state == NoTask) && rejections != 0 {
						continue
					}
					for _, cell := range []lrp.CellID{"", "a", "b"} {
						s := meeting(on, state, old, rejections, cell)
						if needed, _ := needsOf(on); needed.cell && cell == "" {
							continue
						}
						all = append(all, s)
						if on == Complete {
							s.name, s.event.Failed = s.name+", failed", true
							all = append(all, s)
						}
					}
				}
			}
		}
	}
	return all
}

// meeting makes one situation. Cell a runs what is RUNNING; an old task has outlived its state.
func meeting(on EventName, state State, old bool, rejections int32, cell lrp.CellID) situation {
	ev := Event{Name: on, GUID: "task", Cell: cell, Reason: "because", Result: "42"}
	if on == Desire {
		wanted := valid()
		ev.Task = &wanted
	}
	by := map[lrp.CellID]string{"": "nobody", "a": "cell a", "b": "cell b"}[cell]
	if state == NoTask {
		return situation{fmt.Sprintf("%s by %s: none", on, by), nil, ev}
	}
	task := inState(state, old)
	name := fmt.Sprintf("%s by %s: %v", on, by, state)
	if old {
		name += " for too long"
	}
	if rejections > 0 {
		name += fmt.Sprintf(", rejected %d times", rejections)
		task.RejectionCount, task.RejectionReason = rejections, "earlier"
	}
	return situation{name, &task, ev}
}

// inState returns a task; an old one has outlived its state by nothing, any other lacks a nanosecond.
func inState(state State, old bool) Task {
	t, p, short := valid(), DefaultPolicy(), time.Nanosecond
	if old {
		short = 0
	}
	t.State, t.CreatedAt = state, testNow.Add(-p.ExpirePending+short)
	t.UpdatedAt = t.CreatedAt
	switch state {
	case Running:
		t.Cell = "a"
	case Completed:
		t.FirstCompletedAt = testNow.Add(-p.ExpireCompleted + short)
		t.UpdatedAt, t.Result = t.FirstCompletedAt, "done"
	case Resolving:
		t.UpdatedAt = testNow.Add(-p.Kick + short)
		t.FirstCompletedAt, t.Result = t.UpdatedAt.Add(-time.Second), "done"
	}
	return t
}

// TestEverySituation applies every event in every situation. It checks what must hold for each, and
// compares the answers with a golden file, whose difference is what a change of the rules means. It
// is the table of bbs reference §8.1, row by row.
func TestEverySituation(t *testing.T) {
	t.Parallel()
	var golden strings.Builder
	used := make([]bool, len(rules))
	for _, s := range situations() {
		var before *Task
		if s.task != nil {
			if err := s.task.Check(); err != nil {
				t.Fatalf("%s: the situation itself is broken: %v", s.name, err)
			}
			copied := *s.task
			before = &copied
		}
		out, err := Apply(s.task, s.event, DefaultPolicy(), testNow)
		if diff := cmp.Diff(before, s.task); diff != "" {
			t.Errorf("%s: Apply changed its argument:\n%s", s.name, diff)
		}
		again, errAgain := Apply(s.task, s.event, DefaultPolicy(), testNow)
		if diff := cmp.Diff(out, again) + cmp.Diff(err, errAgain); diff != "" {
			t.Errorf("%s: equal arguments, different results:\n%s", s.name, diff)
		}
		checkAnswer(t, s, out, err, used)
		fmt.Fprintf(&golden, "%s\n\t%s\n", s.name, answer(s, out, err))
	}
	for i, ok := range used {
		if !ok {
			t.Errorf("no situation uses rule %d: %+v", i, rules[i])
		}
	}
	compare(t, "testdata/machine.txt", golden.String())
}

// checkAnswer checks what must hold for every answer.
func checkAnswer(t *testing.T, s situation, out Outcome, err error, used []bool) {
	t.Helper()
	if err != nil {
		var refused *Refusal
		if !errors.As(err, &refused) || refused.Why == "" || refused.Event != s.event.Name || refused.GUID != "task" {
			t.Errorf("%s: refused with %#v", s.name, err)
		}
		if out.Task != s.task || out.ShouldStart {
			t.Errorf("%s: refused and yet changed", s.name)
		}
		return
	}
	if out.ShouldStart != (out.Task != nil && out.Task.State == Running && s.task.State == Pending) {
		t.Errorf("%s: should start is %v", s.name, out.ShouldStart)
	}
	if out.Task != nil {
		if err := out.Task.Check(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	change := Diff(s.task, out.Task)
	if change != nil && change.Before != nil && change.After != nil && s.event.Name != Kick && !change.After.UpdatedAt.Equal(testNow) {
		t.Errorf("%s: changed, but updated at %v", s.name, change.After.UpdatedAt)
	}
	for i, r := range rules {
		if !r.covers(s.event.Name, state(s.task), caller(s.task, s.event), DefaultPolicy().facts(s.task, testNow)) {
			continue
		}
		used[i] = true
		if r.Do == DoNothing != (change == nil) {
			t.Errorf("%s: rule %d does %q, but the change is %v", s.name, i, r.Do, change)
		}
		if r.Do != DoNothing && state(out.Task) != r.To {
			t.Errorf("%s: rule %d leads to %v, but says %v", s.name, i, state(out.Task), r.To)
		}
		return
	}
	t.Errorf("%s: accepted without a rule", s.name)
}

// answer writes what Apply answered.
func answer(s situation, out Outcome, err error) string {
	var refused *Refusal
	if errors.As(err, &refused) {
		return "refused " + string(refused.Why) + ": " + refused.Text()
	}
	if err != nil {
		return "error " + err.Error()
	}
	change := Diff(s.task, out.Task)
	switch {
	case change == nil:
		return "nothing"
	case change.After == nil:
		return "removed"
	}
	n := change.After
	text := n.State.String()
	if n.Cell != "" {
		text += " on " + string(n.Cell)
	}
	if n.Result != "" {
		text += fmt.Sprintf(" result=%q", n.Result)
	}
	if n.Failed {
		text += fmt.Sprintf(" failed=%q", n.FailureReason)
	}
	if n.RejectionCount > 0 {
		text += fmt.Sprintf(" rejected=%d %q", n.RejectionCount, n.RejectionReason)
	}
	if out.ShouldStart {
		text += ", should start"
	}
	if n.State == Completed && n.FirstCompletedAt.Equal(testNow) {
		text += ", ended now"
	}
	return text
}

// TestSources checks that a statement that narrows by Sources misses nothing.
func TestSources(t *testing.T) {
	t.Parallel()
	for _, s := range situations() {
		out, err := Apply(s.task, s.event, DefaultPolicy(), testNow)
		if err == nil && s.task != nil && Diff(s.task, out.Task) != nil && !slices.Contains(Sources(s.event.Name), s.task.State) {
			t.Errorf("%s changes a task, but %v is not among the sources %v", s.name, s.task.State, Sources(s.event.Name))
		}
	}
	for on, want := range map[EventName][]State{Desire: nil, Start: in(Pending), Reject: in(Pending, Running), Forget: in(Completed)} {
		if got := Sources(on); !slices.Equal(got, want) {
			t.Errorf("sources of %s = %v, want %v", on, got, want)
		}
	}
}

// valid returns a task that may be desired.
func valid() Task {
	return Task{
		GUID: "task", Domain: "domain",
		Definition: Definition{
			RootFS: "preloaded:cflinuxfs4", CompletionCallbackURL: "https://cc/done",
			Action: &lrp.Action{Run: &lrp.RunAction{Path: "true", User: "vcap"}},
		},
	}
}

// compare compares a text with a file, or writes the file.
func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s differs from what the rules say; if that is meant, run the test with -update (-file +rules):\n%s", file, diff)
	}
}
