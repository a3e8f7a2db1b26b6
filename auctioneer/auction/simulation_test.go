package auction

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"muster/cells"
)

// fleet returns the cells of the simulation: REP-1 to REP-n, zones Z0 and Z1 in turn.
func fleet(n int) []cells.State {
	var states []cells.State
	for i := range n {
		s := cellOf(fmt.Sprintf("REP-%d", i+1), fmt.Sprintf("Z%d", i%2), hundred)
		s.Index = int32(i)
		states = append(states, s)
	}
	return states
}

// preload puts n instances of as many processes on a cell.
func preload(s *cells.State, n int) {
	for i := range n {
		inst := on(fmt.Sprintf("%s-old-%d", s.Cell, i), 0, 1)
		s.Instances = append(s.Instances, inst)
		s.Available = s.Available.Sub(inst.Resources)
	}
}

func unique(n int, mb int32) []Work {
	var work []Work
	for i := range n {
		w := want(fmt.Sprintf("unique-%d-%d", mb, i), int32(i), mb)
		w.Resources.DiskMB = 1
		work = append(work, w)
	}
	return work
}

func colour(name string, n int, mb int32) []Work {
	var work []Work
	for i := range n {
		w := want(name, int32(i), mb)
		w.Resources.DiskMB = 1
		work = append(work, w)
	}
	return work
}

// wins counts placements by cell, for cells REP-1 to REP-n.
func wins(t *testing.T, r Result, n int) []int {
	t.Helper()
	got := make([]int, n)
	for _, p := range r.Placed {
		var i int
		if _, err := fmt.Sscanf(string(p.Cell), "REP-%d", &i); err != nil {
			t.Fatal(err)
		}
		got[i-1]++
	}
	return got
}

func sum(xs []int) int {
	total := 0
	for _, x := range xs {
		total += x
	}
	return total
}

var defaults = Weights{Starting: 0.25}

// The outcomes below are exact where ties cannot change them. Ties go to the smaller id here and to no particular
// cell in Diego, so that which of equal cells win more (I1, I2, W2, L) is checked as a number of cells, not by name.
var sizes = []struct{ cells, work, each int }{{4, 8, 2}, {10, 40, 4}, {20, 200, 10}, {40, 800, 20}}

func TestSimulationSmallCold(t *testing.T) { // S1 to S4
	t.Parallel()
	for _, s := range sizes {
		for cell, n := range wins(t, Run(unique(s.work, 1), fleet(s.cells), defaults), s.cells) {
			if n != s.each {
				t.Errorf("%d cells: REP-%d won %d, want %d", s.cells, cell+1, n, s.each)
			}
		}
	}
}

func TestSimulationBinPack(t *testing.T) { // B1 to B12 and Y1 to Y12
	t.Parallel()
	for _, s := range sizes {
		for _, pack := range []float64{0.25, 0.5, 0.75} {
			w := Weights{Starting: 0.5, BinPack: pack}
			got := wins(t, Run(unique(s.work, 1), fleet(s.cells), w), s.cells)
			zones := [2]int{}
			for i, n := range got {
				if i >= 2 && n > got[i-2] {
					t.Errorf("%d cells, weight %v: wins rise along a zone: %v", s.cells, pack, got)
				}
				zones[i%2] += n
			}
			if zones[0]-zones[1] > 2 || zones[1]-zones[0] > 2 {
				t.Errorf("%d cells, weight %v: zones %v", s.cells, pack, zones)
			}
			for cell, n := range wins(t, Run(colour("yellow", s.work, 1), fleet(s.cells), w), s.cells) {
				if n != s.each {
					t.Errorf("yellow, %d cells, weight %v: REP-%d won %d, want %d", s.cells, pack, cell+1, n, s.each)
				}
			}
		}
	}
}

// coldStart is the work of L1, so many times: half of it of processes of their own, half of a few colours.
func coldStart(times int) []Work {
	r := rand.New(rand.NewSource(1))
	var work []Work
	for _, batch := range []struct {
		n, mb   int
		colours []string
	}{{900, 1, []string{"purple", "red", "orange", "teal"}}, {100, 2, []string{"gray", "blue", "pink", "green"}}, {25, 4, []string{"lime", "cyan", "lightseagreen", "brown"}}} {
		work = append(work, unique(batch.n*times, int32(batch.mb))...)
		for i := range batch.n * times {
			w := want(batch.colours[r.Intn(4)], int32(i), int32(batch.mb))
			w.Resources.DiskMB = 1
			work = append(work, w)
		}
	}
	r.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	return work
}

func TestSimulationLargeCold(t *testing.T) { // L1 and L2
	t.Parallel()
	for _, times := range []int{1, 4} {
		res := Run(coldStart(times), fleet(25*times), defaults)
		if len(res.Refused) > 0 {
			t.Fatalf("%d refused: %+v", len(res.Refused), res.Refused[0])
		}
		for cell, n := range wins(t, res, 25*times) {
			if n < 72 || n > 92 { // 82 is the mean, tolerance 10
				t.Errorf("x%d: REP-%d won %d", times, cell+1, n)
			}
		}
	}
}

func TestSimulationImbalance(t *testing.T) { // I1 and I2
	t.Parallel()
	states := fleet(100)
	for i := range 95 {
		preload(&states[i], 50)
	}
	got := wins(t, Run(unique(500, 1), states, defaults), 100)
	for i, n := range got[95:] {
		if n != 6 {
			t.Errorf("I1: empty REP-%d won %d, want 6", i+96, n)
		}
	}
	if sum(got[:95]) != 470 || slices.Min(got[:95]) != 4 || slices.Max(got[:95]) != 5 {
		t.Errorf("I1: loaded cells won %v", got[:95])
	}

	states = fleet(100)
	for i := range 99 {
		preload(&states[i], 50)
	}
	got = wins(t, Run(unique(100, 1), states, defaults), 100)
	if got[99] != 2 || sum(got[:99]) != 98 || slices.Max(got[:99]) != 1 {
		t.Errorf("I2: %v", got)
	}
}

func TestSimulationZones(t *testing.T) { // A
	t.Parallel()
	states := fleet(3)
	preload(&states[1], 50)
	if got := wins(t, Run(colour("red", 40, 1), states, defaults), 3); !slices.Equal(got, []int{10, 20, 10}) {
		t.Errorf("wins %v", got)
	}
}

func TestSimulationScaleUp(t *testing.T) { // W1 to W3
	t.Parallel()
	r := rand.New(rand.NewSource(1))
	for _, s := range []struct{ cells, work, low, high int }{{10, 80, 8, 8}, {30, 200, 6, 7}, {100, 400, 4, 4}} {
		states := fleet(s.cells)
		for i := range states {
			preload(&states[i], 78+r.Intn(3))
		}
		got := wins(t, Run(colour("red", s.work, 1), states, defaults), s.cells)
		if slices.Min(got) != s.low || slices.Max(got) != s.high || sum(got) != s.work {
			t.Errorf("%d cells: wins %v", s.cells, got)
		}
	}
}

func TestSimulationLowMemory(t *testing.T) { // P
	t.Parallel()
	work := colour("red", 2, 50)
	for _, w := range unique(80, 1) {
		w.Key.Index = 0
		work = append(work, w)
	}
	r := Run(work, fleet(1), defaults)
	got := outcome(r)
	if len(r.Placed) != 51 || len(r.Refused) != 31 || got["red/0"] != "REP-1" || got["red/1"] != "insufficient resources: memory" {
		t.Errorf("placed %d, refused %d, red/0 %q, red/1 %q", len(r.Placed), len(r.Refused), got["red/0"], got["red/1"])
	}
}
