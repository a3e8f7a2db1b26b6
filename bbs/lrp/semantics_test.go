package lrp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// operations is the table of bbs reference §3.3, written by hand: what each operation does to a
// wanted slot without siblings. A state is the one afterwards, "-" means that nothing is written,
// anything else is the refusal. Ours differs from it where a comment says so.
const operations = `
          none              UNCLAIMED        CLAIMED/same  CLAIMED/other    RUNNING/same  RUNNING/other    CRASHED
claim     NotFound          CLAIMED          -             CannotBeClaimed  CLAIMED       CannotBeClaimed  CannotBeClaimed
start     RUNNING           RUNNING          RUNNING       RUNNING          -             CannotBeStarted  CannotBeStarted
crash     NotFound          CannotBeCrashed  UNCLAIMED     CannotBeCrashed  UNCLAIMED     CannotBeCrashed  CannotBeCrashed
remove    NotFound          NotFound         UNCLAIMED     NotFound         UNCLAIMED     NotFound         NotFound
fail      UNCLAIMED         UNCLAIMED        CannotBeFailed n/a             CannotBeFailed n/a             CannotBeFailed
retire    NotFound          UNCLAIMED        CLAIMED       n/a              RUNNING       n/a              UNCLAIMED
create    UNCLAIMED         Exists           Exists        n/a              Exists        n/a              Exists
`

// In this table a wanted slot gets a new UNCLAIMED record where Diego leaves none until it converges
// (remove, retire, and fail without a record); and retire marks the record instead of calling a cell.

func TestOperations(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(operations), "\n")
	columns := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		for i, want := range cells[1:] {
			if want == "n/a" {
				continue
			}
			state, who, _ := strings.Cut(columns[i], "/")
			g := Group{Wanted: true}
			if state != "none" {
				g.Ordinary = record(State(state), Ordinary, alice)
			}
			ev := reportOf(EventName(cells[0]), bob)
			if who == "same" {
				ev.By = alice
			}
			t.Run(fmt.Sprintf("%s from %s", cells[0], columns[i]), func(t *testing.T) {
				t.Parallel()
				after, _, err := applied(g, ev, testNow)
				if got := outcome(g, after, err); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
	}
}

// reportOf returns a complete event; a Start repeats what record holds.
func reportOf(on EventName, by InstanceKey) Event {
	ev := Event{Name: on, Key: testKey, By: by, Epoch: "new", Reason: "because"}
	if on.reports() {
		ev.NetInfo, ev.InternalRoutes, ev.MetricTags = reported, []string{"app.internal"}, map[string]string{"org": "o"}
		ev.Routable, ev.AvailabilityZone = true, "z1"
	}
	return ev
}

func outcome(before, after Group, err error) string {
	var refused *Refusal
	switch {
	case errors.As(err, &refused):
		return strings.TrimPrefix(strings.TrimPrefix(string(refused.Why), "ActualLRP"), "Resource")
	case err != nil:
		return err.Error()
	case len(Diff(before, after)) == 0:
		return "-"
	default:
		return string(after.state())
	}
}

// TestStartWithoutRecord covers a deliberate difference: Diego lets any cell insert a record for any
// slot, and converges it away later. Here a slot that nobody wants cannot be started.
func TestStartWithoutRecord(t *testing.T) {
	t.Parallel()
	_, _, err := applied(Group{}, reportOf(Start, bob), testNow)
	var refused *Refusal
	if !errors.As(err, &refused) || refused.Why != CannotBeStarted {
		t.Errorf("start of an unwanted slot without record: %v", err)
	}
	after, _, err := applied(Group{Wanted: true}, reportOf(Start, bob), testNow)
	if err != nil {
		t.Fatal(err)
	}
	want := record(Running, Ordinary, bob)
	want.Since, want.Tag, want.CrashCount, want.CrashReason = testNow, ModificationTag{Epoch: "new"}, 0, ""
	if diff := cmp.Diff(want, after.Ordinary); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

// TestStartWithoutNews checks that a repeated Start writes nothing, however empty lists are spelled,
// and that each thing it can report is news.
func TestStartWithoutNews(t *testing.T) {
	t.Parallel()
	bare := record(Running, Ordinary, alice)
	bare.InternalRoutes, bare.MetricTags, bare.NetInfo.Ports = nil, nil, nil
	ev := reportOf(Start, alice)
	ev.InternalRoutes, ev.MetricTags, ev.NetInfo.Ports = []string{}, map[string]string{}, []PortMapping{}
	g := Group{Wanted: true, Ordinary: bare}
	if after, _, err := applied(g, ev, testNow); err != nil || after.Ordinary != bare {
		t.Errorf("repeated start: %v, %v", after.Ordinary, err)
	}
	for name, change := range map[string]func(*Event){
		"address":           func(e *Event) { e.NetInfo.Address = "10.0.0.2" },
		"instance address":  func(e *Event) { e.NetInfo.InstanceAddress = "10.1.0.9" },
		"ipv6 address":      func(e *Event) { e.NetInfo.InstanceIPv6Address = "fd00::1" },
		"preferred address": func(e *Event) { e.NetInfo.Preferred = PreferHost },
		"ports":             func(e *Event) { e.NetInfo.Ports = []PortMapping{{ContainerPort: 1}} },
		"internal routes":   func(e *Event) { e.InternalRoutes = []string{"b"} },
		"metric tags":       func(e *Event) { e.MetricTags = map[string]string{"a": "b"} },
		"routable":          func(e *Event) { e.Routable = !e.Routable },
		"zone":              func(e *Event) { e.AvailabilityZone = "z2" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			news := ev
			change(&news)
			after, _, err := applied(g, news, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if len(Diff(g, after)) != 1 || !after.Ordinary.says(news) {
				t.Errorf("not written: %+v", after.Ordinary)
			}
		})
	}
}

// TestKeptAndCleared checks §3.4: which columns each event keeps and which it clears.
func TestKeptAndCleared(t *testing.T) {
	t.Parallel()
	next := func(a *Actual, change func(*Actual)) *Actual {
		n := *a
		n.Since, n.Tag = testNow, a.Tag.Next()
		change(&n)
		return &n
	}
	unclaimed, running, crashed := record(Unclaimed, Ordinary, nobody), record(Running, Ordinary, alice), record(Crashed, Ordinary, nobody)
	for name, tt := range map[string]struct {
		from *Actual
		ev   Event
		want *Actual
	}{
		"claim clears the placement error and its explanation, and keeps the crash count": {
			unclaimed, reportOf(Claim, bob),
			next(unclaimed, func(n *Actual) {
				n.State, n.InstanceKey, n.PlacementError, n.Explanation = Claimed, bob, "", nil
			}),
		},
		"claim of a running instance clears its addresses": {
			running, reportOf(Claim, alice), next(running, func(n *Actual) { n.State, n.NetInfo = Claimed, NetInfo{} }),
		},
		"fail sets the placement error only, and takes away the explanation of another": {
			unclaimed, reportOf(Fail, nobody), next(unclaimed, func(n *Actual) { n.PlacementError, n.Explanation = "because", nil }),
		},
		"crash keeps what was reported, stale until the next start": {
			running, reportOf(Crash, alice), next(running, func(n *Actual) {
				n.State, n.InstanceKey, n.NetInfo, n.CrashCount, n.CrashReason = Unclaimed, nobody, NetInfo{}, 2, "because"
			}),
		},
		"restart keeps the crash count": {
			crashed, reportOf(Restart, nobody), next(crashed, func(n *Actual) { n.State = Unclaimed }),
		},
		"retire marks": {
			running, reportOf(Retire, nobody), next(running, func(n *Actual) { n.Retiring = true }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			after, _, err := applied(Group{Wanted: true, Ordinary: tt.from}, tt.ev, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, after.Ordinary); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSameFailureIsNotRewritten covers a deliberate difference: a slot that fits nowhere keeps its
// record while the reason stays the same.
func TestSameFailureIsNotRewritten(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"no room", strings.Repeat("x", 5000)} {
		g := Group{Wanted: true, Ordinary: record(Unclaimed, Ordinary, nobody)}
		ev := reportOf(Fail, nobody)
		ev.Reason = reason
		first, _, err := applied(g, ev, testNow)
		if err != nil {
			t.Fatal(err)
		}
		second, _, err := applied(first, ev, testNow.Add(time.Hour))
		if err != nil || len(Diff(first, second)) != 0 {
			t.Errorf("the same failure changed %v (%v)", Diff(first, second), err)
		}
	}
}

// TestExplanation follows that of a placement error: it is rewritten when it says something else, kept when
// the error is repeated without one, and replaced by that of another error.
func TestExplanation(t *testing.T) {
	t.Parallel()
	full := Explanation{Cells: 3, Memory: 3, Closest: Shortfall{Cell: "c1", MemoryMB: 64}, Remedy: "64 MB of memory freed on c1"}
	fuller := full
	fuller.Closest.MemoryMB = 65
	endless := full
	endless.Remedy = strings.Repeat("ä", MaxReasonBytes)
	g := Group{Wanted: true, Ordinary: record(Unclaimed, Ordinary, nobody)}
	for _, tt := range []struct {
		name    string
		reason  string
		why     *Explanation
		changes bool
		want    *Explanation
	}{
		{"first", "no memory", &full, true, &full},
		{"the same", "no memory", &full, false, &full},
		{"another", "no memory", &fuller, true, &fuller},
		{"none", "no memory", nil, false, &fuller},
		{"one that says nothing", "no memory", &Explanation{}, false, &fuller},
		{"another error", "no disk", nil, true, nil},
		{"one that is too long", "no disk", &endless, true, explained(&endless)},
	} {
		ev := reportOf(Fail, nobody)
		ev.Reason, ev.Explanation = tt.reason, tt.why
		next, _, err := applied(g, ev, testNow)
		if err != nil {
			t.Fatal(err)
		}
		if changes := len(Diff(g, next)) > 0; changes != tt.changes {
			t.Errorf("%s: changes %v, want %v", tt.name, changes, tt.changes)
		}
		if diff := cmp.Diff(tt.want, next.Ordinary.Explanation); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		g = next
	}
	if n := len(g.Ordinary.Explanation.Remedy); n > MaxReasonBytes {
		t.Errorf("a remedy of %d bytes was stored, want at most %d", n, MaxReasonBytes)
	}
}

// TestClockRunsBack checks that Since does not, in any accepted event.
func TestClockRunsBack(t *testing.T) {
	t.Parallel()
	early := testNow.Add(-time.Hour)
	for _, s := range situations() {
		after, _, err := applied(s.group, s.event, early)
		if err != nil || after.Ordinary == nil || s.group.Ordinary == nil || after.Ordinary.Tag.Epoch != "old" {
			continue
		}
		if after.Ordinary.Since.Before(s.group.Ordinary.Since) {
			t.Errorf("%s: since went back to %v", s.name, after.Ordinary.Since)
		}
	}
}

// TestCrashPolicy follows §4: the boundaries of the count, of the state it leads to, of the back-off
// and of giving up.
func TestCrashPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		state State
		count int32
		ran   time.Duration
		want  int32
		to    State
	}{
		{"first", Running, 0, time.Second, 1, Unclaimed},
		{"second", Running, 1, time.Second, 2, Unclaimed},
		{"third waits", Running, 2, time.Second, 3, Crashed},
		{"five minutes are not enough", Running, 2, CrashResetAfter, 3, Crashed},
		{"more than five minutes start over", Running, 2, CrashResetAfter + 1, 1, Unclaimed},
		{"claimed never starts over", Claimed, 2, time.Hour, 3, Crashed},
		{"a hundred", Running, 99, time.Second, 100, Crashed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := record(tt.state, Ordinary, alice)
			a.CrashCount, a.Since = tt.count, testNow.Add(-tt.ran)
			after, crashes, err := applied(Group{Wanted: true, Ordinary: a}, reportOf(Crash, alice), testNow)
			if err != nil {
				t.Fatal(err)
			}
			if after.Ordinary.CrashCount != tt.want || after.Ordinary.State != tt.to {
				t.Errorf("count %d, %s; want %d, %s", after.Ordinary.CrashCount, after.Ordinary.State, tt.want, tt.to)
			}
			want := []CrashReport{{Key: testKey, By: alice, Count: tt.want, Reason: "because"}}
			if diff := cmp.Diff(want, crashes); diff != "" {
				t.Errorf("reports (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	for crashes, seconds := range map[int32]int{-1: 30, 0: 30, 3: 30, 4: 60, 5: 120, 6: 240, 7: 480, 8: 960, 9: 960, 199: 960} {
		if got, want := BackOff(crashes), time.Duration(seconds)*time.Second; got != want {
			t.Errorf("back-off after %d crashes = %v, want %v", crashes, got, want)
		}
	}
	a := record(Crashed, Ordinary, nobody)
	for count, want := range map[int32]bool{3: true, MaxRestarts - 1: true, MaxRestarts: false, MaxRestarts + 1: false} {
		a.CrashCount = count
		at, ok := RestartAt(*a)
		if ok != want || ok && !at.Equal(a.Since.Add(BackOff(count))) {
			t.Errorf("restart after %d crashes at %v, %v", count, at, ok)
		}
	}
	if _, ok := RestartAt(*record(Running, Ordinary, alice)); ok {
		t.Error("a running instance is to be restarted")
	}
}

// TestReasonFitsItsColumn covers §14.3 at its bounds, and what PostgreSQL refuses.
func TestReasonFitsItsColumn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"below", strings.Repeat("a", 1023), strings.Repeat("a", 1023)},
		{"at the bound", strings.Repeat("a", 1024), strings.Repeat("a", 1013) + truncated},
		{"above", strings.Repeat("a", 9999), strings.Repeat("a", 1013) + truncated},
		{"between characters", strings.Repeat("a", 1012) + strings.Repeat("€", 9), strings.Repeat("a", 1012) + truncated},
		{"after a character", strings.Repeat("a", 1010) + strings.Repeat("€", 9), strings.Repeat("a", 1010) + "€" + truncated},
		{"broken UTF-8", "a\xffb", "a\uFFFDb"},
		{"NUL", "a\x00b", "a\uFFFDb"},
		{"grows by what replaces bytes", strings.Repeat("\xff.", 511), strings.Repeat("\uFFFD.", 253) + truncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := storable(tt.in)
			if got != tt.want || len(got) > MaxReasonBytes || !utf8.ValidString(got) {
				t.Errorf("got %d bytes %q, want %d bytes %q", len(got), got, len(tt.want), tt.want)
			}
		})
	}
	a := record(Running, Ordinary, alice)
	ev := reportOf(Crash, alice)
	ev.Reason = strings.Repeat("a", 5000)
	after, crashes, err := applied(Group{Wanted: true, Ordinary: a}, ev, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Ordinary.CrashReason) != MaxReasonBytes || crashes[0].Reason != ev.Reason {
		t.Errorf("stored %d bytes, reported %d; want %d and all", len(after.Ordinary.CrashReason), len(crashes[0].Reason), MaxReasonBytes)
	}
}

// TestDesiredAgainElsewhere covers a process that was removed and desired again in another domain
// while its old instance stops: the record that takes its place belongs to the new domain, or no cell
// could ever start it.
func TestDesiredAgainElsewhere(t *testing.T) {
	t.Parallel()
	old := record(Running, Ordinary, alice)
	old.Retiring = true
	g := Group{Wanted: true, Domain: "elsewhere", Ordinary: old}
	gone := reportOf(Remove, alice)
	gone.Key.Domain = ""
	g, _, err := applied(g, gone, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if g.Ordinary.Domain != "elsewhere" || g.Ordinary.Slot != testKey.Slot {
		t.Fatalf("new record has key %+v", g.Ordinary.Key)
	}
	started := reportOf(Start, bob)
	if _, _, err := applied(g, started, testNow); err == nil {
		t.Error("a start in the old domain was accepted")
	}
	started.Key.Domain = "elsewhere"
	if g, _, err = applied(g, started, testNow); err != nil || g.Ordinary.State != Running {
		t.Errorf("start in the new domain: %v", err)
	}
	if _, _, err := applied(Group{Wanted: true, Domain: "elsewhere"}, reportOf(Start, bob), testNow); err == nil {
		t.Error("a start without record was accepted in another domain than the slot is wanted in")
	}
	// Siblings in the old domain are of the process that was removed. They go, or no record of the new one
	// could stand beside them.
	g = Group{
		Wanted: true, Domain: "elsewhere", Ordinary: old,
		Evacuating: record(Running, Evacuating, evan), Suspect: record(Running, Suspect, susan),
	}
	g, _, err = applied(g, reportOf(Crash, alice), testNow)
	if err != nil || g.Ordinary.Domain != "elsewhere" || g.Evacuating != nil || g.Suspect != nil {
		t.Errorf("new record beside old siblings: %s in %s (%v)", show(g), g.Ordinary.Domain, err)
	}
	g, _, err = applied(Group{Wanted: true, Domain: "elsewhere", Ordinary: old}, reportOf(Crash, alice), testNow)
	if err != nil || g.Ordinary.Domain != "elsewhere" {
		t.Errorf("new record after a crash has key %+v (%v)", g.Ordinary.Key, err)
	}
	// Whoever does not say where the slot is wanted gets the domain that it had.
	g, _, err = applied(Group{Wanted: true, Ordinary: old}, gone, testNow)
	if err != nil || g.Ordinary.Domain != testKey.Domain {
		t.Errorf("new record without a wish has key %+v (%v)", g.Ordinary.Key, err)
	}
}

func TestApplyToAnotherSlot(t *testing.T) {
	t.Parallel()
	ev := reportOf(Claim, bob)
	ev.Key.Index = 2
	g := Group{Ordinary: record(Unclaimed, Ordinary, nobody)}
	if after, _, err := applied(g, ev, testNow); err == nil || len(Diff(g, after)) != 0 {
		t.Errorf("an event of another slot was accepted: %v", after.Ordinary)
	}
}
