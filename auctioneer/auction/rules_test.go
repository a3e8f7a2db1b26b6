package auction

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster/cells"
)

// TestZones: the number of instances in a zone counts before anything else, on cells that do not fit too, and zones
// with equally many are one. (A3, A5)
func TestZones(t *testing.T) {
	t.Parallel()
	isolated := cellOf("I", "z1", hundred, on("p", 0, 1))
	isolated.PlacementTags = []string{"iso"}
	for name, tt := range map[string]struct {
		cells []cells.State
		want  string
	}{
		"equal zones are one, and the score decides": {[]cells.State{cellOf("A", "z1", hundred, on("x", 0, 9)), cellOf("B", "z2", hundred), cellOf("C", "z3", hundred, on("x", 1, 9))}, "B"},
		"a tie of two zones goes to the smaller id":  {[]cells.State{cellOf("B", "z1", hundred), cellOf("A", "z2", hundred)}, "A"},
		"a tie within a zone goes to the smaller id": {[]cells.State{cellOf("10", "z", hundred), cellOf("9", "z", hundred), cellOf("2", "z", hundred)}, "10"},
		"an instance on a cell that does not fit":    {[]cells.State{cellOf("A", "z1", hundred), isolated, cellOf("B", "z2", hundred, on("x", 0, 50))}, "B"},
		"the emptier zone, however full its cells":   {[]cells.State{cellOf("A", "z1", hundred, on("p", 0, 1)), cellOf("B", "z2", hundred, on("x", 0, 98))}, "B"},
		"two zones share what a third has more of":   {[]cells.State{cellOf("A", "z1", hundred, on("p", 0, 1)), cellOf("B", "z2", hundred, on("x", 0, 9)), cellOf("C", "z3", hundred, on("x", 1, 8))}, "C"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, Run([]Work{want("p", 1, 1)}, tt.cells, defaults), map[string]string{"p/1": tt.want})
		})
	}
}

// TestTaskHasNoProxy: what has no room as an instance may have it as a task, also in the same auction. (A7)
func TestTaskHasNoProxy(t *testing.T) {
	t.Parallel()
	s := cellOf("A", "z", hundred)
	s.ProxyMemoryAllocationMB = 1
	check(t, Run([]Work{want("p", 0, 100), taskOf("t", 100)}, []cells.State{s}, Weights{}), map[string]string{"p/0": "insufficient resources: disk, memory", "t": "A"})
}

// TestLocality: 1000 is a number like the others. Where loads differ by more, the cell with the instance wins. (A4)
func TestLocality(t *testing.T) {
	t.Parallel()
	busy := cellOf("B", "z", hundred)
	busy.StartingContainers = 3
	states := []cells.State{cellOf("A", "z", hundred, on("p", 0, 1), on("p", 1, 1)), busy}
	check(t, Run([]Work{want("p", 2, 1)}, states, Weights{Starting: 600}), map[string]string{"p/2": "B"})
	check(t, Run([]Work{want("p", 2, 1)}, states, Weights{Starting: 700}), map[string]string{"p/2": "A"})
}

// TestOverlay: the fewest instances per node change what is visited, never what is found.
func TestOverlay(t *testing.T) {
	t.Parallel()
	states := large(200, 100, func(i int, s *cells.State) {
		if i%3 == 0 {
			occupy(s, 0.5)
		}
	})
	work := append(of(1, 2000, 256), of(7, 200, 128)...)
	with, without := fleetOf(t, defaults, states...), fleetOf(t, defaults, states...)
	p := with.process("00000000-process")
	with.processes[p].overlay = &overlay{}
	a, _ := with.Place(work)
	b, _ := without.Place(work)
	for round := range 2 {
		if len(a) != len(work) || len(b) != len(work) {
			t.Fatalf("round %d: placed %d and %d", round, len(a), len(b))
		}
		for i := range a {
			if a[i].Cell != b[i].Cell {
				t.Fatalf("round %d: %v on %s with an overlay, on %s without", round, a[i].Work.Key, a[i].Cell, b[i].Cell)
			}
		}
		for _, f := range []*Fleet{with, without} { // leaves change their cells
			f.Remove("cell-00007")
			for i := range 40 {
				must(t, f.Set(cellOf(fmt.Sprint("new-", i), "z1", states[0].Capacity)))
			}
		}
		work = of(1, 1000, 64)
		a, _ = with.Place(work)
		b, _ = without.Place(work)
	}
	if with.processes[p].overlay == nil {
		t.Error("the overlay was not used")
	}
}

// TestOverlayIsMadeWhenWorthIt: where cells with the process go on looking best, searches become expensive and the
// process gets an overlay; then the rule still holds, also for a clone.
func TestOverlayIsMadeWhenWorthIt(t *testing.T) {
	t.Parallel()
	states := large(200, 400, func(i int, s *cells.State) {
		if i%2 == 0 {
			occupy(s, 0.5)
		}
	})
	f := fleetOf(t, Weights{}, states...)
	f.Place(of(1, 1, 256))
	p := f.processIDs["00000000-process"]
	for range 4 {
		f.Place(of(1, 200, 256)) // one more on each cell
	}
	if f.processes[p].overlay == nil {
		t.Fatalf("none after %d visits in vain", f.processes[p].wasted)
	}
	more := of(1, 500, 256)
	a, _ := f.Clone().Place(more)
	b, _ := f.Place(more)
	plain := fleetOf(t, Weights{}, states...)
	plain.Place(of(1, 1, 256))
	for range 4 {
		plain.Place(of(1, 200, 256))
	}
	plain.processes[plain.processIDs["00000000-process"]].overlay = nil
	c, _ := plain.Place(more)
	for i := range more {
		if a[i].Cell != b[i].Cell || b[i].Cell != c[i].Cell {
			t.Fatalf("%d: %s by a clone, %s, %s without an overlay", i, a[i].Cell, b[i].Cell, c[i].Cell)
		}
	}
}

// TestOrderOfIDs: ties follow the ids however the cells came, also when the numbers between two run out. (A5)
func TestOrderOfIDs(t *testing.T) {
	t.Parallel()
	f := New(defaults)
	ids := []string{"a", "b"}
	for n := range 80 { // each between the first and all others
		ids = append(ids, strings.Repeat("a", n+1)+"b")
	}
	for _, id := range ids {
		must(t, f.Set(cellOf(id, "z", hundred)))
	}
	slices.Sort(ids)
	placed, _ := f.Place(of(len(ids), 1, 1))
	for i, p := range placed {
		if string(p.Cell) != ids[i] {
			t.Fatalf("%d on %s, want %s", i, p.Cell, ids[i])
		}
	}
}

// TestManyConstraints: what is remembered of constraints is limited.
func TestManyConstraints(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, Weights{}, cellOf("A", "z", hundred))
	work := of(1, maxConstraints+1, 0)
	for i := range work {
		work[i].RootFS = fmt.Sprint("docker:///image-", i)
	}
	f.Place(work)
	f.Place(of(1, 1, 1))
	if len(f.constraints) != 1 || len(f.constraintIDs) != 1 {
		t.Errorf("%d constraints, %d names", len(f.constraints), len(f.constraintIDs))
	}
}
