package converge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func key(process lrp.ProcessGUID, index int32) lrp.Key {
	return lrp.Key{Slot: lrp.Slot{Process: process, Index: index}, Domain: domainOf(process)}
}

// domainOf puts the processes of these tests into two domains.
func domainOf(process lrp.ProcessGUID) lrp.Domain {
	if strings.HasPrefix(string(process), "stale") {
		return "stale"
	}
	return "fresh"
}

func desired(process lrp.ProcessGUID, instances int32) lrp.SchedulingInfo {
	return lrp.SchedulingInfo{Process: process, Domain: domainOf(process), Instances: instances}
}

// instance returns a group with an ordinary record in a state.
func instance(process lrp.ProcessGUID, index int32, state lrp.State) lrp.Group {
	a := &lrp.Actual{Key: key(process, index), State: state, Since: now.Add(-time.Hour), Tag: lrp.ModificationTag{Epoch: "old"}}
	switch state {
	case lrp.Running:
		a.NetInfo.Address = "10.0.0.1"
		fallthrough
	case lrp.Claimed:
		a.InstanceKey = lrp.InstanceKey{Instance: "i", Cell: "c"}
	case lrp.Crashed:
		a.CrashCount = 3
	}
	return lrp.Group{Ordinary: a}
}

func changed(g lrp.Group, change func(*lrp.Actual)) lrp.Group {
	change(g.Ordinary)
	return g
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		desired []lrp.SchedulingInfo
		groups  []lrp.Group
		want    []string
	}{
		"a quiet world needs nothing": {
			[]lrp.SchedulingInfo{desired("app", 2)},
			[]lrp.Group{instance("app", 0, lrp.Running), instance("app", 1, lrp.Unclaimed)}, nil,
		},
		"what is missing is created, even in a stale domain": {
			[]lrp.SchedulingInfo{desired("stale", 1), desired("app", 2)}, []lrp.Group{instance("app", 1, lrp.Running)},
			[]string{"create app/0", "create stale/0"},
		},
		"the right number of wrong indices is noticed": {
			[]lrp.SchedulingInfo{desired("app", 1)}, []lrp.Group{instance("app", 5, lrp.Running)},
			[]string{"create app/0", "retire app/5"},
		},
		"a slot with nothing but siblings is missing": {
			[]lrp.SchedulingInfo{desired("app", 1)}, []lrp.Group{{Suspect: instance("app", 0, lrp.Running).Ordinary}},
			[]string{"create app/0"},
		},
		"surplus is retired, whatever its state": {
			[]lrp.SchedulingInfo{desired("app", 0)},
			[]lrp.Group{
				instance("app", 3, lrp.Crashed), instance("app", 2, lrp.Running), instance("app", 1, lrp.Claimed), instance("app", 0, lrp.Unclaimed),
			},
			[]string{"retire app/0", "retire app/1", "retire app/2", "retire app/3"},
		},
		"surplus that is retiring is left alone": {
			[]lrp.SchedulingInfo{desired("app", 0)},
			[]lrp.Group{changed(instance("app", 0, lrp.Running), func(a *lrp.Actual) { a.Retiring = true })}, nil,
		},
		"surplus of a stale domain is left alone": {
			[]lrp.SchedulingInfo{desired("stale", 1)}, []lrp.Group{instance("stale", 0, lrp.Running), instance("stale", 1, lrp.Running)}, nil,
		},
		"orphans are retired in fresh domains only": {
			nil, []lrp.Group{instance("stale", 0, lrp.Running), instance("b", 1, lrp.Running), instance("a", 0, lrp.Crashed)},
			[]string{"retire a/0", "retire b/1"},
		},
		"a crashed instance restarts when its back-off is over": {
			[]lrp.SchedulingInfo{desired("app", 3)},
			[]lrp.Group{
				changed(instance("app", 0, lrp.Crashed), func(a *lrp.Actual) { a.Since = now.Add(-lrp.BackOff(3)) }),
				changed(instance("app", 1, lrp.Crashed), func(a *lrp.Actual) { a.Since = now.Add(1 - lrp.BackOff(3)) }),
				changed(instance("app", 2, lrp.Crashed), func(a *lrp.Actual) { a.CrashCount = lrp.MaxRestarts }),
			},
			[]string{"restart app/0"},
		},
		"surplus and orphans do not restart": {
			[]lrp.SchedulingInfo{desired("stale", 0)}, []lrp.Group{instance("stale", 0, lrp.Crashed), instance("stale-too", 0, lrp.Crashed)}, nil,
		},
		"first what is missing, then what may restart, then what is too much": {
			[]lrp.SchedulingInfo{desired("z", 1), desired("b", 1), desired("a", 0)},
			[]lrp.Group{instance("a", 0, lrp.Running), instance("b", 0, lrp.Crashed)},
			[]string{"create z/0", "restart b/0", "retire a/0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := Plan(Snapshot{tt.desired, tt.groups, []lrp.Domain{"fresh"}}, now)
			if diff := cmp.Diff(tt.want, texts(steps)); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			for _, s := range steps {
				if s.Why == "" || s.Event.Key.Domain == "" {
					t.Errorf("step without reason or domain: %+v", s)
				}
			}
		})
	}
}

func texts(steps []Step) []string {
	var all []string
	for _, s := range steps {
		all = append(all, fmt.Sprintf("%s %v", s.Event.Name, s.Event.Key.Slot))
	}
	return all
}

// TestMaxSteps checks the bound, and that repeating a plan that was cut gets there.
func TestMaxSteps(t *testing.T) {
	t.Parallel()
	w := newTestWorld(Snapshot{Desired: []lrp.SchedulingInfo{desired("big", MaxSteps+1), desired("app", 1)}, Fresh: []lrp.Domain{"fresh"}})
	for _, want := range []int{MaxSteps, 2, 0} {
		steps := Plan(w.snapshot(), now)
		if len(steps) != want {
			t.Fatalf("%d steps, want %d", len(steps), want)
		}
		w.apply(t, steps)
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	waiting := func(process lrp.ProcessGUID, index int32, since time.Duration) lrp.Group {
		return changed(instance(process, index, lrp.Crashed), func(a *lrp.Actual) { a.Since = now.Add(-since) })
	}
	s := Snapshot{Desired: []lrp.SchedulingInfo{desired("app", 3)}, Groups: []lrp.Group{
		waiting("app", 0, 10*time.Second), waiting("app", 1, 20*time.Second), waiting("app", 2, 40*time.Second), // the last is due
		waiting("app", 3, 29*time.Second), waiting("gone", 0, 29*time.Second), // not wanted
	}}
	if at, ok := Next(s, now); !ok || !at.Equal(now.Add(10*time.Second)) {
		t.Errorf("next at %v, %v; want in 10 s", at, ok)
	}
	if at, ok := Next(s, now.Add(time.Hour)); ok {
		t.Errorf("next at %v although everything is due", at)
	}
}

// testWorld is a store: what is desired, and a group for each slot.
type testWorld struct {
	s      Snapshot
	groups map[lrp.Slot]lrp.Group
}

func newTestWorld(s Snapshot) *testWorld {
	w := &testWorld{s: s, groups: map[lrp.Slot]lrp.Group{}}
	for _, g := range s.Groups {
		w.groups[g.Ordinary.Slot] = g
	}
	return w
}

// snapshot returns the world as it is now, in whatever order the map gives.
func (w *testWorld) snapshot() Snapshot {
	s := Snapshot{Desired: w.s.Desired, Fresh: w.s.Fresh}
	for _, g := range w.groups {
		s.Groups = append(s.Groups, g)
	}
	return s
}

func (w *testWorld) wanted(slot lrp.Slot) bool {
	return slices.ContainsFunc(w.s.Desired, func(d lrp.SchedulingInfo) bool {
		return d.Process == slot.Process && slot.Index < d.Instances
	})
}

// apply does what the store does with a plan. Every step must be accepted (C4) and change something.
func (w *testWorld) apply(t interface{ Fatalf(string, ...any) }, steps []Step) {
	for _, s := range steps {
		slot := s.Event.Key.Slot
		g := w.groups[slot]
		g.Wanted = w.wanted(slot)
		s.Event.Epoch = "new"
		out, err := lrp.Apply(g, s.Event, now)
		if err != nil {
			t.Fatalf("%s of %v (%s): %v", s.Event.Name, slot, s.Why, err)
		}
		if len(lrp.Diff(g, out.Group)) == 0 {
			t.Fatalf("%s of %v (%s) changed nothing", s.Event.Name, slot, s.Why)
		}
		w.groups[slot] = out.Group
	}
}

// worlds generates snapshots of a few small processes, desired or not, in either domain.
func worlds() *rapid.Generator[Snapshot] {
	states := []lrp.State{lrp.Unclaimed, lrp.Claimed, lrp.Running, lrp.Crashed}
	return rapid.Custom(func(t *rapid.T) Snapshot {
		s := Snapshot{Fresh: []lrp.Domain{"fresh"}}
		for _, process := range []lrp.ProcessGUID{"stale-b", "b", "a", "stale-a"} {
			if n := rapid.Int32Range(-1, 3).Draw(t, "instances"); n >= 0 {
				s.Desired = append(s.Desired, desired(process, n))
			}
			for index := range int32(5) {
				if rapid.Bool().Draw(t, "absent") {
					continue
				}
				g := instance(process, index, rapid.SampledFrom(states).Draw(t, "state"))
				switch a := g.Ordinary; a.State {
				case lrp.Crashed:
					a.CrashCount = rapid.Int32Range(3, lrp.MaxRestarts+1).Draw(t, "crashes")
					a.Since = now.Add(-time.Duration(rapid.IntRange(0, 1200).Draw(t, "seconds")) * time.Second)
				case lrp.Claimed, lrp.Running:
					a.Retiring = rapid.Bool().Draw(t, "retiring")
				}
				s.Groups = append(s.Groups, g)
			}
		}
		return s
	})
}

// TestPromises checks C1 to C4 on random worlds.
func TestPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := worlds().Draw(t, "world")
		w := newTestWorld(s)
		plan := Plan(s, now)
		shuffled := Snapshot{
			Desired: rapid.Permutation(s.Desired).Draw(t, "desired"), Groups: rapid.Permutation(s.Groups).Draw(t, "groups"), Fresh: s.Fresh,
		}
		if diff := cmp.Diff(plan, Plan(shuffled, now)); diff != "" {
			t.Fatalf("C1: the order of the snapshot matters:\n%s", diff)
		}
		for _, step := range plan {
			if step.Event.Name == lrp.Retire && (step.Event.Key.Domain != "fresh" || w.wanted(step.Event.Key.Slot)) {
				t.Fatalf("C3: retires %v: %s", step.Event.Key, step.Why)
			}
		}
		w.apply(t, plan)
		if again := Plan(w.snapshot(), now); len(again) != 0 {
			t.Fatalf("C2: planned again after %v: %v", texts(plan), texts(again))
		}
		for _, d := range s.Desired {
			for index := range d.Instances {
				if w.groups[lrp.Slot{Process: d.Process, Index: index}].Ordinary == nil {
					t.Fatalf("%s/%d is desired and has no record", d.Process, index)
				}
			}
		}
		s.Fresh = nil
		for _, step := range Plan(s, now) {
			if step.Event.Name == lrp.Retire {
				t.Fatalf("C3: retires %v although nothing is known to be fresh", step.Event.Key)
			}
		}
	})
}
