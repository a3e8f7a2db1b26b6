package container

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func situations() []Record {
	var all []Record
	for _, s := range States {
		for _, launched := range []bool{false, true} {
			for _, res := range []Result{{}, {Stopped: true}, {Failed: true, Reason: "first"}, {Failed: true, Reason: "first", Stopped: true}} {
				r := Record{Instance: "i", State: s, Launched: launched, Routable: s == Running, Result: res}
				if Check(r) == nil {
					all = append(all, r)
				}
			}
		}
	}
	return all
}

// TestEveryTransition walks every state x event and compares the answers with the golden file.
func TestEveryTransition(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	show := func(r Record) string {
		s := string(r.State)
		if r.Launched {
			s += "+launched"
		}
		if r.Routable {
			s += "+routable"
		}
		if r.Result.Stopped {
			s += "+stopped"
		}
		if r.Result.Failed {
			s += fmt.Sprintf("+failed(%s)", r.Result.Reason)
		}
		return s
	}
	for _, r := range situations() {
		for _, name := range Events {
			after, err := Apply(r, Event{Name: name, Reason: "second", Routable: true})
			answer := show(after)
			if err != nil {
				answer = "refused"
				if !cmp.Equal(after, r) {
					t.Errorf("a refused %s changed %v", name, r)
				}
			}
			if err := Check(after); err != nil {
				t.Errorf("%s of %s: %v", name, show(r), err)
			}
			if r.Ending() && after.State == Running && (r.State != Running || after.Routable && !r.Routable) {
				t.Errorf("C7: %s of %s gave %s", name, show(r), show(after))
			}
			if r.State == Completed && err == nil {
				t.Errorf("C4: %s changed a completed container", name)
			}
			if r.Result.Failed && after.Result.Reason != r.Result.Reason || r.Result.Stopped && !after.Result.Stopped {
				t.Errorf("C5: %s of %s gave %s", name, show(r), show(after))
			}
			fmt.Fprintf(&out, "%-48s %-11s %s\n", show(r), name, answer)
		}
	}
	const golden = "testdata/transitions.txt"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("transitions differ from %s (-update writes it):\n%s", golden, diff)
	}
}

// TestRulesPartition shows that at most one row answers each event.
func TestRulesPartition(t *testing.T) {
	t.Parallel()
	for _, r := range situations() {
		for _, name := range Events {
			var rows int
			for _, row := range rules {
				if row.answers(r, name) {
					rows++
				}
			}
			if rows > 1 {
				t.Errorf("%d rows for %s from %s", rows, name, r.State)
			}
		}
	}
}

// TestAnyHistoryEnds shows that from anywhere, stopping and then exiting completes a container.
func TestAnyHistoryEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := Record{Instance: "i", State: Reserved}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			ev := Event{Name: rapid.SampledFrom(Events).Draw(t, "event"), Reason: "r", NetInfo: lrp.NetInfo{Address: "a"}}
			r, _ = Apply(r, ev)
			if err := Check(r); err != nil {
				t.Fatal(err)
			}
		}
		r, _ = Apply(r, Event{Name: Stop})
		if r.State != Completed && !r.Ending() {
			t.Fatalf("stopped, but neither completed nor ending: %+v", r)
		}
		r, _ = Apply(r, Event{Name: Exit})
		if r.State != Completed {
			t.Fatalf("not completed: %+v", r)
		}
	})
}

func TestReasons(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, got, want string }{
		{"create failed", CreateFailed(errors.New("no image")), "failed to create container: no image"},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, row.got, row.want)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, MaxReason - 1, MaxReason, MaxReason + 1, 3 * MaxReason} {
		for _, char := range []string{"a", "é"} {
			in := "BEGIN" + strings.Repeat(char, n) + "END"
			out := Cut(in)
			got := utf8.RuneCountInString(out)
			if want := min(MaxReason, n+8); got != want {
				t.Errorf("%d characters became %d, want %d", n+8, got, want)
			}
			if !strings.HasPrefix(out, "BEGIN") || !strings.HasSuffix(out, "END") || strings.Contains(out, cutMark) != (n+8 > MaxReason) {
				t.Errorf("cut of %d characters lost an end or its mark", n+8)
			}
		}
	}
}

// A program that had ended by itself when its check failed, of which the engine tells late, ended for its own
// reason; one that ends because it is told to, for that of the check.
func TestEndedBeforeItWasDoomed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		exit Event
		stop bool
		want Result
	}{
		{Event{Name: Exit, Reason: "exited with 3", ByItself: true}, false, Result{Failed: true, Reason: "exited with 3"}},
		{Event{Name: Exit, Reason: "exited with 143"}, false, Result{Failed: true, Reason: "unhealthy"}},
		{Event{Name: Exit, ByItself: true}, false, Result{Failed: true, Reason: "unhealthy"}},
		{Event{Name: Exit, Reason: "exited with 3", ByItself: true}, true, Result{Failed: true, Reason: "unhealthy", Stopped: true}},
	} {
		r := Record{Instance: "i", State: Running, Launched: true}
		events := []Event{{Name: Doom, Reason: "unhealthy"}, tt.exit}
		if tt.stop {
			events = []Event{events[0], {Name: Stop}, events[1]}
		}
		for _, ev := range events {
			var err error
			if r, err = Apply(r, ev); err != nil {
				t.Fatal(err)
			}
		}
		if r.State != Completed || r.Result != tt.want {
			t.Errorf("%+v after it was doomed: %s, %+v, want %+v", tt.exit, r.State, r.Result, tt.want)
		}
	}
}
