package lrp

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
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
						t.Errorf("%s from %q by %v with facts %03b: rules %v overlap", on, from, by, facts, covering)
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
	var golden strings.Builder
	used := make([]bool, len(rules))
	for _, s := range situations() {
		if err := s.group.Check(); err != nil {
			t.Fatalf("%s: the situation itself is broken: %v", s.name, err)
		}
		before := clone(s.group)
		after, crashes, err := applied(s.group, s.event, testNow)
		if diff := cmp.Diff(before, s.group); diff != "" {
			t.Errorf("%s: Apply changed its argument:\n%s", s.name, diff)
		}
		again, crashesAgain, errAgain := applied(s.group, s.event, testNow)
		if diff := cmp.Diff(after, again) + cmp.Diff(crashes, crashesAgain) + cmp.Diff(err, errAgain); diff != "" {
			t.Errorf("%s: equal arguments, different results:\n%s", s.name, diff)
		}
		checkAnswer(t, s, after, crashes, err)
		if err == nil {
			checkRule(t, s, after, used)
		}
		fmt.Fprintf(&golden, "%s\n", s.name)
		for _, line := range answer(s.group, after, crashes, err) {
			fmt.Fprintf(&golden, "\t%s\n", line)
		}
	}
	for i, ok := range used {
		if !ok {
			t.Errorf("no situation uses rule %d: %+v", i, rules[i])
		}
	}
	compare(t, "testdata/machine.txt", golden.String())
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
	for _, c := range Diff(s.group, after) {
		checkVersion(t, s.name, c)
	}
}

// checkVersion checks that every change moves the tag as readers rely on, and Since forward.
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
		if c.After.Since.Before(c.Before.Since) {
			t.Errorf("%s: since went back", name)
		}
	}
}

// checkRule checks that the rule that applied says where it leads to.
func checkRule(t *testing.T, s situation, after Group, used []bool) {
	t.Helper()
	for i, r := range rules {
		if !r.covers(s.event.Name, s.group.state(), s.group.caller(s.event), s.group.facts(testNow)) {
			continue
		}
		used[i] = true
		to := after.state()
		refilled := slices.Contains(r.To, NoInstance) && s.group.Wanted && to == Unclaimed
		if !slices.Contains(r.To, to) && !refilled {
			t.Errorf("%s: rule %d leads to %q, but says %q", s.name, i, to, r.To)
		}
		return
	}
	t.Errorf("%s: accepted without a rule", s.name)
}

// answer writes what Apply answered.
func answer(before, after Group, crashes []CrashReport, err error) []string {
	var refused *Refusal
	if errors.As(err, &refused) {
		return []string{"refused " + string(refused.Why)}
	}
	if err != nil {
		return []string{"error " + err.Error()}
	}
	var lines []string
	for _, c := range crashes {
		lines = append(lines, fmt.Sprintf("crash report: %s, count %d, %q", c.By, c.Count, c.Reason))
	}
	for _, c := range Diff(before, after) {
		switch {
		case c.Before == nil:
			lines = append(lines, "created "+showVersion(c.After))
		case c.After == nil:
			lines = append(lines, "removed "+showVersion(c.Before))
		default:
			lines = append(lines, "changed to "+showVersion(c.After))
		}
	}
	if len(lines) == 0 {
		return []string{"nothing"}
	}
	return lines
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
