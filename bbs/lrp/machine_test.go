package lrp

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update makes the tests write the files that they otherwise compare with.
var update = flag.Bool("update", false, "rewrite golden files and docs/actual-lrp.md")

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
						t.Errorf("%s from %q by %v with facts %09b: rules %v overlap", on, from, by, facts, covering)
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

// TestEverySituation applies every event in every situation. It checks what must hold for each, and
// compares the answers with a golden file, whose difference is what a change of the rules means.
func TestEverySituation(t *testing.T) {
	t.Parallel()
	var rows []row
	used := make([]bool, len(rules))
	for _, s := range situations() {
		if err := s.group.Check(); err != nil {
			t.Fatalf("%s: the situation itself is broken: %v", s.name, err)
		}
		before := clone(s.group)
		out, err := Apply(s.group, s.event, testNow)
		if diff := cmp.Diff(before, s.group); diff != "" {
			t.Errorf("%s: Apply changed its argument:\n%s", s.name, diff)
		}
		again, errAgain := Apply(s.group, s.event, testNow)
		if !reflect.DeepEqual(out, again) || !reflect.DeepEqual(err, errAgain) {
			t.Errorf("%s: equal arguments, different results:\n%s", s.name, cmp.Diff(out, again)+cmp.Diff(err, errAgain))
		}
		checkAnswer(t, s, out.Group, out.Crashes, err)
		checkServed(t, s, out.Group)
		checkKeep(t, s, out, err)
		checkTold(t, s, out.Group)
		if err == nil {
			checkRule(t, s, out.Group, used)
		}
		rows = append(rows, s.row(answer(s.group, out, err)))
	}
	for i, ok := range used {
		if !ok {
			t.Errorf("no situation uses rule %d: %+v", i, rules[i])
		}
	}
	compare(t, "testdata/machine.txt", collapsed(rows))
}

// checkTold checks that a change that is taken for one that a cell told comes from its report.
func checkTold(t *testing.T, s situation, after Group) {
	t.Helper()
	for _, c := range Diff(s.group, after) {
		if c.ToldByCell() && s.event.By.Cell != c.After.Cell {
			t.Errorf("%s: taken for something that %s told", s.name, c.After.Cell)
		}
	}
}

// A claim and a start are what a cell tells; that its instance is to go is not.
func TestToldByCell(t *testing.T) {
	t.Parallel()
	retiring := record(Running, Ordinary, alice)
	retiring.Retiring = true
	for name, tc := range map[string]struct {
		before, after *Actual
		want          bool
	}{
		"a claim":               {record(Unclaimed, Ordinary, nobody), record(Claimed, Ordinary, alice), true},
		"a start":               {record(Claimed, Ordinary, alice), record(Running, Ordinary, alice), true},
		"a start of another's":  {record(Claimed, Ordinary, alice), record(Running, Ordinary, bob), false},
		"it is to go":           {record(Running, Ordinary, alice), retiring, false},
		"it need not go":        {retiring, record(Running, Ordinary, alice), false},
		"a crash":               {record(Running, Ordinary, alice), record(Crashed, Ordinary, nobody), false},
		"it is suspect":         {record(Running, Ordinary, alice), record(Running, Suspect, alice), false},
		"it is suspect no more": {record(Running, Suspect, alice), record(Running, Ordinary, alice), false},
		"it has appeared":       {nil, record(Running, Ordinary, alice), false},
		"it is gone":            {record(Running, Ordinary, alice), nil, false},
	} {
		if got := (Change{tc.before, tc.after}).ToldByCell(); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// checkServed checks that no event takes the routes of an instance away that runs while nothing better
// does: one that evacuates or is suspect goes only by its own end, or because it was replaced, is not
// wanted, or must not run beside another.
func checkServed(t *testing.T, s situation, after Group) {
	t.Helper()
	for _, a := range []*Actual{s.group.Evacuating, s.group.Suspect} {
		if a == nil || a.State != Running || a.Retiring || !s.group.Wanted || s.group.Strategy == Recreate {
			continue
		}
		if s.event.By == a.InstanceKey {
			switch s.event.Name {
			case Crash, Remove, EvacuateClaimed, EvacuateCrashed, EvacuateStopped, RemoveEvacuating, Discard:
				continue
			}
		}
		served := after.facts(Nobody, testNow)&IsSettled != 0 // CRASHED: the replacement has its own history
		for _, left := range after.instances() {
			served = served || left != nil && left.State == Running && !left.Retiring && left.Presence != Suspect
			served = served || left != nil && left.InstanceKey == a.InstanceKey
		}
		if !served {
			t.Errorf("%s: %v lost its routes and nothing runs: %s", s.name, a.InstanceKey, show(after))
		}
	}
}

// checkKeep checks what an evacuating cell is told: a container runs on exactly as long as there is a
// record for it that is not to be stopped.
func checkKeep(t *testing.T, s situation, out Outcome, err error) {
	t.Helper()
	var named *Actual
	for _, a := range out.Group.instances() {
		if a != nil && a.InstanceKey == s.event.By {
			named = a
		}
	}
	switch {
	case s.event.Name != EvacuateRunning:
		if out.Keep {
			t.Errorf("%s: the container is to be kept", s.name)
		}
	case err != nil:
		t.Errorf("%s: refused: %v", s.name, err)
	case out.Keep && named == nil && s.group.Ordinary != nil:
		t.Errorf("%s: the container is to be kept without a record", s.name)
	case named != nil && out.Keep == named.Retiring:
		t.Errorf("%s: keep is %v for %s", s.name, out.Keep, showActual(named))
	}
}

// checkAnswer checks what must hold for every answer.
func checkAnswer(t *testing.T, s situation, after Group, crashes []CrashReport, err error) {
	t.Helper()
	if err := after.Check(); err != nil {
		t.Errorf("%s: %v", s.name, err)
	}
	if after.Wanted != s.group.Wanted {
		t.Errorf("%s: Apply decided what is wanted", s.name)
	}
	if err != nil {
		var refused *Refusal
		if !errors.As(err, &refused) || refused.Why == "" || refused.Event != s.event.Name || refused.Slot != testKey.Slot {
			t.Errorf("%s: refused with %#v", s.name, err)
		}
		if len(Diff(s.group, after)) > 0 || len(crashes) > 0 {
			t.Errorf("%s: refused and yet changed", s.name)
		}
		return
	}
	if after.Wanted && after.Ordinary == nil {
		t.Errorf("%s: a wanted slot is left without ordinary instance", s.name)
	}
	epochs := map[string]bool{}
	for _, a := range after.instances() {
		if a != nil && epochs[a.Tag.Epoch] {
			t.Errorf("%s: two records have the epoch %s", s.name, a.Tag.Epoch)
		}
		if a != nil {
			epochs[a.Tag.Epoch] = true
		}
	}
	for _, c := range Diff(s.group, after) {
		checkVersion(t, s.name, c)
	}
}

// checkVersion checks that every change moves the tag as readers rely on, and Since forward: to now,
// or not at all where an instance only changed its place.
func checkVersion(t *testing.T, name string, c Change) {
	t.Helper()
	switch {
	case c.After == nil:
	case c.Before == nil:
		if c.After.Tag != (ModificationTag{Epoch: "new"}) || !c.After.Since.Equal(testNow) {
			t.Errorf("%s: created with tag %v since %v", name, c.After.Tag, c.After.Since)
		}
	default:
		if c.After.Tag != c.Before.Tag.Next() {
			t.Errorf("%s: tag went from %v to %v", name, c.Before.Tag, c.After.Tag)
		}
		if !c.Before.Tag.SucceededBy(c.After.Tag) {
			t.Errorf("%s: readers would drop %v after %v", name, c.After.Tag, c.Before.Tag)
		}
		moved := *c.Before
		moved.Presence, moved.Tag = c.After.Presence, c.After.Tag
		if same(&moved, c.After) && c.Before.Presence == c.After.Presence {
			t.Errorf("%s: the tag moved and nothing else did", name)
		}
		if !c.After.Since.Equal(testNow) && !same(&moved, c.After) {
			t.Errorf("%s: changed, but since %v", name, c.After.Since)
		}
	}
}

// checkRule checks that the rule that applied says where it leads to.
func checkRule(t *testing.T, s situation, after Group, used []bool) {
	t.Helper()
	by := s.group.caller(s.event)
	for i, r := range rules {
		if !r.covers(s.event.Name, s.group.state(), by, s.group.facts(by, testNow)) {
			continue
		}
		used[i] = true
		to := after.state()
		refilled := slices.Contains(r.To, NoInstance) && s.group.Wanted && to == Unclaimed
		if !slices.Contains(r.To, to) && !refilled {
			t.Errorf("%s: rule %d leads to %q, but says %q", s.name, i, to, r.To)
		}
		if len(r.To) == len(anywhere()) && s.group.Ordinary != nil && after.Ordinary != s.group.Ordinary {
			t.Errorf("%s: rule %d says that it leaves the ordinary record alone", s.name, i)
		}
		return
	}
	t.Errorf("%s: accepted without a rule", s.name)
}

// answer writes what Apply answered, on one line.
func answer(before Group, out Outcome, err error) string {
	var refused *Refusal
	if errors.As(err, &refused) {
		return "refused " + string(refused.Why)
	}
	if err != nil {
		return "error " + err.Error()
	}
	var parts []string
	for _, c := range out.Crashes {
		parts = append(parts, fmt.Sprintf("crash report: %s, count %d, %q", c.By, c.Count, c.Reason))
	}
	for _, c := range Diff(before, out.Group) {
		switch {
		case c.Before == nil:
			parts = append(parts, "created "+showVersion(c.After))
		case c.After == nil:
			if c.Before.Presence != Ordinary {
				parts = append(parts, "removed "+strings.TrimSpace(showPlace(c.Before)))
				continue
			}
			parts = append(parts, "removed "+showActual(c.Before))
		case c.Before.Presence != c.After.Presence:
			parts = append(parts, "moved to "+showVersion(c.After))
		default:
			parts = append(parts, "changed to "+showVersion(c.After))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing"}
	}
	if out.Keep {
		parts = append(parts, "keep")
	}
	return strings.Join(parts, "; ")
}

// TestSources checks that a statement that narrows by Sources misses nothing: whatever Apply changes
// of the ordinary record starts in one of them.
func TestSources(t *testing.T) {
	t.Parallel()
	for _, s := range situations() {
		after, _, err := applied(s.group, s.event, testNow)
		if err != nil || s.group.Ordinary == nil || same(s.group.Ordinary, after.Ordinary) {
			continue
		}
		if !slices.Contains(Sources(s.event.Name), s.group.state()) {
			t.Errorf("%s changes a record, but %q is not among the sources %q", s.name, s.group.state(), Sources(s.event.Name))
		}
	}
	if got, want := Sources(Restart), in(Crashed); !slices.Equal(got, want) {
		t.Errorf("sources of restart = %q, want %q", got, want)
	}
	if got := Sources(Create); len(got) != 0 {
		t.Errorf("sources of create = %q, want none", got)
	}
}

// clone returns a deep copy, so that a test can see what was done to the original.
func clone(g Group) Group {
	for _, place := range []**Actual{&g.Ordinary, &g.Evacuating, &g.Suspect} {
		if *place == nil {
			continue
		}
		a := **place
		a.NetInfo.Ports = slices.Clone(a.NetInfo.Ports)
		a.InternalRoutes = slices.Clone(a.InternalRoutes)
		a.MetricTags = maps.Clone(a.MetricTags)
		*place = &a
	}
	return g
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
