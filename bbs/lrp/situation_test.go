package lrp

import (
	"fmt"
	"time"
)

// testNow is the moment at which the situations of these tests are.
var testNow = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// The cast: who may hold or ask for the one slot of these tests.
var (
	testKey  = Key{Slot: Slot{Process: "app", Index: 1}, Domain: "cf-apps"}
	alice    = InstanceKey{Instance: "alice", Cell: "cell-a"} // holds the slot
	bob      = InstanceKey{Instance: "bob", Cell: "cell-b"}   // is a stranger
	susan    = InstanceKey{Instance: "susan", Cell: "cell-s"} // is suspect
	evan     = InstanceKey{Instance: "evan", Cell: "cell-e"}  // is evacuating
	stray    = InstanceKey{Instance: "stray", Cell: "cell-x"} // has no record
	nobody   = InstanceKey{}
	reported = NetInfo{Address: "10.0.0.1", InstanceAddress: "10.1.0.1", Ports: []PortMapping{{ContainerPort: 8080, HostPort: 61001}}}
)

// epochs are those of the records there are, by presence: no two records have the same.
var epochs = map[Presence]string{Ordinary: "old", Evacuating: "old-e", Suspect: "old-s"}

// record returns a record of the slot that obeys every invariant.
func record(state State, presence Presence, by InstanceKey) *Actual {
	a := &Actual{
		Key: testKey, State: state, Presence: presence, Since: testNow.Add(-time.Minute),
		Tag: ModificationTag{Epoch: epochs[presence], Index: 7}, CrashCount: 1, CrashReason: "exit 1",
		InternalRoutes: []string{"app.internal"}, MetricTags: map[string]string{"org": "o"}, Routable: true, AvailabilityZone: "z1",
	}
	switch state {
	case Running:
		a.InstanceKey, a.NetInfo = by, reported
	case Claimed:
		a.InstanceKey = by
	case Unclaimed:
		a.PlacementError, a.Explanation = "no room", &Explanation{Cells: 1, Memory: 1}
	case Crashed:
		a.CrashCount = 3
	}
	return a
}

// situation is one group with one event: a point of the space that the rules divide.
type situation struct {
	name  string
	group Group
	event Event
}

// situations walks the whole space: every event, state, mark, caller, wish, strategy and combination of
// siblings. Small enough to look at each, and to write the answers down.
func situations() []situation {
	var all []situation
	for _, on := range EventNames() {
		for _, g := range groups() {
			for _, how := range manners(on) {
				g.Strategy, g.Complete = how.strategy, how.complete
				for _, by := range callers(on, g) {
					ev := reportOf(on, by.key)
					if by.readinessLost {
						ev.Routable = false
					}
					if by.foreign {
						ev.Key.Domain = "elsewhere"
					}
					all = append(all, situation{fmt.Sprintf("%s by %s: %s%s", on, by.name, show(g), how.name), g, ev})
				}
			}
		}
	}
	return all
}

// manner is how a process wants its instances replaced.
type manner struct {
	name     string
	strategy UpdateStrategy
	complete bool
}

// manners are those that make a difference to an event.
func manners(on EventName) []manner {
	if on != EvacuateRunning {
		return []manner{{}}
	}
	return []manner{{}, {" (recreate)", Recreate, false}, {" (recreate, complete)", Recreate, true}}
}

// groups are all that there can be, as far as the rules tell them apart. Some never come about.
func groups() []Group {
	stopping := record(Running, Evacuating, evan)
	stopping.Retiring = true
	var all []Group
	for _, wanted := range []bool{true, false} {
		for _, ordinary := range ordinaries() {
			for _, evacuating := range []*Actual{nil, record(Running, Evacuating, evan), stopping} {
				for _, suspect := range []*Actual{nil, record(Running, Suspect, susan), record(Claimed, Suspect, susan)} {
					all = append(all, Group{Wanted: wanted, Ordinary: ordinary, Evacuating: evacuating, Suspect: suspect})
				}
			}
		}
	}
	return all
}

// ordinaries are the ordinary instances there can be: none, each state, retiring and not, and for
// CRASHED before and after the back-off.
func ordinaries() []*Actual {
	retiring := func(a *Actual) *Actual { a.Retiring = true; return a }
	resting := record(Crashed, Ordinary, nobody)
	resting.Since = testNow.Add(-BackOff(resting.CrashCount) + time.Nanosecond)
	return []*Actual{
		nil, record(Unclaimed, Ordinary, nobody),
		record(Claimed, Ordinary, alice), retiring(record(Claimed, Ordinary, alice)),
		record(Running, Ordinary, alice), retiring(record(Running, Ordinary, alice)),
		record(Crashed, Ordinary, nobody), resting,
	}
}

type namedCaller struct {
	name          string
	key           InstanceKey
	foreign       bool // names another domain
	readinessLost bool // reports something new
}

// callers are those whom an event could name, as far as the rules tell them apart.
func callers(on EventName, g Group) []namedCaller {
	switch on {
	case Create, Fail, Retire, Restart:
		return []namedCaller{{name: "nobody"}}
	}
	all := []namedCaller{{name: "stranger", key: bob}}
	if g.Ordinary != nil && !g.Ordinary.InstanceKey.IsZero() {
		all = append(all, namedCaller{name: "holder", key: alice})
		if on == Start {
			all = append(all, namedCaller{name: "holder with news", key: alice, readinessLost: true})
		}
	}
	if g.Suspect != nil {
		all = append(all, namedCaller{name: "suspect", key: susan})
	}
	if g.Evacuating != nil {
		all = append(all, namedCaller{name: "evacuating", key: evan})
	}
	if on == Remove {
		all = append(all, namedCaller{name: "nobody"})
	}
	if on.reports() {
		all = append(all, namedCaller{name: "stranger of another domain", key: bob, foreign: true})
	}
	return all
}

// show writes a group on one line: only what the rules look at.
func show(g Group) string {
	text := "unwanted"
	if g.Wanted {
		text = "wanted"
	}
	if g.Ordinary == nil {
		text += " | none"
	} else {
		text += " | " + showActual(g.Ordinary)
	}
	if g.Evacuating != nil {
		text += " + evacuating " + showActual(g.Evacuating)
	}
	if g.Suspect != nil {
		text += " + suspect " + showActual(g.Suspect)
	}
	return text
}

func showActual(a *Actual) string {
	text := string(a.State)
	if !a.InstanceKey.IsZero() {
		text += " " + string(a.Instance)
	}
	if a.Retiring {
		text += " retiring"
	}
	if at, ok := RestartAt(*a); ok {
		if testNow.Before(at) {
			text += " resting"
		} else {
			text += " due"
		}
	}
	return text
}

// showVersion adds what a change did to the rest of the record.
func showVersion(a *Actual) string {
	text := fmt.Sprintf("%s%s %s#%d crashes=%d", showPlace(a), showActual(a), a.Tag.Epoch, a.Tag.Index, a.CrashCount)
	if a.PlacementError != "" {
		text += fmt.Sprintf(" error=%q", a.PlacementError)
	}
	if a.NetInfo.Address != "" {
		text += " at=" + a.NetInfo.Address
	}
	if a.State == Running && !a.Routable {
		text += " unroutable"
	}
	return text
}

// showPlace names the place of a record, unless it is the usual one.
func showPlace(a *Actual) string {
	return map[Presence]string{Ordinary: "", Evacuating: "evacuating ", Suspect: "suspect "}[a.Presence]
}

// applied is Apply, for tests of what becomes of the group.
func applied(g Group, ev Event, now time.Time) (Group, []CrashReport, error) {
	out, err := Apply(g, ev, now)
	return out.Group, out.Crashes, err
}
