package auction

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"muster/bbs/lrp"
	"muster/cells"
)

// settled returns the states after an auction whose work has started.
func settled(t *testing.T, states []cells.State, work []Work) []cells.State {
	t.Helper()
	r := Run(work, states, defaults)
	if len(r.Refused) > 0 {
		t.Fatalf("%d refused: %s", len(r.Refused), r.Refused[0].Reason)
	}
	states = slices.Clone(states)
	for _, p := range r.Placed {
		carry(states, p.Cell, p.Work.Instance, 1)
	}
	return states
}

// carry adds an instance to a cell, or takes it away.
func carry(states []cells.State, id lrp.CellID, inst cells.Instance, by int) {
	s := &states[slices.IndexFunc(states, func(s cells.State) bool { return s.Cell == id })]
	if by > 0 {
		s.Instances = append(slices.Clip(s.Instances), inst)
		s.Available = s.Available.Sub(inst.Resources)
		return
	}
	s.Available = s.Available.Add(inst.Resources)
	at := slices.IndexFunc(s.Instances, func(i cells.Instance) bool { return i.Key == inst.Key })
	s.Instances = slices.Delete(slices.Clone(s.Instances), at, at+1)
}

// move makes moves.
func move(states []cells.State, moves []Move) []cells.State {
	states = slices.Clone(states)
	for _, m := range moves {
		carry(states, m.From, m.Instance, -1)
		carry(states, m.To, m.Instance, 1)
	}
	return states
}

// spreadOf is the difference of the largest and the smallest share of memory in use.
func spreadOf(states []cells.State) float64 {
	least, most := 1.0, 0.0
	for _, s := range states {
		used := 1 - float64(s.Available.MemoryMB)/float64(s.Capacity.MemoryMB)
		least, most = min(least, used), max(most, used)
	}
	return most - least
}

func TestRebalanceAfterACellWasAdded(t *testing.T) {
	t.Parallel()
	work := unique(30*40, 1)
	for i := range work {
		work[i].Key.Index = int32(i % 3)
		work[i].Key.Process = lrp.ProcessGUID(fmt.Sprint("p", i/3))
	}
	before := settled(t, fleet(30), work)
	added := append(slices.Clone(before), cellOf("REP-31", "Z0", hundred))
	moves := Rebalance(added, defaults, 1000)
	after := move(added, moves)
	fresh := settled(t, append(fleet(30), cellOf("REP-31", "Z0", hundred)), work)
	t.Logf("%d moves; spread %.3f, then %.3f; a fresh auction: %.3f", len(moves), spreadOf(added), spreadOf(after), spreadOf(fresh))
	if got, want := spreadOf(after), spreadOf(fresh); got > want+0.02 {
		t.Errorf("spread %v, a fresh auction has %v", got, want)
	}
	if len(moves) > 60 {
		t.Errorf("%d moves for one cell", len(moves))
	}
	if again := Rebalance(after, defaults, 1000); len(again) > 0 {
		t.Errorf("%d moves more: %+v", len(again), again[0])
	}
	if limited := Rebalance(added, defaults, 5); len(limited) != 5 || fmt.Sprint(limited) != fmt.Sprint(moves[:5]) {
		t.Errorf("with a limit of 5: %d moves", len(limited))
	}
}

func TestRebalanceLeavesEvenFleets(t *testing.T) {
	t.Parallel()
	for name, states := range map[string][]cells.State{
		"empty": fleet(10), "none": nil, "settled": settled(t, fleet(10), unique(200, 2)), "one process": settled(t, fleet(10), colour("red", 100, 1)),
	} {
		if moves := Rebalance(states, defaults, 100); len(moves) > 0 {
			t.Errorf("%s: %d moves, first %+v", name, len(moves), moves[0])
		}
	}
	if moves := Rebalance(append(fleet(1), fleet(2)[1]), defaults, 0); len(moves) > 0 {
		t.Errorf("%d moves with a limit of 0", len(moves))
	}
}

func TestRebalanceGains(t *testing.T) {
	t.Parallel()
	starting := on("p", 3, 1)
	starting.State = cells.InstanceClaimed
	for name, tt := range map[string]struct {
		states []cells.State
		w      Weights
		want   []string
	}{
		"zones first, whatever the load": {[]cells.State{cellOf("A", "z1", hundred, on("p", 0, 1), on("p", 1, 1)), cellOf("B", "z2", hundred, on("x", 0, 90))}, defaults, []string{"p/0 A B 1", "x/0 B A 3"}[:1]},
		"then cells":                     {[]cells.State{cellOf("A", "z", hundred, on("p", 0, 1), on("p", 1, 1)), cellOf("B", "z", hundred, on("x", 0, 90))}, defaults, []string{"p/0 A B 2"}},
		"then load":                      {[]cells.State{cellOf("A", "z", hundred, on("x", 0, 20), on("y", 0, 30)), cellOf("B", "z", hundred)}, defaults, []string{"x/0 A B 3"}},
		"no load when packing": {[]cells.State{cellOf("A", "z", hundred, on("x", 0, 20), on("y", 0, 30)), cellOf("B", "z", hundred)},
			Weights{BinPack: 0.5}, nil},
		"only what runs":       {[]cells.State{cellOf("A", "z", hundred, starting, starting), cellOf("B", "z", hundred)}, defaults, nil},
		"not from afar":        {[]cells.State{cellOf("A", "z", hundred, on("x", 0, 20)), cellOf("B", "z", hundred)}, defaults, nil},
		"the larger cell next": {[]cells.State{cellOf("A", "z", hundred, on("x", 0, 20)), cellOf("B", "z", cells.Resources{MemoryMB: 1000, DiskMB: 1000, Containers: 1000})}, defaults, []string{"x/0 A B 3"}},
	} {
		var got []string
		for _, m := range Rebalance(tt.states, tt.w, 100) {
			got = append(got, fmt.Sprint(m.Instance.Key.Slot, " ", m.From, " ", m.To, " ", int(m.Gain)))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestRebalanceEnds: in random fleets moves end by themselves, fit, make the fleet no less even, and nothing is left to do
// after them.
func TestRebalanceEnds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		var states []cells.State
		for i := range 12 {
			s := cellOf(fmt.Sprintf("c%02d", i), fmt.Sprint("z", r.IntN(3)), cells.Resources{MemoryMB: 500 + r.Int32N(500), DiskMB: 1000, Containers: 50 + r.Int32N(50)})
			for range r.IntN(30) {
				inst := on(fmt.Sprint("p", r.IntN(12)), r.Int32N(1000), 1+r.Int32N(30))
				s.Instances, s.Available = append(s.Instances, inst), s.Available.Sub(inst.Resources)
			}
			states = append(states, s)
		}
		slices.SortFunc(states, func(a, b cells.State) int { return 0 })
		moves := Rebalance(states, defaults, 100_000)
		if fmt.Sprint(moves) != fmt.Sprint(Rebalance(states, defaults, 100_000)) {
			t.Fatalf("seed %d: another answer", seed)
		}
		after := move(states, moves)
		for _, s := range after {
			if s.Available.MemoryMB < 0 || s.Available.DiskMB < 0 || s.Available.Containers < 0 {
				t.Fatalf("seed %d: %s is overcommitted: %+v", seed, s.Cell, s.Available)
			}
		}
		if len(moves) > 1000 {
			t.Errorf("seed %d: %d moves", seed, len(moves))
		}
		if again := Rebalance(after, defaults, 100); len(again) > 0 {
			t.Errorf("seed %d: after %d moves %d more, first %+v", seed, len(moves), len(again), again[0])
		}
	}
}
