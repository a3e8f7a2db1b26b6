package auction

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"muster/bbs/lrp"
	"muster/cells"
)

// linux is what the cells of the examples offer.
func linux() map[string]cells.Provider {
	return map[string]cells.Provider{"preloaded": {Names: []string{"linux"}}}
}

// on returns an instance that is on a cell already.
func on(process string, index, mb int32) cells.Instance {
	return cells.Instance{
		Key: lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(process), Index: index}, Domain: "auction"}, State: cells.InstanceRunning,
		Resources: cells.Resources{MemoryMB: mb, DiskMB: mb, Containers: 1}, RootFS: "preloaded:linux",
	}
}

func want(process string, index, mb int32) Work { return Work{Instance: on(process, index, mb)} }

func taskOf(guid string, mb int32) Work {
	i := on(guid, 0, mb)
	return Work{Task: &cells.Task{Key: cells.TaskKey{GUID: cells.TaskGUID(guid), Domain: i.Key.Domain}, Resources: i.Resources, RootFS: i.RootFS}}
}

func fleetOf(t *testing.T, w Weights, states ...cells.State) *Fleet {
	t.Helper()
	f := New(w)
	for _, s := range states {
		must(t, f.Set(s))
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// label is how the tests write a piece of work.
func label(w *Work) string {
	if w.Task != nil {
		return string(w.Task.Key.GUID)
	}
	return w.Key.Slot.String()
}

// placed lists what was placed, in the order of decision.
func placed(r Result) []string {
	var all []string
	for _, p := range r.Placed {
		all = append(all, label(p.Work))
	}
	return all
}

func cellOf(id, zone string, total cells.Resources, there ...cells.Instance) cells.State {
	s := cells.State{
		Presence:  cells.Presence{Cell: lrp.CellID(id), Zone: zone, Capacity: total, RootFSProviders: linux()},
		Available: total, Instances: there,
	}
	for _, i := range there {
		s.Available = s.Available.Sub(i.Resources)
	}
	return s
}

var hundred = cells.Resources{MemoryMB: 100, DiskMB: 100, Containers: 100}

func baseL() []cells.State {
	return []cells.State{
		cellOf("A", "zA", hundred, on("pg-1", 0, 10), on("pg-2", 0, 10)),
		cellOf("B", "zB", hundred, on("pg-3", 0, 10)),
	}
}

func baseT() []cells.State {
	states := baseL()
	states[0].VolumeDrivers, states[1].VolumeDrivers = []string{"d1", "d2"}, []string{"d3"}
	return states
}

// outcome prints a result as slot=cell or slot=reason, in the order of decision within each list.
func outcome(r Result) map[string]string {
	m := map[string]string{}
	for _, p := range r.Placed {
		m[label(p.Work)] = string(p.Cell)
	}
	for _, f := range r.Refused {
		m[label(f.Work)] = f.Reason
	}
	return m
}

func check(t *testing.T, r Result, want map[string]string) {
	t.Helper()
	got := outcome(r)
	if len(got) != len(want) {
		t.Errorf("%d answers, want %d: %v", len(got), len(want), got)
	}
	for slot, w := range want {
		if got[slot] != w {
			t.Errorf("%s: %q, want %q", slot, got[slot], w)
		}
	}
}

func TestTagAlgebra(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		required, optional, wanted []string
		match                      bool
	}{
		{nil, nil, nil, true},
		{nil, nil, []string{"a"}, false},
		{[]string{"a"}, nil, nil, false},
		{[]string{"a"}, nil, []string{"a"}, true},
		{[]string{"a", "b"}, nil, []string{"a"}, false},
		{nil, []string{"a"}, nil, true},
		{nil, []string{"a"}, []string{"a"}, true},
		{[]string{"a"}, []string{"b"}, []string{"a"}, true},
		{[]string{"a"}, []string{"b"}, []string{"b"}, false},
		{[]string{"a"}, []string{"b"}, []string{"a", "b"}, true},
		{[]string{"a"}, []string{"b"}, []string{"a", "b", "c"}, false},
		{[]string{"a"}, nil, []string{"A"}, false},
	} {
		o := offers{required: tt.required, optional: tt.optional}
		if got := o.accepts(tt.wanted); got != tt.match {
			t.Errorf("required %q, optional %q, wanted %q: %v", tt.required, tt.optional, tt.wanted, got)
		}
	}
}

func TestRootFSMatch(t *testing.T) {
	t.Parallel()
	o := offers{providers: map[string]cells.Provider{
		"preloaded": {Names: []string{"cflinuxfs4"}}, "preloaded+layer": {Names: []string{"cflinuxfs4"}}, "docker": {},
	}}
	for url, match := range map[string]bool{
		"preloaded:cflinuxfs4":               true,
		"preloaded://cflinuxfs4":             false,
		"preloaded:windows":                  false,
		"preloaded+layer:cflinuxfs4?layer=x": true,
		"docker:///library/busybox#latest":   true,
		"docker://registry.example/a/b#v1":   true,
		"oci-layout:///images/a":             false,
		"://":                                false,
		"":                                   false,
		"cflinuxfs4":                         false,
		"preloaded:cflinuxfs4%zz":            true, // opaque parts are not decoded; the name differs below
	} {
		c := constraintOf(url, nil, nil)
		want := match
		if url == "preloaded:cflinuxfs4%zz" {
			want = false
		}
		if got := o.rootFS(&c); got != want {
			t.Errorf("%q: %v", url, got)
		}
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	tagged := func(tags ...string) Work {
		w := want("p", 0, 1)
		w.PlacementTags = tags
		return w
	}
	isolated := cellOf("A", "z", hundred)
	isolated.PlacementTags = []string{"iso"}
	other := cellOf("C", "z2", hundred)
	other.RootFSProviders = map[string]cells.Provider{"preloaded": {Names: []string{"other"}}}
	driver := want("p", 0, 1)
	driver.VolumeDrivers = []string{"d9"}
	evacuating := cellOf("E", "z", hundred)
	evacuating.Evacuating = true
	sick := cellOf("S", "z", hundred)
	sick.UnhealthyReason = "containerd does not answer"
	for name, tt := range map[string]struct {
		work  Work
		cells []cells.State
		want  string
	}{
		"no cell":                           {want("p", 0, 1), nil, "unable to communicate to compatible cells"},
		"only cells that take no work":      {want("p", 0, 1), []cells.State{evacuating, sick}, "unable to communicate to compatible cells"},
		"no tags":                           {want("p", 0, 1), []cells.State{isolated}, "found no compatible cell with no placement tags"},
		"an empty tag":                      {tagged(""), []cells.State{isolated}, `found no compatible cell with placement tag ""`},
		"one tag":                           {tagged("a"), []cells.State{isolated}, `found no compatible cell with placement tag "a"`},
		"two tags":                          {tagged("a", "b"), []cells.State{isolated}, `found no compatible cell with placement tags "a" and "b"`},
		"three tags in their order":         {tagged("c", "b", "a"), []cells.State{isolated}, `found no compatible cell with placement tags "c", "b" and "a"`},
		"tags came further than rootfs":     {want("p", 0, 1), []cells.State{other, isolated}, "found no compatible cell with no placement tags"},
		"drivers came further than rootfs":  {driver, []cells.State{other, cellOf("B", "z", hundred)}, "found no compatible cell with required volume drivers"},
		"rootfs":                            {want("p", 0, 1), []cells.State{other}, "found no compatible cell for required rootfs"},
		"all three resources, alphabetical": {want("p", 0, 200), []cells.State{cellOf("A", "z", cells.Resources{MemoryMB: 1, DiskMB: 1})}, "insufficient resources: containers, disk, memory"},
		"no resource short everywhere": {want("p", 0, 50), []cells.State{
			cellOf("A", "z", cells.Resources{MemoryMB: 1, DiskMB: 100, Containers: 1}), cellOf("B", "z2", cells.Resources{MemoryMB: 100, DiskMB: 1, Containers: 1}),
		}, "insufficient resources"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := Run([]Work{tt.work}, tt.cells, Weights{})
			check(t, r, map[string]string{"p/0": tt.want})
			slices.Reverse(tt.cells)
			check(t, Run([]Work{tt.work}, tt.cells, Weights{}), map[string]string{"p/0": tt.want})
		})
	}
}

// TestWorkedScores holds the worked numbers of the reference, within the roundings down to units of 2^-30.
func TestWorkedScores(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		available cells.Resources
		starting  int32
		same      int
		proxy     int32
		position  int
		request   int32
		binPack   float64
		tasks     int
		task      bool
		want      float64
		short     bool
	}{
		"empty cell":         {available: hundred, request: 10, want: 0.07},
		"two starting":       {available: hundred, starting: 2, request: 10, want: 0.57},
		"half full":          {available: cells.Resources{MemoryMB: 50, DiskMB: 50, Containers: 50}, request: 1, want: 0.51},
		"same app twice":     {available: cells.Resources{MemoryMB: 50, DiskMB: 50, Containers: 50}, starting: 1, same: 2, request: 1, want: 2000.76},
		"proxy":              {available: hundred, proxy: 5, request: 10, want: 0.26 / 3},
		"fourth in its zone": {available: hundred, position: 3, binPack: 0.25, request: 1, want: 0.76},
		"task":               {available: hundred, tasks: 2, task: true, request: 10, want: 2000.07},
		"task, no proxy":     {available: hundred, proxy: 5, task: true, request: 10, want: 0.07},
		"no memory":          {available: cells.Resources{DiskMB: 100, Containers: 100}, request: 1, short: true},
		"exact fit":          {available: cells.Resources{MemoryMB: 10, DiskMB: 10, Containers: 1}, request: 10, want: 1},
		"proxy does not fit": {available: cells.Resources{MemoryMB: 14, DiskMB: 100, Containers: 1}, proxy: 5, request: 10, short: true},
		"proxy fits exactly": {available: cells.Resources{MemoryMB: 15, DiskMB: 100, Containers: 100}, proxy: 5, request: 10, want: (1 + 0.1 + 0.01) / 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cells.State{
				Presence:  cells.Presence{Cell: "A", Capacity: hundred, RootFSProviders: linux()},
				Available: tt.available, StartingContainers: tt.starting, ProxyMemoryAllocationMB: tt.proxy,
			}
			for i := range tt.same {
				s.Instances = append(s.Instances, on("p", int32(i+1), 0))
			}
			for range tt.tasks {
				s.Tasks = append(s.Tasks, cells.Task{})
			}
			f := New(Weights{Starting: 0.25, BinPack: tt.binPack})
			for i := range tt.position { // cells before it in its zone, without room
				must(t, f.Set(cellOf(fmt.Sprintf("before-%d", i), "", cells.Resources{MemoryMB: 1, DiskMB: 1, Containers: 1}, on("other", 0, 1))))
			}
			s.Index = 1
			must(t, f.Set(s))
			w := want("p", 0, tt.request)
			if tt.task {
				w = taskOf("p", tt.request)
			}
			placed, refused := f.Place([]Work{w})
			if tt.short {
				if len(refused) != 1 || refused[0].Explanation.Reason != "insufficient resources: memory" {
					t.Fatalf("%+v", refused)
				}
				return
			}
			if len(placed) != 1 || placed[0].Score > tt.want+1e-12 || placed[0].Score < tt.want-1e-8 {
				t.Errorf("%+v, want a score of %v", placed, tt.want)
			}
		})
	}
}

// TestAbsurdNumbers: nothing a cell or a client claims breaks the arithmetic.
func TestAbsurdNumbers(t *testing.T) {
	t.Parallel()
	nothing := cellOf("A", "z", cells.Resources{}) // totals of 0, yet it says there is room
	nothing.Available = hundred
	negative := cellOf("B", "z", cells.Resources{MemoryMB: -5, DiskMB: -5, Containers: -5})
	negative.Available, negative.StartingContainers = hundred, -1000
	sane := cellOf("C", "z", hundred)
	check(t, Run([]Work{want("p", 0, 1)}, []cells.State{nothing, negative, sane}, Weights{Starting: 0.25}), map[string]string{"p/0": "C"})

	huge := want("p", 0, math.MaxInt32)
	proxied := cellOf("A", "z", cells.Resources{MemoryMB: math.MaxInt32, DiskMB: math.MaxInt32, Containers: 1})
	proxied.ProxyMemoryAllocationMB = math.MaxInt32
	check(t, Run([]Work{huge}, []cells.State{proxied}, Weights{}), map[string]string{"p/0": "insufficient resources: memory"})
}

// The U numbers are those of the unit scenarios in the reference.
func TestScenarios(t *testing.T) {
	t.Parallel()
	t.Run("U1 index 0, tasks, then index and size", func(t *testing.T) {
		t.Parallel()
		work := []Work{want("pg-8", 2, 40), want("pg-7", 1, 10), taskOf("tg-1", 10), taskOf("tg-2", 20), want("pg-8", 1, 40), want("pg-7", 0, 10)}
		for memory, wanted := range map[int32][]string{
			10: {"pg-7/0"}, 45: {"pg-7/0", "tg-2", "tg-1"}, 80: {"pg-7/0", "tg-2", "tg-1", "pg-8/1"},
			95: {"pg-7/0", "tg-2", "tg-1", "pg-8/1", "pg-7/1"}, 130: {"pg-7/0", "tg-2", "tg-1", "pg-8/1", "pg-7/1", "pg-8/2"},
		} {
			r := Run(work, []cells.State{cellOf("A", "z", cells.Resources{MemoryMB: memory, DiskMB: 1000, Containers: 1000})}, Weights{})
			if got := placed(r); !slices.Equal(got, wanted) {
				t.Errorf("%d MB: %v, want %v", memory, got, wanted)
			}
		}
	})
	t.Run("U1b the largest task first", func(t *testing.T) {
		t.Parallel()
		r := Run([]Work{taskOf("10", 10), taskOf("20", 20), taskOf("30", 30)}, []cells.State{cellOf("A", "z", cells.Resources{MemoryMB: 31, DiskMB: 1000, Containers: 1000})}, Weights{})
		if got := placed(r); !slices.Equal(got, []string{"30"}) {
			t.Errorf("placed %v", got)
		}
	})
	t.Run("index 0 comes before tasks also when nothing has a higher index", func(t *testing.T) {
		t.Parallel()
		r := Run([]Work{taskOf("t", 10), want("p", 0, 1)}, baseL(), Weights{})
		if got := placed(r); !slices.Equal(got, []string{"p/0", "t"}) {
			t.Errorf("placed %v", got)
		}
	})
	const limit = "waiting to start instance: reached in-flight start limit"
	t.Run("U3 start limit counts both kinds", func(t *testing.T) {
		t.Parallel()
		states := baseL()
		states[0].StartingContainers, states[1].StartingContainers = 1, 1
		r := Run([]Work{want("pg-7", 0, 10), want("pg-7", 1, 10), taskOf("tg-1", 10), taskOf("tg-2", 10)}, states, Weights{MaxStarting: 5})
		if got := placed(r); !slices.Equal(got, []string{"pg-7/0", "tg-1", "tg-2"}) || len(r.Refused) != 1 || r.Refused[0].Reason != limit {
			t.Errorf("%v", outcome(r))
		}
		if x := r.Refused[0]; x.Starting != 5 || x.MaxStarting != 5 || x.Remedy != "raise the start limit or wait: 5 of 5 are starting" {
			t.Errorf("%+v", x.Explanation)
		}
	})
	limited := []Work{want("pg-7", 0, 10), want("pg-7", 1, 10), want("pg-8", 1, 40), want("pg-8", 2, 40), want("pg-9", 0, 40)}
	t.Run("U4 start limit keeps the order", func(t *testing.T) {
		t.Parallel()
		r := Run(limited, baseL(), Weights{MaxStarting: 3})
		if got := placed(r); !slices.Equal(got, []string{"pg-9/0", "pg-7/0", "pg-8/1"}) || len(r.Refused) != 2 {
			t.Errorf("placed %v, refused %d", got, len(r.Refused))
		}
	})
	t.Run("U5 a limit below zero is none", func(t *testing.T) {
		t.Parallel()
		if r := Run(limited, baseL(), Weights{MaxStarting: -3}); len(r.Placed) != 5 {
			t.Errorf("placed %v", outcome(r))
		}
	})
	t.Run("U6 start limit of tasks", func(t *testing.T) {
		t.Parallel()
		r := Run([]Work{taskOf("1", 10), taskOf("2", 10), taskOf("3", 10), taskOf("4", 10)}, baseT(), Weights{MaxStarting: 2})
		if got := outcome(r); len(r.Placed) != 2 || got["3"] != limit || got["4"] != limit {
			t.Errorf("%v", got)
		}
	})
	t.Run("U7 zone balance before load", func(t *testing.T) {
		t.Parallel()
		check(t, Run([]Work{want("pg-3", 1, 10)}, baseL(), Weights{}), map[string]string{"pg-3/1": "A"})
	})
	t.Run("U8 a new app goes to the lower score", func(t *testing.T) {
		t.Parallel()
		check(t, Run([]Work{want("pg-4", 1, 10)}, baseL(), Weights{}), map[string]string{"pg-4/1": "B"})
	})
	t.Run("U9 rootfs in one zone only", func(t *testing.T) {
		t.Parallel()
		c := cellOf("C", "zC", hundred)
		c.RootFSProviders = map[string]cells.Provider{"preloaded": {Names: []string{"other"}}}
		w := want("pg-4", 0, 10)
		w.RootFS = "preloaded:other"
		check(t, Run([]Work{w}, append(baseL(), c), Weights{}), map[string]string{"pg-4/0": "C"})
	})
	t.Run("U10 tags", func(t *testing.T) {
		t.Parallel()
		tagged := func(id, zone string, required, optional []string) cells.State {
			s := cellOf(id, zone, hundred, on("pg-5", 0, 10))
			s.PlacementTags, s.OptionalPlacementTags = required, optional
			return s
		}
		states := []cells.State{
			tagged("c11", "z1", []string{"quack", "moo"}, []string{"chirp"}), tagged("c12", "z1", nil, nil),
			tagged("c21", "z2", []string{"quack"}, []string{"chirp", "baa"}), tagged("c22", "z2", []string{"quack", "moo", "oink"}, nil),
		}
		for cell, tags := range map[string][]string{
			"c11": {"moo", "quack"}, "c21": {"quack", "chirp"},
			`found no compatible cell with placement tags "oink" and "kakaaaaa"`: {"oink", "kakaaaaa"},
		} {
			w := want("pg-5", 1, 10)
			w.PlacementTags = tags
			check(t, Run([]Work{w}, states, Weights{}), map[string]string{"pg-5/1": cell})
		}
	})
	t.Run("U11 drivers", func(t *testing.T) {
		t.Parallel()
		states := baseL()
		states[0].VolumeDrivers, states[1].VolumeDrivers = []string{"d1", "d2"}, []string{"d3"}
		w := want("p", 0, 10)
		w.VolumeDrivers = []string{"d1", "d3"}
		check(t, Run([]Work{w}, states, Weights{}), map[string]string{"p/0": "found no compatible cell with required volume drivers"})
		w.VolumeDrivers = []string{"d1", "d2"}
		check(t, Run([]Work{w}, states, Weights{}), map[string]string{"p/0": "A"})
	})
	t.Run("U12 to U14 no room", func(t *testing.T) {
		t.Parallel()
		w := want("p", 0, 1000)
		check(t, Run([]Work{w}, baseL(), Weights{}), map[string]string{"p/0": "insufficient resources: disk, memory"})
		w.Resources.DiskMB = 50
		check(t, Run([]Work{w}, baseL(), Weights{}), map[string]string{"p/0": "insufficient resources: memory"})
		c := cellOf("C", "zC", cells.Resources{MemoryMB: 1200, DiskMB: 5, Containers: 100})
		check(t, Run([]Work{w}, append(baseL(), c), Weights{}), map[string]string{"p/0": "insufficient resources"})
	})
	t.Run("U17 a task goes to the lower load", func(t *testing.T) {
		t.Parallel()
		check(t, Run([]Work{taskOf("t", 10)}, baseT(), Weights{}), map[string]string{"t": "B"})
	})
	t.Run("U18 tasks get the same reasons", func(t *testing.T) {
		t.Parallel()
		large, strange := taskOf("t", 1000), taskOf("s", 10)
		large.Task.Resources.DiskMB = 10
		strange.Task.RootFS = "preloaded:other"
		check(t, Run([]Work{large, strange}, baseT(), Weights{}), map[string]string{
			"t": "insufficient resources: memory", "s": "found no compatible cell for required rootfs"})
	})
	t.Run("U19 comprehensive", func(t *testing.T) {
		t.Parallel()
		states := []cells.State{
			cellOf("A", "zA", hundred, on("pg-1", 0, 10), on("pg-2", 0, 10)),
			cellOf("B", "zB", hundred, on("pg-3", 0, 10), on("pg-4", 0, 20)),
		}
		nope, taskNope := want("pg-nope", 1, 10), taskOf("tg-nope", 10)
		nope.RootFS, taskNope.Task.RootFS = "preloaded:other", "preloaded:other"
		const strange = "found no compatible cell for required rootfs"
		// Tasks are placed before indexes above 0: tg-1 on A, then tg-2 on B, which has no task yet.
		check(t, Run([]Work{want("pg-3", 1, 40), want("pg-2", 1, 5), nope, taskOf("tg-1", 40), taskOf("tg-2", 5), taskNope}, states, Weights{}),
			map[string]string{"pg-3/1": "A", "tg-1": "A", "pg-2/1": "B", "tg-2": "B", "pg-nope/1": strange, "tg-nope": strange})
	})
	t.Run("A7 tasks go where there are fewest, whatever the zone", func(t *testing.T) {
		t.Parallel()
		states := baseT()
		states[1].Tasks = []cells.Task{{}}
		check(t, Run([]Work{taskOf("t", 10)}, states, Weights{}), map[string]string{"t": "A"})
	})
	t.Run("U23 bin pack positions count within a zone", func(t *testing.T) {
		t.Parallel()
		var states []cells.State
		for i, index := range []int32{7, 3, 11} {
			s := cellOf(fmt.Sprintf("a%d", i), "z1", hundred)
			s.Index = index
			states = append(states, s)
		}
		for i, index := range []int32{5, 4} {
			s := cellOf(fmt.Sprintf("b%d", i), "z2", hundred)
			s.Index = index
			states = append(states, s)
		}
		var got []int
		f := fleetOf(t, Weights{BinPack: 0.5}, states...)
		f.prepare()
		for _, i := range f.byID {
			got = append(got, int(f.cells[i].position))
		}
		if !slices.Equal(got, []int{1, 0, 2, 1, 0}) {
			t.Errorf("positions %v", got)
		}
	})
	t.Run("U24 locality beats packing, packing beats nothing", func(t *testing.T) {
		t.Parallel()
		big := cells.Resources{MemoryMB: 100, DiskMB: 200, Containers: 50}
		states := []cells.State{cellOf("c0", "z", big, on("x", 0, 20)), cellOf("c1", "z", big, on("y", 0, 20))}
		states[1].Index = 1
		check(t, Run([]Work{want("p", 0, 20)}, states, Weights{BinPack: 0.2}), map[string]string{"p/0": "c0"})
		check(t, Run([]Work{want("x", 1, 20)}, states, Weights{BinPack: 0.2}), map[string]string{"x/1": "c1"})
	})
	t.Run("U25 starting containers", func(t *testing.T) {
		t.Parallel()
		states := []cells.State{cellOf("c0", "z", hundred), cellOf("c1", "z", hundred)}
		states[0].StartingContainers = 10
		check(t, Run([]Work{want("p", 0, 20)}, states, Weights{Starting: 0.25}), map[string]string{"p/0": "c1"})
		check(t, Run([]Work{want("p", 0, 20)}, states, Weights{}), map[string]string{"p/0": "c0"})
		states[1].Instances = []cells.Instance{on("p", 1, 0)}
		check(t, Run([]Work{want("p", 0, 20)}, states, Weights{Starting: 0.25}), map[string]string{"p/0": "c0"})
	})
	t.Run("A3 a zone without room is passed over", func(t *testing.T) {
		t.Parallel()
		states := []cells.State{cellOf("A", "zA", cells.Resources{MemoryMB: 5, DiskMB: 5, Containers: 5}), cellOf("B", "zB", hundred, on("p", 0, 10))}
		check(t, Run([]Work{want("p", 1, 10)}, states, Weights{}), map[string]string{"p/1": "B"})
	})
	t.Run("A6 the proxy's memory is reserved", func(t *testing.T) {
		t.Parallel()
		s := cellOf("A", "z", cells.Resources{MemoryMB: 1000, DiskMB: 10000, Containers: 100})
		s.ProxyMemoryAllocationMB = 32
		var work []Work
		for i := range int32(10) {
			work = append(work, want("p", i, 100))
		}
		if r := Run(work, []cells.State{s}, Weights{}); len(r.Placed) != 7 {
			t.Errorf("placed %d, want the 7 that a cell accepts", len(r.Placed))
		}
	})
	t.Run("a cell that refused is avoided", func(t *testing.T) {
		t.Parallel()
		w := want("pg-4", 0, 10)
		w.Avoid = []lrp.CellID{"B"}
		check(t, Run([]Work{w}, baseL(), Weights{}), map[string]string{"pg-4/0": "A"})
		w.Avoid = []lrp.CellID{"B", "A"}
		check(t, Run([]Work{w}, baseL(), Weights{}), map[string]string{"pg-4/0": "cell refused the work"})
	})
}
