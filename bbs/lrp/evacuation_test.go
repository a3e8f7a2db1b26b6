package lrp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The cases of bbs reference §5, §6 and §11, written by hand: who is where, who says what, and what
// becomes of it. Ours differ where a comment says so.

// cast are records by their names here: the state of the ordinary one, E and S.
func cast(text string) Group {
	g := Group{Wanted: true}
	for word := range strings.FieldsSeq(text) {
		switch word {
		case "unwanted":
			g.Wanted = false
		case "E":
			g.Evacuating = record(Running, Evacuating, evan)
		case "S":
			g.Suspect = record(Running, Suspect, susan)
		case "Sclaimed":
			g.Suspect = record(Claimed, Suspect, susan)
		case "retiring":
			g.Ordinary.Retiring = true
		case "Eretiring":
			g.Evacuating = record(Running, Evacuating, evan)
			g.Evacuating.Retiring = true
		case "recreate":
			g.Strategy = Recreate
		case "complete":
			g.Complete = true
		case "none":
		default:
			g.Ordinary = record(State(word), Ordinary, alice)
		}
	}
	return g
}

// events writes what watchers are told, in order.
func events(before Group, out Outcome) []string {
	var told []string
	for _, c := range out.Crashes {
		told = append(told, fmt.Sprintf("crash of %s, %d", c.By.Instance, c.Count))
	}
	name := func(a *Actual) string { return showPlace(a) + showActual(a) }
	for _, c := range Diff(before, out.Group) {
		switch {
		case c.Before == nil:
			told = append(told, "created "+name(c.After))
		case c.After == nil:
			told = append(told, "removed "+name(c.Before))
		default:
			told = append(told, name(c.Before)+" > "+name(c.After))
		}
	}
	return told
}

func TestEvacuation(t *testing.T) {
	t.Parallel()
	const moved = "RUNNING alice > evacuating RUNNING alice"
	for _, tt := range []struct {
		on    EventName
		by    InstanceKey
		group string
		want  string // what watchers are told
		keep  bool
	}{
		// §5.1, by the place of the caller: none, evacuating, suspect, ordinary.
		{EvacuateClaimed, bob, "CLAIMED E S", "ResourceNotFound", false},
		{EvacuateClaimed, evan, "UNCLAIMED E", "removed evacuating RUNNING evan", false},
		{EvacuateClaimed, susan, "UNCLAIMED Sclaimed", "removed suspect CLAIMED susan", false},
		{EvacuateClaimed, alice, "CLAIMED", "CLAIMED alice > UNCLAIMED", false},
		{EvacuateClaimed, alice, "RUNNING", "RUNNING alice > UNCLAIMED", false},
		{EvacuateClaimed, alice, "unwanted CLAIMED", "removed CLAIMED alice", false},
		{EvacuateClaimed, alice, "CLAIMED retiring", "removed CLAIMED alice retiring; created UNCLAIMED", false},
		{EvacuateCrashed, bob, "CLAIMED", "ResourceNotFound", false},
		{EvacuateCrashed, evan, "UNCLAIMED E", "removed evacuating RUNNING evan", false},
		{EvacuateCrashed, susan, "UNCLAIMED S", "removed suspect RUNNING susan", false},
		// Diego forgets the crash event when the instance restarts at once.
		{EvacuateCrashed, alice, "RUNNING", "crash of alice, 2; RUNNING alice > UNCLAIMED", false},
		{EvacuateCrashed, alice, "RUNNING retiring", "removed RUNNING alice retiring; created UNCLAIMED", false},
		{EvacuateStopped, bob, "CLAIMED", "ResourceNotFound", false},
		{EvacuateStopped, evan, "UNCLAIMED E", "removed evacuating RUNNING evan", false},
		{EvacuateStopped, susan, "UNCLAIMED S", "removed suspect RUNNING susan", false},
		{EvacuateStopped, alice, "unwanted RUNNING", "removed RUNNING alice", false},
		{EvacuateStopped, alice, "RUNNING", "removed RUNNING alice; created UNCLAIMED", false},
		{RemoveEvacuating, bob, "UNCLAIMED E", "ResourceNotFound", false},
		{RemoveEvacuating, evan, "UNCLAIMED E", "removed evacuating RUNNING evan", false},
		{RemoveEvacuating, susan, "UNCLAIMED S", "ResourceNotFound", false},
		{RemoveEvacuating, alice, "RUNNING", "ResourceNotFound", false},

		// §5.2 rule 1: no records at all.
		{EvacuateRunning, bob, "unwanted none", "", false},
		// Rule 2: the replacement is up, or given up.
		{EvacuateRunning, evan, "RUNNING E", "removed evacuating RUNNING evan", false},
		{EvacuateRunning, evan, "CRASHED E", "removed evacuating RUNNING evan", false},
		// Diego announces that the suspect is gone and leaves its record.
		{EvacuateRunning, susan, "RUNNING S", "removed suspect RUNNING susan", false},
		{EvacuateRunning, bob, "RUNNING", "", false},
		{EvacuateRunning, bob, "RUNNING E", "", false},
		// A replacement that is to be stopped is none.
		{EvacuateRunning, evan, "RUNNING retiring E", "", true},
		// Rule 3: nobody wants it.
		{EvacuateRunning, evan, "unwanted E", "removed evacuating RUNNING evan", false},
		{EvacuateRunning, alice, "unwanted RUNNING", "RUNNING alice > RUNNING alice retiring", false},
		{EvacuateRunning, alice, "unwanted RUNNING retiring", "", false},
		{EvacuateRunning, alice, "RUNNING retiring", "", false},
		// Rule 5: it has no record, or is evacuating already.
		{EvacuateRunning, bob, "UNCLAIMED", "created evacuating RUNNING bob", true},
		{EvacuateRunning, bob, "CLAIMED", "created evacuating RUNNING bob", true},
		{EvacuateRunning, bob, "UNCLAIMED E", "", false},
		{EvacuateRunning, evan, "UNCLAIMED E", "", true},
		{EvacuateRunning, evan, "CLAIMED E", "", true},
		// Rule 6 and §5.4, the dance. A claimed instance that says that it runs has its addresses from the
		// call; Diego writes what is stored, which is none.
		{EvacuateRunning, alice, "RUNNING", moved + "; created UNCLAIMED", true},
		{EvacuateRunning, alice, "CLAIMED", "CLAIMED alice > evacuating RUNNING alice; created UNCLAIMED", true},
		{EvacuateRunning, susan, "UNCLAIMED S", "suspect RUNNING susan > evacuating RUNNING susan", true},
		{EvacuateRunning, susan, "CLAIMED Sclaimed", "suspect CLAIMED susan > evacuating RUNNING susan", true},
		// Diego overwrites the other evacuating record and tells nobody. Here the next call moves it.
		{EvacuateRunning, alice, "CLAIMED E", "CLAIMED alice > RUNNING alice; removed evacuating RUNNING evan", true},
		{EvacuateRunning, susan, "UNCLAIMED E S", "removed suspect RUNNING susan", false},
		// One that is to be stopped stands in nobody's way, and is not kept.
		{EvacuateRunning, susan, "UNCLAIMED Eretiring S", "removed evacuating RUNNING evan retiring; suspect RUNNING susan > evacuating RUNNING susan", true},
		{EvacuateRunning, evan, "UNCLAIMED Eretiring", "removed evacuating RUNNING evan retiring", false},
		{Start, evan, "UNCLAIMED Eretiring", "", false},
		// §5.3: never two instances, one slot at a time.
		{EvacuateRunning, bob, "UNCLAIMED recreate", "", false},
		{EvacuateRunning, evan, "UNCLAIMED E recreate", "removed evacuating RUNNING evan", false},
		{EvacuateRunning, susan, "UNCLAIMED S recreate", "removed suspect RUNNING susan", false},
		{EvacuateRunning, alice, "RUNNING recreate", "", true},
		{EvacuateRunning, alice, "RUNNING recreate complete", "RUNNING alice > UNCLAIMED", false},
		// Diego leaves it CLAIMED, so that it waits for itself until the evacuation times out.
		{EvacuateRunning, alice, "CLAIMED recreate", "CLAIMED alice > RUNNING alice", true},

		// The evacuated instance and others of its slot.
		{Start, bob, "UNCLAIMED E S", "UNCLAIMED > RUNNING bob; removed evacuating RUNNING evan; removed suspect RUNNING susan", false},
		{Start, evan, "CLAIMED E", "removed CLAIMED alice; evacuating RUNNING evan > RUNNING evan", false}, // drained no longer
		{Start, evan, "RUNNING E", "ActualLRPCannotBeStarted", false},
		{Claim, evan, "UNCLAIMED E", "", false},
		{Claim, bob, "UNCLAIMED E", "UNCLAIMED > CLAIMED bob", false},
		{Crash, alice, "CLAIMED E", "crash of alice, 2; CLAIMED alice > UNCLAIMED", false},
		{Crash, evan, "CLAIMED E", "removed evacuating RUNNING evan", false},
		{Remove, evan, "CLAIMED E", "removed evacuating RUNNING evan", false},

		// §6, by row.
		{Lose, alice, "RUNNING", "RUNNING alice > suspect RUNNING alice; created UNCLAIMED", false},
		{Lose, alice, "CLAIMED", "CLAIMED alice > suspect CLAIMED alice; created UNCLAIMED", false},
		{Lose, alice, "CLAIMED S", "CLAIMED alice > UNCLAIMED", false}, // the replacement's cell vanished too
		{Lose, alice, "RUNNING retiring", "removed RUNNING alice retiring; created UNCLAIMED", false},
		{Lose, alice, "unwanted RUNNING retiring", "removed RUNNING alice retiring", false},
		{Lose, alice, "unwanted RUNNING", "removed RUNNING alice", false},
		{Lose, bob, "RUNNING", "", false}, // somebody else has the slot by now
		{Lose, susan, "UNCLAIMED S", "", false},
		{Lose, evan, "UNCLAIMED E", "", false}, // Discard is its end, when its cell is surely gone
		{Fail, nobody, "UNCLAIMED S", "UNCLAIMED > UNCLAIMED", false},
		{Claim, susan, "UNCLAIMED S", "", false},
		{Start, susan, "UNCLAIMED S", "", false},
		{Start, susan, "UNCLAIMED Sclaimed", "suspect CLAIMED susan > suspect RUNNING susan", false}, // Diego: ignored
		{Start, susan, "RUNNING", "ActualLRPCannotBeStarted", false},                                 // its record is gone
		{Crash, susan, "UNCLAIMED S", "removed suspect RUNNING susan", false},
		{Remove, susan, "UNCLAIMED S", "removed suspect RUNNING susan", false}, // Diego: ResourceNotFound
		{Return, susan, "UNCLAIMED S", "removed UNCLAIMED; suspect RUNNING susan > RUNNING susan", false},
		{Return, susan, "CLAIMED S", "removed CLAIMED alice; suspect RUNNING susan > RUNNING susan", false},
		{Return, susan, "CRASHED S", "removed CRASHED due; suspect RUNNING susan > RUNNING susan", false},
		// D6: whoever runs first wins. Diego gives the slot back even then.
		{Return, susan, "RUNNING S", "removed suspect RUNNING susan", false},
		{Return, susan, "RUNNING retiring S", "removed RUNNING alice retiring; suspect RUNNING susan > RUNNING susan", false},
		{Return, susan, "unwanted S", "suspect RUNNING susan > RUNNING susan", false},
		{Return, susan, "UNCLAIMED E S", "removed UNCLAIMED; suspect RUNNING susan > RUNNING susan", false},
		{Return, alice, "RUNNING", "", false},
		{Discard, susan, "RUNNING S", "removed suspect RUNNING susan", false},
		{Discard, susan, "unwanted S", "removed suspect RUNNING susan", false},
		{Discard, susan, "UNCLAIMED S", "", false}, // the replacement that the plan saw is gone
		{Discard, evan, "UNCLAIMED E", "removed evacuating RUNNING evan", false},
		{Discard, alice, "RUNNING", "", false},
		// A slot that is not wanted any more: all of it goes, by the same event.
		{Retire, nobody, "unwanted UNCLAIMED E S", "evacuating RUNNING evan > evacuating RUNNING evan retiring; removed UNCLAIMED; removed suspect RUNNING susan", false},
		{Retire, nobody, "unwanted E", "evacuating RUNNING evan > evacuating RUNNING evan retiring", false},
		{Retire, nobody, "unwanted none", "ResourceNotFound", false},
		{Retire, nobody, "RUNNING", "RUNNING alice > RUNNING alice retiring", false},
		{Retire, nobody, "UNCLAIMED E S", "removed UNCLAIMED; created UNCLAIMED", false},
	} {
		t.Run(fmt.Sprintf("%s by %s of %s", tt.on, tt.by.Instance, tt.group), func(t *testing.T) {
			t.Parallel()
			g := cast(tt.group)
			out, err := Apply(g, reportOf(tt.on, tt.by), testNow)
			got := strings.Join(events(g, out), "; ")
			var refused *Refusal
			if errors.As(err, &refused) {
				got = string(refused.Why)
			}
			if got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if out.Keep != tt.keep {
				t.Errorf("keep %v, want %v", out.Keep, tt.keep)
			}
		})
	}
}

// TestKeepOfErrors covers the first rows of §5.1 and §5.2: what a cell is told when its request is
// invalid, or when nobody could decide.
func TestKeepOfErrors(t *testing.T) {
	t.Parallel()
	for on, want := range map[EventName]bool{
		EvacuateRunning: true, EvacuateClaimed: true, EvacuateCrashed: false, EvacuateStopped: false, RemoveEvacuating: false, Start: false,
	} {
		ev := reportOf(on, alice)
		ev.By.Cell = ""
		g := cast("RUNNING E S")
		out, err := Apply(g, ev, testNow)
		var invalid *Invalid
		if !errors.As(err, &invalid) || out.Keep != want || len(Diff(g, out.Group)) != 0 {
			t.Errorf("invalid %s: keep %v, error %v; want keep %v", on, out.Keep, err, want)
		}
		ev = reportOf(on, alice)
		ev.Key.Index++
		if out, err := Apply(g, ev, testNow); err == nil || out.Keep != want {
			t.Errorf("%s of another slot: keep %v, error %v; want keep %v", on, out.Keep, err, want)
		}
		if on.KeepUndecided() != want {
			t.Errorf("%s undecided: keep %v, want %v", on, !want, want)
		}
	}
}

// TestEvacuatedRecord checks what the records of the dance hold.
func TestEvacuatedRecord(t *testing.T) {
	t.Parallel()
	g := cast("RUNNING")
	g.Ordinary.CrashCount = 2
	ev := reportOf(EvacuateRunning, alice)
	ev.Routable, ev.AvailabilityZone = false, "z2" // Diego forgets these two
	out, err := Apply(g, ev, testNow)
	if err != nil {
		t.Fatal(err)
	}
	moved := *g.Ordinary
	moved.Presence, moved.Tag, moved.Since, moved.Routable, moved.AvailabilityZone = Evacuating, g.Ordinary.Tag.Next(), testNow, false, "z2"
	next := &Actual{Key: testKey, State: Unclaimed, Since: testNow, Tag: ModificationTag{Epoch: "new"}, CrashCount: 2, CrashReason: "exit 1"}
	if diff := cmp.Diff(Group{Wanted: true, Ordinary: next, Evacuating: &moved}, out.Group); diff != "" {
		t.Errorf("group (-want +got):\n%s", diff)
	}
	// The next call repeats what is known, and one with news writes it.
	again, err := Apply(out.Group, ev, testNow.Add(time.Minute))
	if err != nil || !again.Keep || len(Diff(out.Group, again.Group)) != 0 {
		t.Errorf("repeated: %v, keep %v, %v", err, again.Keep, Diff(out.Group, again.Group))
	}
	ev.Routable = true
	news, err := Apply(out.Group, ev, testNow.Add(time.Minute))
	if err != nil || !news.Group.Evacuating.Routable || news.Group.Evacuating.Tag != moved.Tag.Next() {
		t.Errorf("news: %v, %+v", err, news.Group.Evacuating)
	}
	// A slot whose instance ran for long starts its count over, as a crash of that instance would have.
	g.Ordinary.Since = testNow.Add(-CrashResetAfter - 1)
	if out, _ = Apply(g, ev, testNow); out.Group.Ordinary.CrashCount != 0 || out.Group.Ordinary.CrashReason != "" {
		t.Errorf("count %d after a long run", out.Group.Ordinary.CrashCount)
	}
}

// TestLoseAndReturn checks that a false alarm leaves the instance as it was: only the tag grows, so that
// readers who know records by their place believe the second move as well as the first.
func TestLoseAndReturn(t *testing.T) {
	t.Parallel()
	g := cast("RUNNING")
	was := *g.Ordinary
	for i := range 3 {
		for _, on := range []EventName{Lose, Return} {
			ev := reportOf(on, alice)
			ev.Key.Domain = "" // a plan may not know it
			ev.Epoch = fmt.Sprint(on, i)
			out, err := Apply(g, ev, testNow.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			g = out.Group
		}
	}
	// What takes the place of a lost instance goes on counting the crashes of the slot.
	if out, err := Apply(g, reportOf(Lose, alice), testNow); err != nil || out.Group.Ordinary.CrashCount != was.CrashCount {
		t.Errorf("the replacement has %+v (%v), want %d crashes", out.Group.Ordinary, err, was.CrashCount)
	}
	was.Tag.Index += 6
	if diff := cmp.Diff(Group{Wanted: true, Ordinary: &was}, g); diff != "" {
		t.Errorf("group (-want +got):\n%s", diff)
	}
}

// TestReadersByPlace checks that whoever keeps one record for each place, and believes the last news of
// it, ends with the right ones and never sees a slot without a route that has one.
func TestReadersByPlace(t *testing.T) {
	t.Parallel()
	for _, s := range situations() {
		out, err := Apply(s.group, s.event, testNow)
		if err != nil {
			continue
		}
		table := s.group.instances()
		routed := func() bool {
			return slices.ContainsFunc(table[:], func(a *Actual) bool { return a != nil && a.State == Running && !a.Retiring })
		}
		had := routed()
		gap := false
		for _, c := range Diff(s.group, out.Group) {
			if c.Before != nil && (c.After == nil || c.After.Presence != c.Before.Presence) {
				if at := &table[c.Before.Presence]; *at != nil && (*at).Tag.Epoch == c.Before.Tag.Epoch {
					*at = nil
				}
			}
			if c.After != nil {
				table[c.After.Presence] = c.After
			}
			gap = gap || !routed()
		}
		if diff := cmp.Diff(out.Group.instances(), table); diff != "" {
			t.Errorf("%s: by place (-is +known):\n%s", s.name, diff)
		}
		if had && routed() && gap {
			t.Errorf("%s: in between nothing was routed: %v", s.name, events(s.group, out))
		}
	}
}
