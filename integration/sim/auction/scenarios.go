package main

import (
	"fmt"
	"math/rand/v2"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

// scenario is cells with what runs on them, and work to be placed.
type scenario struct {
	about      string
	packs      bool // it shows bin packing, and has weights for that
	rebalances bool // after the auction an empty cell is added and the fleet evened out
	make       func(seed uint64) ([]cells.State, []auction.Work)
}

// scenarios are those of the reference, and one with a cell that comes later.
var scenarios = map[string]scenario{
	"cold-start": {about: "800 processes of one instance, 40 empty cells", make: func(uint64) ([]cells.State, []auction.Work) {
		return fleet(40), unique(800, 1)
	}},
	"bin-pack": {about: "800 processes of one instance, packed", packs: true, make: func(uint64) ([]cells.State, []auction.Work) {
		return fleet(40), unique(800, 1)
	}},
	"bin-pack-one-app": {about: "one process of 800 instances: locality beats packing", packs: true, make: func(uint64) ([]cells.State, []auction.Work) {
		return fleet(40), colour("yellow", 800, 1)
	}},
	"large-cold-start": {about: "2,050 instances of three sizes, half of a few processes, in 2,400 of 2,500 MB", make: func(seed uint64) ([]cells.State, []auction.Work) {
		return fleet(25), mixed(1, seed)
	}},
	"larger-cold-start": {about: "four times as much", make: func(seed uint64) ([]cells.State, []auction.Work) {
		return fleet(100), mixed(4, seed)
	}},
	"imbalance": {about: "95 cells half full, 5 empty; 500 processes", make: func(uint64) ([]cells.State, []auction.Work) {
		return preloaded(fleet(100), 95, 50, 50, 0), unique(500, 1)
	}},
	"imbalance-one": {about: "99 cells half full, one empty; 100 processes", make: func(uint64) ([]cells.State, []auction.Work) {
		return preloaded(fleet(100), 99, 50, 50, 0), unique(100, 1)
	}},
	"zones": {about: "zone Z1 has one cell, half full; one process of 40 instances", make: func(uint64) ([]cells.State, []auction.Work) {
		states := fleet(3)
		preload(&states[1], 50)
		return states, colour("red", 40, 1)
	}},
	"scale-up": {about: "30 cells with 78 to 80 instances; one process of 200 instances", make: func(seed uint64) ([]cells.State, []auction.Work) {
		return preloaded(fleet(30), 30, 78, 80, seed), colour("red", 200, 1)
	}},
	"low-memory": {about: "one cell of 100 MB; 80 small processes and one of two instances of 50 MB", make: func(uint64) ([]cells.State, []auction.Work) {
		work := unique(80, 1)
		for i := range work {
			work[i].Key.Index = 0
		}
		return fleet(1), append(work, colour("red", 2, 50)...)
	}},
	"rebalance": {about: "30 cells two fifths full, one is added; moves that even them out", rebalances: true, make: func(uint64) ([]cells.State, []auction.Work) {
		return fleet(30), unique(1200, 1)
	}},
}

// fleet returns cells of 100 MB of memory and disk and 100 containers, in two zones in turn.
func fleet(n int) []cells.State {
	states := make([]cells.State, n)
	for i := range states {
		states[i] = newCell(i)
	}
	return states
}

func newCell(i int) cells.State {
	total := cells.Resources{MemoryMB: 100, DiskMB: 100, Containers: 100}
	return cells.State{
		Presence: cells.Presence{Cell: lrp.CellID(fmt.Sprintf("REP-%d", i+1)), Zone: fmt.Sprintf("Z%d", i%2), Capacity: total,
			RootFSProviders: map[string]cells.Provider{"preloaded": {Names: []string{"linux"}}}},
		Index: int32(i), Available: total,
	}
}

func instance(process string, index, mb int32) cells.Instance {
	return cells.Instance{
		Key:       lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(process), Index: index}, Domain: "auction"},
		Resources: cells.Resources{MemoryMB: mb, DiskMB: 1, Containers: 1}, RootFS: "preloaded:linux",
	}
}

// preload puts n instances of as many processes on a cell.
func preload(s *cells.State, n int) {
	for i := range n {
		put(s, instance(fmt.Sprintf("%s-old-%d", s.Cell, i), 0, 1))
	}
}

// preloaded puts low to high instances on the first cells.
func preloaded(states []cells.State, n, low, high int, seed uint64) []cells.State {
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		preload(&states[i], low+r.IntN(high-low+1))
	}
	return states
}

// unique returns instances of as many processes; the n-th has the index n.
func unique(n int, mb int32) (work []auction.Work) {
	for i := range n {
		work = append(work, auction.Work{Instance: instance(fmt.Sprintf("process-%d-%d", mb, i), int32(i), mb)})
	}
	return work
}

// colour returns the instances of one process.
func colour(name string, n int, mb int32) (work []auction.Work) {
	for i := range n {
		work = append(work, auction.Work{Instance: instance(name, int32(i), mb)})
	}
	return work
}

// mixed returns the work of the large cold start, so many times.
func mixed(times int, seed uint64) (work []auction.Work) {
	r := rand.New(rand.NewPCG(seed, 0))
	for _, batch := range []struct {
		n       int
		mb      int32
		colours [4]string
	}{
		{900, 1, [4]string{"purple", "red", "orange", "teal"}}, {100, 2, [4]string{"gray", "blue", "pink", "green"}},
		{25, 4, [4]string{"lime", "cyan", "lightseagreen", "brown"}},
	} {
		work = append(work, unique(batch.n*times, batch.mb)...)
		for i := range batch.n * times {
			work = append(work, auction.Work{Instance: instance(batch.colours[r.IntN(4)], int32(i), batch.mb)})
		}
	}
	return work
}
