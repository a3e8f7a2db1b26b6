package auction

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/cells"
)

// checklist is the conformance list of the reference as far as it is the core's. What is not here is about requests,
// queues, leases, calls to cells and reports, and belongs to the daemon: lines 1, 2, 9, 10, 12, and of 11 the dropping of
// cells that do not answer or answer for others. The same holds for the unit scenarios U15 and U16 (calls to cells),
// U20 (the queue), U21 and U22 (states of cells), U27 and U28 (the loop).
var checklist = map[string][]string{
	"3 order and interleaving":                {"TestScenarios", "TestSimulationLowMemory", "TestAgreesWithTheRule"},
	"4 start limit":                           {"TestScenarios", "TestAgreesWithTheRule"},
	"5 zones before the filter, pooled":       {"TestZones", "TestSimulationZones", "TestAgreesWithTheRule"},
	"6 score":                                 {"TestWorkedScores", "TestScenarios", "TestAgreesWithTheRule"},
	"7 tags, rootfs":                          {"TestTagAlgebra", "TestRootFSMatch", "TestScenarios"},
	"8 reasons":                               {"TestReasons", "TestExplanations", "TestAgreesWithTheRule"},
	"11 evacuating cells, no cells":           {"TestReasons", "TestExplanations"},
	"13 simulations S, B, Y, L, I, A, W, P":   {"TestSimulationSmallCold", "TestSimulationBinPack", "TestSimulationLargeCold", "TestSimulationImbalance", "TestSimulationZones", "TestSimulationScaleUp", "TestSimulationLowMemory"},
	"13 units U1 to U14, U17 to U19, U23-U26": {"TestScenarios", "TestWorkedScores", "TestReasons"},
}

// TestChecklist looks that each line names tests that are there.
func TestChecklist(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for line, tests := range checklist {
		for _, name := range tests {
			if !strings.Contains(all.String(), "func "+name+"(t *testing.T)") {
				t.Errorf("%s: there is no %s", line, name)
			}
		}
	}
}

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
