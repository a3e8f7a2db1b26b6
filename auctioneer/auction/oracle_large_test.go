package auction_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"muster/auctioneer/auction"
	"muster/auctioneer/auction/naive"
	"muster/bbs/lrp"
	"muster/cells"
)

// TestAgreesWithTheRuleAtSize is like TestAgreesWithTheRule with so many cells and instances that the index arranges
// its leaves anew and lays overlays over them, and that cells get full.
func TestAgreesWithTheRuleAtSize(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			weights := auction.Weights{Starting: []float64{0.25, 0, 1500}[seed%3], BinPack: []float64{0, 0, 0, 0.25}[seed%4]}
			f, m := auction.New(weights), model{}
			for i := range 150 {
				setRandom(t, r, f, m, i)
			}
			for range 3 {
				work := randomWork(r)
				answers := naive.New(m.states(), weights).Place(work)
				placed, refused := f.Place(work)
				for _, a := range answers {
					if a.Cell == "" {
						continue
					}
					if len(placed) == 0 || placed[0].Work != a.Work || placed[0].Cell != a.Cell {
						t.Fatalf("the rule says %s on %s; the index %s", name(a.Work), a.Cell, show(placed[:min(1, len(placed))]))
					}
					placed = placed[1:]
					m.apply(a.Work, a.Cell)
				}
				if len(placed) > 0 {
					t.Fatalf("placed besides: %s", show(placed))
				}
				for _, n := range refused {
					if want := m.reason(n.Work); n.Reason != want {
						t.Fatalf("%v: %q, want %q", name(n.Work), n.Reason, want)
					}
				}
				for range 20 {
					setRandom(t, r, f, m, r.IntN(170))
				}
			}
		})
	}
}

func setRandom(t *testing.T, r *rand.Rand, f *auction.Fleet, m model, i int) {
	total := []cells.Resources{{MemoryMB: 4000, DiskMB: 9000, Containers: 100}, {MemoryMB: 8000, DiskMB: 9000, Containers: 40}, {MemoryMB: 6000 + r.Int32N(500), DiskMB: 3000, Containers: 90}}[r.IntN(3)]
	s := cells.State{
		Presence: cells.Presence{Cell: lrp.CellID(fmt.Sprintf("c%03d", i)), Zone: fmt.Sprint("z", i%3), Capacity: total,
			RootFSProviders: map[string]cells.Provider{"preloaded": {Names: []string{"linux"}}}},
		Index: int32(i), Available: total, ProxyMemoryAllocationMB: 32 * r.Int32N(2),
	}
	if r.IntN(3) == 0 { // nearly full
		s.Available.MemoryMB = r.Int32N(400)
	}
	if r.IntN(5) == 0 {
		s.OptionalPlacementTags = []string{"a"}
	}
	for range r.IntN(20) {
		s.Instances = append(s.Instances, cells.Instance{Key: lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(fmt.Sprint("p", r.IntN(9)))}}})
	}
	if err := f.Set(s); err != nil {
		t.Fatal(err)
	}
	m[s.Cell] = s
}

// randomWork is one process of a thousand instances, some of hundreds, many of a few, and tasks.
func randomWork(r *rand.Rand) []auction.Work {
	var work []auction.Work
	for p, instances := range slices.Concat([]int{1000, 300, 200}, slices.Repeat([]int{7}, 60)) {
		i := cells.Instance{Key: lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(fmt.Sprint("p", p))}}, RootFS: "preloaded:linux",
			Resources: cells.Resources{MemoryMB: 1 << (3 + r.IntN(8)), DiskMB: 1 << (3 + r.IntN(8)), Containers: 1}}
		if r.IntN(5) == 0 {
			i.PlacementTags = []string{"a"}
		}
		for range instances {
			work = append(work, auction.Work{Instance: i})
			i.Key.Index++
		}
		work = append(work, auction.Work{Task: &cells.Task{Key: cells.TaskKey{GUID: cells.TaskGUID(i.Key.Process)}, RootFS: i.RootFS, Resources: i.Resources}})
	}
	return work
}
