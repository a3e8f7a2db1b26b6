package auction

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"muster/bbs/lrp"
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

func TestSimulationLargeCold(t *testing.T) { // L1
	t.Parallel()
	r := rand.New(rand.NewSource(1))
	var work []Work
	for _, batch := range []struct {
		n, mb   int
		colours []string
	}{{900, 1, []string{"purple", "red", "orange", "teal"}}, {100, 2, []string{"gray", "blue", "pink", "green"}}, {25, 4, []string{"lime", "cyan", "lightseagreen", "brown"}}} {
		work = append(work, unique(batch.n, int32(batch.mb))...)
		for i := range batch.n {
			w := want(batch.colours[r.Intn(4)], int32(i), int32(batch.mb))
			w.Resources.DiskMB = 1
			work = append(work, w)
		}
	}
	r.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	res := Run(work, fleet(25), defaults)
	if len(res.Refused) > 0 {
		t.Fatalf("%d of %d refused: %+v", len(res.Refused), len(work), res.Refused[0])
	}
	for cell, n := range wins(t, res, 25) {
		if n < 72 || n > 92 { // 2050 / 25 = 82, tolerance 10
			t.Errorf("REP-%d won %d", cell+1, n)
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

// naive chooses a cell in the words of the reference: zones from the emptiest to the fullest, tied
// ones as one, the first group with room decides. It shares only score and match with scan.
func naive(p *pool, n need) *cell {
	var zones []*zone
	for _, c := range p.cells {
		if c.offers.match(n) == fits && !slices.Contains(zones, c.zone) {
			zones = append(zones, c.zone)
		}
	}
	slices.SortFunc(zones, func(a, b *zone) int { return a.instances[n.process] - b.instances[n.process] })
	var best *cell
	for i, z := range zones {
		for _, c := range p.cells {
			if c.zone != z || c.offers.match(n) != fits || c.lacks(n).any() || n.avoids(c.id) {
				continue
			}
			s := c.score(n, p.weights)
			if best == nil || s < best.score(n, p.weights) || s == best.score(n, p.weights) && c.id < best.id {
				best = c
			}
		}
		tied := i+1 < len(zones) && zones[i+1].instances[n.process] == z.instances[n.process]
		if best != nil && !tied {
			break
		}
	}
	return best
}

// TestScanAgreesWithTheRule: on random worlds scan and the visit of zones choose the same cells, what
// is placed fits, and the order of the states does not matter.
func TestScanAgreesWithTheRule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var states []cells.State
		for i := range rapid.IntRange(1, 8).Draw(t, "cells") {
			s := cellOf(fmt.Sprintf("c%d", i), rapid.SampledFrom([]string{"", "z1", "z2"}).Draw(t, "zone"), cells.Resources{
				MemoryMB: rapid.Int32Range(0, 60).Draw(t, "memory"), DiskMB: rapid.Int32Range(0, 60).Draw(t, "disk"), Containers: rapid.Int32Range(0, 6).Draw(t, "containers")})
			s.Index = rapid.Int32Range(0, 3).Draw(t, "index")
			s.StartingContainers = rapid.Int32Range(0, 3).Draw(t, "starting")
			s.ProxyMemoryAllocationMB = rapid.SampledFrom([]int32{0, 4}).Draw(t, "proxy")
			s.OptionalPlacementTags = rapid.SampledFrom([][]string{nil, {"a"}}).Draw(t, "optional")
			for j := range rapid.IntRange(0, 3).Draw(t, "there") {
				s.Instances = append(s.Instances, on(rapid.SampledFrom([]string{"p", "q"}).Draw(t, "app"), int32(50+j), 0))
			}
			states = append(states, s)
		}
		var work []Work
		for i := range rapid.IntRange(1, 12).Draw(t, "work") {
			w := want(rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "process"), int32(i), rapid.Int32Range(0, 30).Draw(t, "mb"))
			w.PlacementTags = rapid.SampledFrom([][]string{nil, {"a"}}).Draw(t, "tags")
			w.Avoid = rapid.SampledFrom([][]lrp.CellID{nil, {"c0"}}).Draw(t, "avoid")
			work = append(work, w)
		}
		weights := Weights{Starting: 0.25, BinPack: rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "pack")}

		res := Run(work, states, weights)
		shadow := newPool(states, weights)
		placed := map[string]string{}
		for _, w := range inOrder(work) {
			n := needOf(w)
			if c := naive(shadow, n); c != nil {
				placed[w.Key.Slot.String()] = string(c.id)
				shadow.reserve(c, n)
			}
		}
		for _, p := range res.Placed {
			if want := placed[p.Work.Key.Slot.String()]; want != string(p.Cell) {
				t.Fatalf("%v on %s, the rule says %q", p.Work.Key.Slot, p.Cell, want)
			}
		}
		if len(res.Placed) != len(placed) || len(res.Placed)+len(res.Refused) != len(work) {
			t.Fatalf("placed %d, the rule places %d of %d", len(res.Placed), len(placed), len(work))
		}
		for _, c := range shadow.cells {
			if c.available.memory < 0 && c.total.memory >= 0 {
				t.Fatalf("%s is overcommitted: %+v", c.id, c.available)
			}
		}
		slices.Reverse(states)
		again := Run(work, states, weights)
		if fmt.Sprint(outcome(again)) != fmt.Sprint(outcome(res)) {
			t.Fatalf("the order of the states changes the outcome:\n%v\n%v", outcome(res), outcome(again))
		}
	})
}

func BenchmarkRun(b *testing.B) {
	for _, n := range []int{100, 1000} {
		states, work := fleet(n), unique(1000, 1)
		b.Run(fmt.Sprintf("%d-cells", n), func(b *testing.B) {
			for b.Loop() {
				Run(work, states, defaults)
			}
			b.ReportMetric(float64(len(work)*b.N)/b.Elapsed().Seconds(), "placements/s")
		})
	}
}
