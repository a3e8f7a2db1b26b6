package door

import (
	"slices"
	"strings"
	"testing"
	"time"

	"muster/bbs/event"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// on is a record in a state, on a cell unless it is UNCLAIMED.
func on(state lrp.State, cell lrp.CellID, change ...func(*lrp.Actual)) *lrp.Actual {
	a := &lrp.Actual{Key: lrp.Key{Slot: lrp.Slot{Process: "p"}, Domain: "d"}, State: state, Since: time.Unix(0, 42)}
	if cell != "" {
		a.InstanceKey = lrp.InstanceKey{Instance: lrp.InstanceGUID("on-" + cell), Cell: cell}
	}
	for _, f := range change {
		f(a)
	}
	return a
}

func retiring(a *lrp.Actual)   { a.Retiring = true }
func evacuating(a *lrp.Actual) { a.Presence = lrp.Evacuating }

// What a change of a record is told as, and to streams of which cells, by what the record was and is.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what          string
		before, after *lrp.Actual
		want          string // name@cell,cell …; of the streams of groups behind a bar
	}{
		{"a new slot", nil, on(lrp.Unclaimed, ""), "created@ | created@"},
		{"it cannot be placed", on(lrp.Unclaimed, ""), on(lrp.Unclaimed, ""), "changed@ | changed@,"},
		{"a cell claims it", on(lrp.Unclaimed, ""), on(lrp.Claimed, "a"), "changed@a | changed@,a"},
		{"it runs", on(lrp.Claimed, "a"), on(lrp.Running, "a"), "changed@a | changed@a,a"},
		{"another cell runs it", on(lrp.Claimed, "a"), on(lrp.Running, "b"), "changed@b | changed@a,b"},
		{"started without a record", nil, on(lrp.Running, "a"), "created@a | created@a"},
		{"it crashes and restarts", on(lrp.Running, "a"), on(lrp.Unclaimed, ""), "created@ removed@a | changed@a,"},
		{"it crashes and waits", on(lrp.Running, "a"), on(lrp.Crashed, ""), "changed@a | changed@a,"},
		{"it waited for long enough", on(lrp.Crashed, ""), on(lrp.Unclaimed, ""), "created@ removed@ | changed@,"},
		{"it is gone", on(lrp.Running, "a"), nil, "removed@a | removed@a"},
		{"it is drained", on(lrp.Running, "a"), on(lrp.Running, "a", evacuating), "changed@a | changed@a,a"},
		{"it is to be stopped", on(lrp.Running, "a"), on(lrp.Running, "a", retiring), "removed@a | removed@a"},
		{"it has news although it is to be stopped", on(lrp.Claimed, "a", retiring), on(lrp.Running, "a", retiring), " | "},
		{"it was stopped", on(lrp.Running, "a", retiring), nil, "removed@a | removed@a"},
		{"it was stopped, and its slot is free", on(lrp.Running, "a", retiring), on(lrp.Unclaimed, ""), "created@ removed@a | changed@a,"},
	} {
		names := map[kind][]string{}
		var teller teller
		for _, e := range teller.tell(event.Event{Actual: &lrp.Change{Before: tc.before, After: tc.after}}) {
			cells := make([]string, len(e.cells))
			for i, c := range e.cells {
				cells[i] = string(c)
			}
			name := strings.TrimPrefix(strings.TrimPrefix(e.name, "actual_lrp_"), "instance_")
			names[e.to] = append(names[e.to], name+"@"+strings.Join(cells, ","))
		}
		if got := strings.Join(names[instances], " ") + " | " + strings.Join(names[slots], " "); got != tc.want || names[tasks] != nil {
			t.Errorf("%s: told %q, want %q", tc.what, got, tc.want)
		}
	}
}

// A crash is told before the change that follows it, with the time that the record got, and never waits for
// longer than until the next entry of the log.
func TestCrashesAreToldWithTheirRecord(t *testing.T) {
	t.Parallel()
	at := time.Unix(0, 7)
	crash := event.Event{At: at, Crash: &lrp.CrashReport{Key: on(lrp.Running, "a").Key, By: lrp.InstanceKey{Instance: "i", Cell: "a"}, Count: 3, Reason: "r"}}
	other := on(lrp.Crashed, "")
	other.Key.Slot.Index = 1
	for _, tc := range []struct {
		what  string
		next  event.Event
		since int64
		names []string
	}{
		{"its record follows", event.Event{Actual: &lrp.Change{Before: on(lrp.Running, "a"), After: on(lrp.Crashed, "")}}, 42, []string{"actual_lrp_crashed", "actual_lrp_instance_changed", "actual_lrp_changed"}},
		{"its record is gone", event.Event{Actual: &lrp.Change{Before: on(lrp.Running, "a")}}, 7, []string{"actual_lrp_crashed", "actual_lrp_instance_removed", "actual_lrp_removed"}},
		{"another slot's record follows", event.Event{Actual: &lrp.Change{After: other}}, 7, []string{"actual_lrp_crashed", "actual_lrp_instance_created", "actual_lrp_created"}},
		{"something else follows", event.Event{Cell: &event.CellChange{}}, 7, []string{"actual_lrp_crashed"}},
		{"another crash follows", crash, 7, []string{"actual_lrp_crashed"}},
	} {
		var teller teller
		if early := teller.tell(crash); len(early) != 0 {
			t.Errorf("%s: told %v before it is known when it happened", tc.what, early)
		}
		var names []string
		list := teller.tell(tc.next)
		for _, e := range list {
			names = append(names, e.name)
		}
		if !slices.Equal(names, tc.names) {
			t.Errorf("%s: told %v, want %v", tc.what, names, tc.names)
			continue
		}
		m := list[0].payload().(*bbsv1.ActualLRPCrashedEvent)
		if m.GetSince() != tc.since || m.GetCrashCount() != 3 || m.GetCrashReason() != "r" || m.GetActualLrpInstanceKey().GetInstanceGuid() != "i" ||
			list[0].to != instances|slots || !slices.Equal(list[0].cells, []lrp.CellID{"a"}) {
			t.Errorf("%s: the crash is %v of %v to %v, want since %d", tc.what, m, list[0].cells, list[0].to, tc.since)
		}
	}
}

// Which of two instances of a slot older clients see. Written down a second time, for every pair of states.
func TestWhichInstanceOfASlotIsShown(t *testing.T) {
	t.Parallel()
	states := []lrp.State{lrp.Unclaimed, lrp.Claimed, lrp.Running, lrp.Crashed}
	ordinaryWins := map[[2]lrp.State]bool{ // ordinary, suspect; where the order of the list does not matter
		{lrp.Running, lrp.Unclaimed}: true, {lrp.Running, lrp.Claimed}: true, {lrp.Running, lrp.Running}: true, {lrp.Running, lrp.Crashed}: true,
		{lrp.Claimed, lrp.Unclaimed}: true, {lrp.Claimed, lrp.Crashed}: true,
		{lrp.Unclaimed, lrp.Claimed}: false, {lrp.Unclaimed, lrp.Running}: false, {lrp.Claimed, lrp.Claimed}: false, {lrp.Claimed, lrp.Running}: false,
		{lrp.Crashed, lrp.Claimed}: false, {lrp.Crashed, lrp.Running}: false,
	}
	for _, o := range states {
		for _, s := range states {
			ordinary := &bbsv1.ActualLRP{State: string(o)}
			suspect := &bbsv1.ActualLRP{State: string(s), Presence: bbsv1.ActualLRP_SUSPECT}
			for _, order := range [][]*bbsv1.ActualLRP{{ordinary, suspect}, {suspect, ordinary}} {
				g := &bbsv1.ActualLRPGroup{}
				for _, a := range order {
					join(g, a)
				}
				wins, known := ordinaryWins[[2]lrp.State{o, s}]
				want := order[0]
				if known {
					if want = suspect; wins {
						want = ordinary
					}
				}
				if g.Instance != want || g.Evacuating != nil {
					t.Errorf("ordinary %s, suspect %s: %v is shown, want %v", o, s, g.Instance, want)
				}
			}
		}
	}
}
