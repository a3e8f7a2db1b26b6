package converge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/cells"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func key(process lrp.ProcessGUID, index int32) lrp.Key {
	return lrp.Key{Slot: lrp.Slot{Process: process, Index: index}, Domain: testDomain(process)}
}

// testDomain puts the processes of these tests into two domains.
func testDomain(process lrp.ProcessGUID) lrp.Domain {
	if strings.HasPrefix(string(process), "stale") {
		return "stale"
	}
	return "fresh"
}

func desired(process lrp.ProcessGUID, instances int32) Desired {
	return Desired{Process: process, Domain: testDomain(process), Instances: instances}
}

// instance returns a record in a state, on cell "here" if it is on one.
func instance(process lrp.ProcessGUID, index int32, state lrp.State) *lrp.Actual {
	a := &lrp.Actual{Key: key(process, index), State: state, Since: now.Add(-time.Hour), Tag: lrp.ModificationTag{Epoch: "old"}}
	switch state {
	case lrp.Running:
		a.NetInfo.Address = "10.0.0.1"
		fallthrough
	case lrp.Claimed:
		a.InstanceKey = lrp.InstanceKey{Instance: "o", Cell: here}
	case lrp.Crashed:
		a.CrashCount = 3
	}
	return a
}

func ordinary(process lrp.ProcessGUID, index int32, state lrp.State) lrp.Group {
	return lrp.Group{Ordinary: instance(process, index, state)}
}

// on puts the ordinary instance of a group on a cell.
func on(cell lrp.CellID, g lrp.Group) lrp.Group {
	g.Ordinary.Cell = cell
	return g
}

// suspectOn adds a suspect instance on a cell to a group.
func suspectOn(cell lrp.CellID, g lrp.Group) lrp.Group {
	a := instance(slotOf(g).Process, slotOf(g).Index, lrp.Running)
	a.Presence, a.InstanceKey = lrp.Suspect, lrp.InstanceKey{Instance: "s", Cell: cell}
	g.Suspect = a
	return g
}

// evacuatingOn adds an evacuating instance on a cell to a group.
func evacuatingOn(cell lrp.CellID, g lrp.Group) lrp.Group {
	a := instance(slotOf(g).Process, slotOf(g).Index, lrp.Running)
	a.Presence, a.InstanceKey = lrp.Evacuating, lrp.InstanceKey{Instance: "e", Cell: cell}
	g.Evacuating = a
	return g
}

// without leaves out the ordinary instance.
func without(g lrp.Group) lrp.Group {
	g.Ordinary = nil
	return g
}

func changed(g lrp.Group, change func(*lrp.Actual)) lrp.Group {
	change(g.Ordinary)
	return g
}

func retiring(a *lrp.Actual) { a.Retiring = true }

// The cells of these tests.
const (
	here    lrp.CellID = "here"
	silent  lrp.CellID = "silent"  // lost for less than the grace time
	gone    lrp.CellID = "gone"    // lost for the whole of it
	doubted lrp.CellID = "doubted" // so too, but somebody still sees it
	wiped   lrp.CellID = "wiped"   // no record of it
)

const grace = 15 * time.Second

func known() cells.Presences {
	return cells.Presences{Known: true, Since: now.Add(-cells.Settle), Cells: map[lrp.CellID]cells.Sight{
		here: {}, silent: {LostAt: now.Add(1 - grace)}, gone: {LostAt: now.Add(-grace)}, doubted: {LostAt: now.Add(-grace), Doubted: true},
	}}
}

// Covers the rules of bbs reference §9.2 to §9.4 and §6.
func TestPlan(t *testing.T) {
	t.Parallel()
	running, claimed, unclaimed, crashed := lrp.Running, lrp.Claimed, lrp.Unclaimed, lrp.Crashed
	for name, tt := range map[string]struct {
		desired []Desired
		groups  []lrp.Group
		want    []string
	}{
		"a quiet world needs nothing": {
			[]Desired{desired("app", 2)}, []lrp.Group{ordinary("app", 0, running), ordinary("app", 1, unclaimed)}, nil,
		},
		"what is missing is created, even in a stale domain": {
			[]Desired{desired("stale", 1), desired("app", 2)}, []lrp.Group{ordinary("app", 1, running)},
			[]string{"create app/0", "create stale/0"},
		},
		"the right number of wrong indices is noticed": {
			[]Desired{desired("app", 1)}, []lrp.Group{ordinary("app", 5, running)},
			[]string{"create app/0", "retire app/5"},
		},
		"surplus is retired, whatever its state": {
			[]Desired{desired("app", 0)},
			[]lrp.Group{ordinary("app", 3, crashed), ordinary("app", 2, running), ordinary("app", 1, claimed), ordinary("app", 0, unclaimed)},
			[]string{"retire app/0", "retire app/1", "retire app/2", "retire app/3"},
		},
		"surplus that is retiring is left alone": {
			[]Desired{desired("app", 0)}, []lrp.Group{changed(ordinary("app", 0, running), retiring)}, nil,
		},
		"surplus of a stale domain is left alone": {
			[]Desired{desired("stale", 1)},
			[]lrp.Group{ordinary("stale", 0, running), evacuatingOn(here, suspectOn(silent, ordinary("stale", 1, running)))},
			[]string{"discard s@silent of stale/1"}, // which was replaced
		},
		"orphans are retired in fresh domains only": {
			nil, []lrp.Group{ordinary("stale", 0, running), ordinary("b", 1, running), ordinary("a", 0, crashed)},
			[]string{"retire a/0", "retire b/1"},
		},
		"what is left of orphans and surplus is wound up, on whatever cell": {
			[]Desired{desired("app", 1)},
			[]lrp.Group{without(suspectOn(silent, ordinary("gone", 0, running))), without(evacuatingOn(here, ordinary("gone", 1, running))),
				without(evacuatingOn(gone, ordinary("gone", 2, running))),
				ordinary("app", 0, running), suspectOn(here, ordinary("app", 1, unclaimed))},
			[]string{"retire app/1", "retire gone/0", "retire gone/1", "discard e@gone of gone/2"},
		},
		"a crashed instance restarts when its back-off is over": {
			[]Desired{desired("app", 3)},
			[]lrp.Group{
				changed(ordinary("app", 0, crashed), func(a *lrp.Actual) { a.Since = now.Add(-lrp.BackOff(3)) }),
				changed(ordinary("app", 1, crashed), func(a *lrp.Actual) { a.Since = now.Add(1 - lrp.BackOff(3)) }),
				changed(ordinary("app", 2, crashed), func(a *lrp.Actual) { a.CrashCount = lrp.MaxRestarts }),
			},
			[]string{"restart app/0"},
		},
		"surplus and orphans do not restart": {
			[]Desired{desired("stale", 0)}, []lrp.Group{ordinary("stale", 0, crashed), ordinary("stale-too", 0, crashed)}, nil,
		},
		"instances of a silent cell are lost": {
			[]Desired{desired("app", 4)},
			[]lrp.Group{on(silent, ordinary("app", 0, running)), on(gone, ordinary("app", 1, claimed)), on(wiped, ordinary("app", 2, running)), ordinary("app", 3, running)},
			[]string{"lose o@silent of app/0", "lose o@gone of app/1", "lose o@wiped of app/2"},
		},
		"so is the replacement of a suspect": {
			[]Desired{desired("app", 1)}, []lrp.Group{suspectOn(gone, on(silent, ordinary("app", 0, running)))},
			[]string{"lose o@silent of app/0"},
		},
		"what nobody wants is lost only if its domain is fresh, or if it is to stop": {
			[]Desired{desired("stale", 1)},
			[]lrp.Group{
				on(silent, ordinary("stale", 1, running)), on(silent, changed(ordinary("stale", 2, running), retiring)),
				on(silent, ordinary("orphan", 0, running)), on(silent, changed(ordinary("orphan", 1, running), retiring)), ordinary("stale", 0, running),
			},
			[]string{"lose o@silent of orphan/0", "lose o@silent of orphan/1", "lose o@silent of stale/2"},
		},
		"a cell that is back gets its suspects back, unless replacements run": {
			[]Desired{desired("app", 4)},
			[]lrp.Group{
				suspectOn(here, ordinary("app", 0, unclaimed)), suspectOn(here, ordinary("app", 1, claimed)),
				suspectOn(here, ordinary("app", 2, running)), suspectOn(silent, ordinary("app", 3, unclaimed)),
			},
			[]string{"return s@here of app/0", "return s@here of app/1", "discard s@here of app/2"},
		},
		"a suspect takes the place of a crashed, a missing or a lost replacement": {
			[]Desired{desired("app", 3)},
			[]lrp.Group{
				suspectOn(here, ordinary("app", 0, crashed)), without(suspectOn(here, ordinary("app", 1, running))),
				suspectOn(here, on(silent, ordinary("app", 2, running))),
			},
			[]string{"lose o@silent of app/2", "return s@here of app/0", "return s@here of app/1", "return s@here of app/2"},
		},
		"a suspect is not discarded for a replacement that is to stop": {
			[]Desired{desired("app", 2)},
			[]lrp.Group{changed(suspectOn(here, ordinary("app", 0, running)), retiring), changed(suspectOn(silent, ordinary("app", 1, running)), retiring)},
			[]string{"return s@here of app/0"},
		},
		"a slot with nothing but a suspect is missing": {
			[]Desired{desired("app", 1)}, []lrp.Group{without(suspectOn(silent, ordinary("app", 0, running)))},
			[]string{"create app/0"},
		},
		"a suspect whose replacement runs is not needed": {
			[]Desired{desired("app", 1)}, []lrp.Group{suspectOn(silent, ordinary("app", 0, running))},
			[]string{"discard s@silent of app/0"},
		},
		"evacuating records go with their cells, after the grace time and without doubt": {
			[]Desired{desired("app", 5)},
			[]lrp.Group{
				evacuatingOn(here, ordinary("app", 0, running)), evacuatingOn(silent, ordinary("app", 1, running)),
				evacuatingOn(gone, ordinary("app", 2, running)), evacuatingOn(doubted, ordinary("app", 3, running)),
				evacuatingOn(wiped, ordinary("app", 4, running)),
			},
			[]string{"discard e@gone of app/2"},
		},
		"the order is that of urgency": {
			[]Desired{desired("z", 1), desired("b", 1), desired("c", 1), desired("d", 1), desired("e", 1), desired("a", 0)},
			[]lrp.Group{
				evacuatingOn(here, ordinary("a", 0, running)), evacuatingOn(gone, ordinary("e", 0, running)), ordinary("b", 0, crashed), suspectOn(here, ordinary("c", 0, unclaimed)),
				on(silent, ordinary("d", 0, claimed)),
			},
			[]string{"lose o@silent of d/0", "return s@here of c/0", "create z/0", "restart b/0", "retire a/0", "discard e@gone of e/0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Snapshot{Desired: tt.desired, Groups: tt.groups, Fresh: []lrp.Domain{"fresh"}, Cells: known(), Grace: grace}
			steps := Plan(s, now)
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
		text := fmt.Sprintf("%s %v", s.Event.Name, s.Event.Key.Slot)
		if !s.Event.By.IsZero() {
			text = fmt.Sprintf("%s %v of %v", s.Event.Name, s.Event.By, s.Event.Key.Slot)
		}
		all = append(all, text)
	}
	return all
}

// Nothing that needs cells happens while they are not known, and nothing goes for good while none is
// there: a wiped presence store looks the same (bbs reference §20.2).
func TestUnknownCells(t *testing.T) {
	t.Parallel()
	s := Snapshot{
		Desired: []Desired{desired("app", 4)}, Fresh: []lrp.Domain{"fresh"}, Grace: grace,
		Groups: []lrp.Group{
			on(gone, ordinary("app", 0, lrp.Running)), suspectOn(here, ordinary("app", 1, lrp.Unclaimed)),
			evacuatingOn(gone, ordinary("app", 2, lrp.Unclaimed)), on(wiped, ordinary("app", 3, lrp.Running)),
		},
	}
	for name, tt := range map[string]struct {
		cells cells.Presences
		want  []string
	}{
		"not known":               {cells.Presences{Cells: known().Cells}, nil},
		"no record of any":        {cells.Presences{Known: true, Since: now.Add(-time.Hour)}, nil},
		"none is present":         {cells.Presences{Known: true, Since: now.Add(-time.Hour), Cells: map[lrp.CellID]cells.Sight{gone: {LostAt: now.Add(-time.Hour)}}}, []string{"lose o@gone of app/0"}},
		"one is present and new":  {cells.Presences{Known: true, Since: now, Cells: map[lrp.CellID]cells.Sight{here: {}}}, []string{"return s@here of app/1"}},
		"it is there for a while": {cells.Presences{Known: true, Since: now.Add(-cells.Settle), Cells: map[lrp.CellID]cells.Sight{here: {}}}, []string{"lose o@gone of app/0", "lose o@wiped of app/3", "return s@here of app/1"}},
		"one is present":          {cells.Presences{Known: true, Since: now.Add(-time.Hour), Cells: map[lrp.CellID]cells.Sight{here: {}}}, []string{"lose o@gone of app/0", "lose o@wiped of app/3", "return s@here of app/1", "discard e@gone of app/2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s
			s.Cells = tt.cells
			if diff := cmp.Diff(tt.want, texts(Plan(s, now))); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMaxSteps checks the bound, and that repeating a plan that was cut gets there.
func TestMaxSteps(t *testing.T) {
	t.Parallel()
	w := newTestWorld(Snapshot{Desired: []Desired{desired("big", MaxSteps+1), desired("app", 1)}, Fresh: []lrp.Domain{"fresh"}})
	for _, want := range []int{MaxSteps, 2, 0} {
		steps := Plan(w.snapshot(), now)
		if len(steps) != want {
			t.Fatalf("%d steps, want %d", len(steps), want)
		}
		w.apply(t, steps)
	}
}

// A planner says of each slot what a plan for everything says, in the same order, and does not ask what is
// missing.
func TestPlanner(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := worlds().Draw(t, "world")
		p := NewPlanner(Snapshot{Fresh: s.Fresh, Cells: s.Cells, Grace: s.Grace}, now)
		for _, g := range s.Groups {
			slot, one := slotOf(g), Snapshot{Groups: []lrp.Group{g}, Fresh: s.Fresh, Cells: s.Cells, Grace: s.Grace}
			var d Desired
			for _, of := range s.Desired {
				if of.Process == slot.Process {
					d, one.Desired = of, []Desired{of}
				}
			}
			want := slices.DeleteFunc(Plan(one, now), func(step Step) bool { return step.Event.Key.Slot != slot })
			if diff := cmp.Diff(want, p.Slot(g, d), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("steps for %v (-plan +planner):\n%s", slot, diff)
			}
		}
		if steps := p.Slot(lrp.Group{}, desired("app", 3)); len(steps) != 0 {
			t.Fatalf("steps for a slot without records: %v", texts(steps))
		}
	})
}

func TestNext(t *testing.T) {
	t.Parallel()
	waiting := func(process lrp.ProcessGUID, index int32, since time.Duration) lrp.Group {
		return changed(ordinary(process, index, lrp.Crashed), func(a *lrp.Actual) { a.Since = now.Add(-since) })
	}
	s := Snapshot{Desired: []Desired{desired("app", 3)}, Cells: known(), Grace: grace, Groups: []lrp.Group{
		waiting("app", 0, 10*time.Second), waiting("app", 1, 20*time.Second), waiting("app", 2, 40*time.Second), // the last is due
		waiting("app", 3, 29*time.Second), waiting("gone", 0, 29*time.Second), // not wanted
	}}
	if at, ok := Next(s, now); !ok || !at.Equal(now.Add(10*time.Second)) {
		t.Errorf("next at %v, %v; want in 10 s", at, ok)
	}
	if at, ok := Next(s, now.Add(time.Hour)); ok {
		t.Errorf("next at %v although everything is due", at)
	}
	s.Groups = append(s.Groups, evacuatingOn(silent, ordinary("app", 4, lrp.Running)), evacuatingOn(doubted, ordinary("app", 5, lrp.Running)))
	if at, ok := Next(s, now); !ok || !at.Equal(now.Add(1)) {
		t.Errorf("next at %v, %v; want when the grace time ends", at, ok)
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
		w.groups[slotOf(g)] = g
	}
	return w
}

// snapshot returns the world as it is now, in whatever order the map gives.
func (w *testWorld) snapshot() Snapshot {
	s := w.s
	s.Groups = nil
	for _, g := range w.groups {
		if slotOf(g).Process != "" {
			s.Groups = append(s.Groups, g)
		}
	}
	return s
}

func (w *testWorld) wanted(slot lrp.Slot) bool {
	return slices.ContainsFunc(w.s.Desired, func(d Desired) bool {
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

// worlds generates snapshots of a few small processes, desired or not, in either domain, on cells of
// every kind.
func worlds() *rapid.Generator[Snapshot] {
	states := rapid.SampledFrom([]lrp.State{"", lrp.Unclaimed, lrp.Claimed, lrp.Running, lrp.Crashed})
	anyCell := rapid.SampledFrom([]lrp.CellID{here, silent, gone, doubted, wiped})
	return rapid.Custom(func(t *rapid.T) Snapshot {
		s := Snapshot{Fresh: []lrp.Domain{"fresh"}, Cells: known(), Grace: grace}
		s.Cells.Since = now.Add(-time.Duration(rapid.IntRange(0, 30).Draw(t, "complete since")) * time.Second)
		for _, process := range []lrp.ProcessGUID{"stale-b", "b", "a", "stale-a"} {
			if n := rapid.Int32Range(-1, 3).Draw(t, "instances"); n >= 0 {
				s.Desired = append(s.Desired, desired(process, n))
			}
			for index := range int32(5) {
				g := ordinary(process, index, lrp.Unclaimed)
				if rapid.Bool().Draw(t, "suspect") {
					g = suspectOn(anyCell.Draw(t, "cell of the suspect"), g)
				}
				if rapid.Bool().Draw(t, "evacuating") {
					g = evacuatingOn(anyCell.Draw(t, "cell of the evacuating"), g)
				}
				switch state := states.Draw(t, "state"); state {
				case "":
					g.Ordinary = nil
				case lrp.Crashed:
					g.Ordinary = instance(process, index, state)
					g.Ordinary.CrashCount = rapid.Int32Range(3, lrp.MaxRestarts+1).Draw(t, "crashes")
					g.Ordinary.Since = now.Add(-time.Duration(rapid.IntRange(0, 1200).Draw(t, "seconds")) * time.Second)
				case lrp.Claimed, lrp.Running:
					g.Ordinary = instance(process, index, state)
					g.Ordinary.Cell = anyCell.Draw(t, "cell")
					g.Ordinary.Retiring = rapid.Bool().Draw(t, "retiring")
				}
				if slotOf(g).Process != "" {
					s.Groups = append(s.Groups, g)
				}
			}
		}
		return s
	})
}

// TestPromises checks C1 to C7 on random worlds.
func TestPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := worlds().Draw(t, "world")
		w := newTestWorld(s)
		plan := Plan(s, now)
		shuffled := s
		shuffled.Desired = rapid.Permutation(s.Desired).Draw(t, "desired")
		shuffled.Groups = rapid.Permutation(s.Groups).Draw(t, "groups")
		if diff := cmp.Diff(plan, Plan(shuffled, now)); diff != "" {
			t.Fatalf("C1: the order of the snapshot matters:\n%s", diff)
		}
		for _, step := range plan {
			checkStep(t, w, step)
		}
		if diff := cmp.Diff(plan, Plan(needy(s, plan), now)); diff != "" {
			t.Fatalf("C7: processes that need nothing matter:\n%s", diff)
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
		checkIgnorance(t, s)
	})
}

// checkStep checks C3 and C6 on a step.
func checkStep(t *rapid.T, w *testWorld, step Step) {
	ev := step.Event
	g, unwanted := w.groups[ev.Key.Slot], !w.wanted(ev.Key.Slot)
	leftover := unwanted && ev.Key.Domain == "fresh"
	if ev.Name == lrp.Retire && !leftover {
		t.Fatalf("C3: retires %v: %s", ev.Key, step.Why)
	}
	if unwanted && !leftover && ev.Name == lrp.Lose && !g.Ordinary.Retiring {
		t.Fatalf("C3: loses %v, which may be wanted: %s", ev.Key, step.Why)
	}
	if e := g.Evacuating; ev.Name == lrp.Discard && e != nil && ev.By == e.InstanceKey && !w.s.Cells.Gone(e.Cell, now, grace) {
		t.Fatalf("C6: discards %v, whose cell may be back: %s", ev.By, step.Why)
	}
	if o := g.Ordinary; ev.Name == lrp.Discard && g.Suspect != nil && ev.By == g.Suspect.InstanceKey && (leftover || o.State != lrp.Running) {
		t.Fatalf("discards the suspect %v, which nothing replaces: %s", ev.By, step.Why)
	}
}

// checkIgnorance checks what is not done without knowledge: C3 and C5.
func checkIgnorance(t *rapid.T, s Snapshot) {
	stale := s
	stale.Fresh = nil
	for _, step := range Plan(stale, now) {
		if step.Event.Name == lrp.Retire {
			t.Fatalf("C3: retires %v although nothing is known to be fresh", step.Event.Key)
		}
	}
	blind := s
	blind.Cells.Known = false
	for _, step := range Plan(blind, now) {
		if step.Event.Name == lrp.Lose || step.Event.Name == lrp.Return {
			t.Fatalf("C5: %s of %v although nothing is known of the cells", step.Event.Name, step.Event.Key)
		}
	}
}

// needy returns the processes of a snapshot that a plan is about.
func needy(s Snapshot, plan []Step) Snapshot {
	about := map[lrp.ProcessGUID]bool{}
	for _, step := range plan {
		about[step.Event.Key.Process] = true
	}
	s.Desired = slices.DeleteFunc(slices.Clone(s.Desired), func(d Desired) bool { return !about[d.Process] })
	s.Groups = slices.DeleteFunc(slices.Clone(s.Groups), func(g lrp.Group) bool { return !about[slotOf(g).Process] })
	return s
}
