package lrp

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestDiffOrder checks §11.3: what runs now is announced before what is gone.
func TestDiffOrder(t *testing.T) {
	t.Parallel()
	g := Group{
		Wanted: true, Ordinary: record(Claimed, Ordinary, alice),
		Evacuating: record(Running, Evacuating, evan), Suspect: record(Running, Suspect, susan),
	}
	after, _, err := applied(g, reportOf(Start, alice), testNow)
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{g.Ordinary, after.Ordinary}, {g.Evacuating, nil}, {g.Suspect, nil}}
	if diff := cmp.Diff(want, Diff(g, after)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	// A suspect that turns RUNNING comes first although its place is the last.
	unclaimed, suspect := record(Unclaimed, Ordinary, nobody), record(Claimed, Suspect, susan)
	before := Group{Suspect: suspect}
	then := Group{Ordinary: unclaimed, Suspect: record(Running, Suspect, susan)}
	want = []Change{{suspect, then.Suspect}, {nil, unclaimed}}
	if diff := cmp.Diff(want, Diff(before, then)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// TestDiffReplaced checks that a record that took the place of another is not reported as a change
// of it: readers would compare tags of different epochs.
func TestDiffReplaced(t *testing.T) {
	t.Parallel()
	g := Group{Wanted: true, Ordinary: record(Running, Ordinary, alice)}
	after, _, err := applied(g, reportOf(Remove, alice), testNow)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Change{{g.Ordinary, nil}, {nil, after.Ordinary}}, Diff(g, after)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// TestDiffNoticesEveryField changes each field of a record, by reflection, so that a field added
// later cannot be forgotten: a change that is not noticed is not written.
func TestDiffNoticesEveryField(t *testing.T) {
	t.Parallel()
	base := record(Running, Ordinary, alice)
	var leaves int
	walk(reflect.ValueOf(base).Elem(), "Actual", func(name string, change func(root reflect.Value)) {
		leaves++
		other := *clone(Group{Ordinary: base}).Ordinary
		change(reflect.ValueOf(&other).Elem())
		if len(Diff(Group{Ordinary: base}, Group{Ordinary: &other})) == 0 {
			t.Errorf("a change of %s is not noticed", name)
		}
	})
	if leaves < 20 {
		t.Errorf("only %d fields were tried", leaves)
	}
	if diff := Diff(Group{Ordinary: base}, clone(Group{Ordinary: base})); len(diff) != 0 {
		t.Errorf("a copy differs: %v", diff)
	}
	zone := *base
	zone.Since = base.Since.In(time.FixedZone("elsewhere", 3600))
	if diff := Diff(Group{Ordinary: base}, Group{Ordinary: &zone}); len(diff) != 0 {
		t.Errorf("the same time in another zone differs: %v", diff)
	}
}

// walk visits each leaf of a struct with a function that changes it in another value of the type.
func walk(v reflect.Value, name string, visit func(string, func(reflect.Value))) {
	var down func(v reflect.Value, name string, path []int)
	down = func(v reflect.Value, name string, path []int) {
		if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]() {
			for i := range v.NumField() {
				down(v.Field(i), name+"."+v.Type().Field(i).Name, append(path[:len(path):len(path)], i))
			}
			return
		}
		visit(name, func(root reflect.Value) { other(root.FieldByIndex(path)) })
	}
	down(v, name, nil)
}

// other sets a value to another one.
func other(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = x.Add(1)
	case *[]string:
		*x = append([]string{"other"}, *x...)
	case *[]PortMapping:
		*x = append([]PortMapping{{ContainerPort: 9}}, *x...)
	case *map[string]string:
		*x = map[string]string{"other": ""}
	case *bool:
		*x = !*x
	case **Explanation:
		*x = &Explanation{Cells: 1}
	default:
		switch {
		case v.Kind() == reflect.String:
			v.SetString(v.String() + "x")
		case v.CanInt():
			v.SetInt(v.Int() + 1)
		case v.CanUint():
			v.SetUint(v.Uint() + 1)
		default:
			panic(fmt.Sprintf("no other value of type %s", v.Type()))
		}
	}
}

// TestCheck breaks each invariant in turn.
func TestCheck(t *testing.T) {
	t.Parallel()
	for number, groups := range map[string][]func(*Group){
		"I1": {func(g *Group) { g.Ordinary.Since = time.Time{} }},
		"I2": {
			func(g *Group) { g.Ordinary = record(Unclaimed, Ordinary, nobody); g.Ordinary.InstanceKey = alice },
			func(g *Group) { g.Ordinary = record(Crashed, Ordinary, nobody); g.Ordinary.NetInfo = reported },
		},
		"I3": {
			func(g *Group) { g.Ordinary = record(Claimed, Ordinary, alice); g.Ordinary.Cell = "" },
			func(g *Group) { g.Ordinary = record(Claimed, Ordinary, alice); g.Ordinary.NetInfo = reported },
			func(g *Group) { g.Ordinary = record(Claimed, Ordinary, alice); g.Ordinary.PlacementError = "x" },
			func(g *Group) {
				g.Ordinary = record(Claimed, Ordinary, alice)
				g.Ordinary.Explanation = &Explanation{Cells: 1}
			},
		},
		"I4": {
			func(g *Group) { g.Ordinary.NetInfo.Address = "" },
			func(g *Group) { g.Ordinary.Instance = "" },
			func(g *Group) { g.Suspect.PlacementError = "x" },
		},
		"I5": {func(g *Group) { g.Ordinary = record(Unclaimed, Ordinary, nobody); g.Ordinary.Retiring = true }},
		"I6": {func(g *Group) { g.Suspect = record(Unclaimed, Suspect, nobody) }},
		"I7": {
			func(g *Group) { g.Evacuating.Index++ },
			func(g *Group) { g.Suspect.Domain = "elsewhere" },
			func(g *Group) { g.Suspect.Presence = Evacuating },
		},
		"I8": {func(g *Group) { g.Ordinary.State = "BORED" }},
	} {
		for i, breakIt := range groups {
			t.Run(fmt.Sprintf("%s %d", number, i), func(t *testing.T) {
				t.Parallel()
				g := Group{
					Ordinary: record(Running, Ordinary, alice), Evacuating: record(Running, Evacuating, evan),
					Suspect: record(Running, Suspect, susan),
				}
				if err := g.Check(); err != nil {
					t.Fatalf("before: %v", err)
				}
				breakIt(&g)
				err := g.Check()
				if err == nil || !strings.Contains(err.Error(), number+":") {
					t.Errorf("got %v, want %s", err, number)
				}
			})
		}
	}
	if err := (Group{Wanted: true}).Check(); err != nil {
		t.Errorf("an empty group: %v", err)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	ev := func(name EventName, index int32) Event {
		return Event{Name: name, Key: Key{Slot: Slot{"app", index}, Domain: "d"}}
	}
	for name, tt := range map[string]struct {
		existing []int32
		wanted   int32
		want     []Event
	}{
		"nothing to do":                     {[]int32{1, 0}, 2, nil},
		"from nothing":                      {nil, 2, []Event{ev(Create, 0), ev(Create, 1)}},
		"up":                                {[]int32{0}, 3, []Event{ev(Create, 1), ev(Create, 2)}},
		"down, by index":                    {[]int32{2, 0, 1}, 1, []Event{ev(Retire, 1), ev(Retire, 2)}},
		"to zero":                           {[]int32{0}, 0, []Event{ev(Retire, 0)}},
		"the right number of wrong indices": {[]int32{5, 7}, 2, []Event{ev(Create, 0), ev(Create, 1), ev(Retire, 5), ev(Retire, 7)}},
		"an index named twice":              {[]int32{4, 4}, 0, []Event{ev(Retire, 4)}},
		"less than nothing":                 {[]int32{0}, -3, []Event{ev(Retire, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, Resize("app", "d", tt.existing, tt.wanted)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpdateApply(t *testing.T) {
	t.Parallel()
	n, text := int32(0), ""
	d := Desired{
		Process: "app", Instances: 3, Annotation: "a", Routes: map[string][]byte{"g": []byte("[]")},
		MetricTags: map[string]MetricTag{"t": {Static: "v"}}, Tag: ModificationTag{Epoch: "e", Index: 4},
		RunInfo: RunInfo{ImageUsername: "u", ImagePassword: "p"},
	}
	for name, tt := range map[string]struct {
		u      Update
		change func(*Desired)
	}{
		"an empty update does nothing": {Update{}, func(*Desired) {}},
		"what is so already is no news": {
			Update{
				Instances: &d.Instances, Annotation: &d.Annotation, Routes: map[string][]byte{"g": []byte("[]")},
				MetricTags: map[string]MetricTag{"t": {Static: "v"}}, ImageUsername: &d.RunInfo.ImageUsername, ImagePassword: &d.RunInfo.ImagePassword,
			}, func(*Desired) {},
		},
		"other bytes of a route": {
			Update{Routes: map[string][]byte{"g": []byte("[ ]")}},
			func(d *Desired) { d.Routes = map[string][]byte{"g": []byte("[ ]")} },
		},
		"zero is a number of instances":  {Update{Instances: &n}, func(d *Desired) { d.Instances = 0 }},
		"an empty annotation is a value": {Update{Annotation: &text}, func(d *Desired) { d.Annotation = "" }},
		"empty routes clear":             {Update{Routes: map[string][]byte{}}, func(d *Desired) { d.Routes = nil }},
		"empty metric tags do not":       {Update{MetricTags: map[string]MetricTag{}}, func(*Desired) {}},
		"metric tags are replaced": {
			Update{MetricTags: map[string]MetricTag{"n": {Dynamic: TagIndex}}},
			func(d *Desired) { d.MetricTags = map[string]MetricTag{"n": {Dynamic: TagIndex}} },
		},
		"credentials": {
			Update{ImageUsername: &text, ImagePassword: &text},
			func(d *Desired) { d.RunInfo.ImageUsername, d.RunInfo.ImagePassword = "", "" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := d
			tt.change(&want)
			if !cmp.Equal(want, d) { // the tag counts what is new, and only that
				want.Tag.Index++
			}
			if diff := cmp.Diff(want, tt.u.Apply(d)); diff != "" {
				t.Errorf("desired (-want +got):\n%s", diff)
			}
		})
	}
}

// anyEvent draws an event of a slot by one of few instances, so that events meet.
func anyEvent(t *rapid.T, epoch string) Event {
	by := rapid.SampledFrom([]InstanceKey{alice, alice, bob, bob, susan, evan, nobody}).Draw(t, "by")
	ev := reportOf(rapid.SampledFrom(EventNames()).Draw(t, "on"), by)
	ev.Epoch = epoch
	ev.Routable = rapid.Bool().Draw(t, "routable")
	ev.Reason = rapid.SampledFrom([]string{"", "because", "no room"}).Draw(t, "reason")
	if rapid.IntRange(0, 19).Draw(t, "foreign") == 0 {
		ev.Key.Domain = "elsewhere"
	}
	return ev
}

// changeOfMind lets the wish for a slot change.
func changeOfMind(t *rapid.T, g *Group) {
	switch rapid.IntRange(0, 19).Draw(t, "changes mind") {
	case 0:
		g.Wanted = !g.Wanted
	case 1:
		g.Domain = rapid.SampledFrom([]Domain{"", testKey.Domain, "elsewhere"}).Draw(t, "domain")
	case 2:
		g.Strategy = 1 - g.Strategy
	}
	g.Complete = rapid.Bool().Draw(t, "complete")
}

// TestAnyHistory lets random events happen to random slots: whatever is accepted, the invariants
// hold, a wanted slot keeps an ordinary instance, and nothing that was read before changes.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SampledFrom(groups()).Draw(t, "start")
		now := testNow
		for i := range rapid.IntRange(1, 40).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Minute), int64(20*time.Minute)).Draw(t, "passes")))
			changeOfMind(t, &g)
			ev := anyEvent(t, fmt.Sprint("epoch ", i))
			before := clone(g)
			after, crashes, err := applied(g, ev, now)
			if diff := cmp.Diff(before, g); diff != "" {
				t.Fatalf("%s changed its argument:\n%s", ev.Name, diff)
			}
			if err := after.Check(); err != nil {
				t.Fatalf("after %s: %v", ev.Name, err)
			}
			if err != nil && (len(Diff(g, after)) != 0 || len(crashes) != 0) {
				t.Fatalf("%s was refused (%v) and changed %v", ev.Name, err, Diff(g, after))
			}
			if err == nil && after.Wanted && after.Ordinary == nil {
				t.Fatalf("after %s a wanted slot has no ordinary instance", ev.Name)
			}
			if len(crashes) > 1 {
				t.Fatalf("one %s reported %d crashes", ev.Name, len(crashes))
			}
			g = after
		}
	})
}

// TestHistoryFromNothing lets random events happen to a new slot, and checks what holds for every group
// that came about by events, and for the news about it: I9 to I12, that tags grow, that the count of
// crashes moves as the policy says, and that whoever only hears the changes knows the group.
func TestHistoryFromNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := Group{Wanted: rapid.Bool().Draw(t, "wanted"), Strategy: rapid.SampledFrom([]UpdateStrategy{Rolling, Recreate}).Draw(t, "strategy")}
		heard := map[string]Actual{} // by epoch
		seen := map[string]uint32{}  // the last index of each epoch
		returned := false            // an evacuating one may stay beside it for a while
		now := testNow
		for i := range rapid.IntRange(1, 60).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(7*time.Minute)).Draw(t, "passes")))
			changeOfMind(t, &g)
			ev := anyEvent(t, fmt.Sprint("epoch ", i))
			out, err := Apply(g, ev, now)
			if err != nil {
				continue
			}
			if broken := brokenTogether(out.Group); broken != "" {
				t.Fatalf("after %s by %v, from %s: %s in %s", ev.Name, ev.By, show(g), broken, show(out.Group))
			}
			returned = out.Group.Evacuating != nil && (returned || ev.Name == Return)
			if o := out.Group.Ordinary; o != nil && o.State == Running && !o.Retiring && out.Group.Evacuating != nil && !returned {
				t.Fatalf("after %s by %v: the replacement runs, and still %s", ev.Name, ev.By, show(out.Group))
			}
			for _, c := range Diff(g, out.Group) {
				if c.Before != nil {
					if known, ok := heard[c.Before.Tag.Epoch]; !ok || !same(&known, c.Before) {
						t.Fatalf("%s: told of a change of %v that nobody was told of", ev.Name, c.Before)
					}
					delete(heard, c.Before.Tag.Epoch)
				}
				if c.After != nil {
					if last, ok := seen[c.After.Tag.Epoch]; ok && c.After.Tag.Index <= last {
						t.Fatalf("%s: tag %v after index %d", ev.Name, c.After.Tag, last)
					}
					heard[c.After.Tag.Epoch], seen[c.After.Tag.Epoch] = *c.After, c.After.Tag.Index
				}
			}
			records := 0
			for _, a := range out.Group.instances() {
				if a == nil {
					continue
				}
				if known, ok := heard[a.Tag.Epoch]; !ok || !same(&known, a) {
					t.Fatalf("%s: nobody was told of %s", ev.Name, showVersion(a))
				}
				records++
			}
			if records != len(heard) {
				t.Fatalf("%s: there are %d records, but news of %d", ev.Name, records, len(heard))
			}
			checkCount(t, g, out, ev)
			g = out.Group
		}
	})
}

// brokenTogether returns the number of an invariant that the records of a group break together.
func brokenTogether(g Group) string {
	keys, epochs := map[InstanceKey]bool{}, map[string]bool{}
	for _, a := range g.instances() {
		switch {
		case a == nil:
			continue
		case !a.InstanceKey.IsZero() && keys[a.InstanceKey]:
			return "I9"
		case epochs[a.Tag.Epoch]:
			return "I10"
		}
		keys[a.InstanceKey], epochs[a.Tag.Epoch] = true, true
	}
	switch {
	case g.state() == Running && !g.Ordinary.Retiring && g.Suspect != nil:
		return "I11"
	case g.Evacuating != nil && g.Evacuating.State != Running, g.Suspect != nil && g.Suspect.Retiring:
		return "I12"
	}
	return ""
}

// checkCount checks that crashes are counted one by one, that nothing but a crash adds one, and that
// only an instance that ran for long, or a slot that is new, starts over.
func checkCount(t *rapid.T, before Group, out Outcome, ev Event) {
	t.Helper()
	a, b := out.Group.Ordinary, before.Ordinary
	if a == nil || b == nil {
		return
	}
	switch {
	case len(out.Crashes) > 0:
		if a.CrashCount != b.CrashCount+1 && a.CrashCount != 1 || out.Crashes[0].Count != a.CrashCount {
			t.Fatalf("%s: count %d after %d, reported as %d", ev.Name, a.CrashCount, b.CrashCount, out.Crashes[0].Count)
		}
	case a.Tag.Epoch == b.Tag.Epoch:
		if a.CrashCount != b.CrashCount {
			t.Fatalf("%s: count %d after %d without a crash", ev.Name, a.CrashCount, b.CrashCount)
		}
	case ev.Name == EvacuateRunning || ev.Name == Lose:
		if a.CrashCount != b.CrashCount && a.CrashCount != 0 {
			t.Fatalf("%s: a replacement of a record with count %d has count %d", ev.Name, b.CrashCount, a.CrashCount)
		}
	}
}

// What is to go, does not run, or is beyond what is wanted, is none of the instances that a process wants.
func TestServes(t *testing.T) {
	t.Parallel()
	var none *Actual
	if none.Serves(1) {
		t.Error("no record serves")
	}
	for _, tt := range []struct {
		name     string
		state    State
		retiring bool
		index    int32
		want     bool
	}{
		{"the last one that is wanted", Running, false, 1, true},
		{"one beyond that", Running, false, 2, false},
		{"one that is to stop", Running, true, 0, false},
		{"one that starts", Claimed, false, 0, false},
		{"one that nobody has", Unclaimed, false, 0, false},
		{"one that crashed", Crashed, false, 0, false},
	} {
		a := Actual{Key: Key{Slot: Slot{Index: tt.index}}, State: tt.state, Retiring: tt.retiring}
		if got := a.Serves(2); got != tt.want {
			t.Errorf("of two, %s serves: %v, want %v", tt.name, got, tt.want)
		}
	}
}
