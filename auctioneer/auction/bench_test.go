package auction

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"muster/cells"
)

// large returns n cells in three zones, each with room for so many instances of 256 MB. vary changes the cells.
func large(n, room int, vary func(i int, s *cells.State)) []cells.State {
	states := make([]cells.State, n)
	for i := range states {
		states[i] = cellOf(fmt.Sprintf("cell-%05d", i), fmt.Sprint("z", i%3), cells.Resources{MemoryMB: int32(room) * 256, DiskMB: int32(room) * 512, Containers: int32(room)})
		if vary != nil {
			vary(i, &states[i])
		}
	}
	return states
}

// of returns the instances of so many processes.
func of(processes, instances int, mb int32) []Work {
	work := make([]Work, 0, processes*instances)
	for p := range processes {
		for i := range instances {
			work = append(work, want(fmt.Sprintf("%08x-process", p), int32(i), mb))
			work[len(work)-1].Resources.DiskMB = 256
		}
	}
	return work
}

// occupy fills a share of a cell with what runs there.
func occupy(s *cells.State, share float64) {
	t := s.Capacity
	for i := range int(float64(t.MemoryMB) * share / 256) {
		inst := on(fmt.Sprintf("%s-%d", s.Cell, i), 0, 256)
		s.Instances = append(s.Instances, inst)
		s.Available = s.Available.Sub(inst.Resources)
	}
}

// benchPlace measures auctions of the same work on the same cells, without the set-up.
func benchPlace(b *testing.B, states []cells.State, work []Work, refused int) {
	b.Helper()
	f := New(defaults)
	for _, s := range states {
		if err := f.Set(s); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		dry := f.Clone()
		b.StartTimer()
		if _, no := dry.Place(work); len(no) != refused {
			b.Fatalf("%d refused, want %d", len(no), refused)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(work)), "ns/piece")
}

// BenchmarkPlace is worlds that a search could find hard.
func BenchmarkPlace(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("different-processes/cells=%d", n), func(b *testing.B) { benchPlace(b, large(n, 200000/n, nil), of(50000, 2, 256), 0) })
		b.Run(fmt.Sprintf("one-process-of-100000/cells=%d", n), func(b *testing.B) { benchPlace(b, large(n, 200000/n, nil), of(1, 100000, 256), 0) })
		b.Run(fmt.Sprintf("processes-of-1000/cells=%d", n), func(b *testing.B) { benchPlace(b, large(n, 200000/n, nil), of(100, 1000, 256), 0) })
		// The full cells look better than the empty ones as soon as those have starting containers.
		b.Run(fmt.Sprintf("nine-of-ten-full/cells=%d", n), func(b *testing.B) {
			benchPlace(b, large(n, 1500000/n, func(i int, s *cells.State) {
				if i%10 > 0 {
					occupy(s, 0.9995)
				}
			}), of(5000, 20, 256), 0)
		})
		// Those with the process look better than the others, again and again.
		b.Run(fmt.Sprintf("one-process-nine-of-ten-loaded/cells=%d", n), func(b *testing.B) {
			benchPlace(b, large(n, 300000/n, func(i int, s *cells.State) {
				if i%10 > 0 {
					occupy(s, 0.5)
				}
			}), of(1, 100000, 256), 0)
		})
		b.Run(fmt.Sprintf("every-cell-different/cells=%d", n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			benchPlace(b, large(n, 200000/n, func(_ int, s *cells.State) {
				s.Capacity.MemoryMB += r.Int32N(s.Capacity.MemoryMB * 2)
				s.Capacity.DiskMB += r.Int32N(s.Capacity.DiskMB * 2)
				s.Available = s.Capacity
			}), of(50000, 2, 256), 0)
		})
	}
}

// BenchmarkImpossible is requests that nothing can meet: all the same, and all different.
func BenchmarkImpossible(b *testing.B) {
	const n = 100000
	states := large(10000, 20, func(_ int, s *cells.State) { occupy(s, 0.5) })
	same, different, fragmented := of(1, n, 9000), of(1, n, 0), of(1, n, 0)
	for i := range different {
		different[i].Resources.MemoryMB = int32(9000 + i)
		fragmented[i].Resources.MemoryMB, fragmented[i].Resources.DiskMB = int32(4000+i%1000), int32(6000+i/1000)
	}
	b.Run("same", func(b *testing.B) { benchPlace(b, states, same, n) })
	b.Run("different", func(b *testing.B) { benchPlace(b, states, different, n) })
	// Memory is on some cells, disk on others.
	states = large(10000, 20, func(i int, s *cells.State) {
		if i%2 == 0 {
			s.Available.MemoryMB = 100
		} else {
			s.Available.DiskMB = 100
		}
	})
	b.Run("fragmented", func(b *testing.B) { benchPlace(b, states, fragmented, n) })
}

// BenchmarkSet is the state of one cell with 250 instances, of 10,000 cells with as many.
func BenchmarkSet(b *testing.B) {
	states := large(10000, 300, func(i int, s *cells.State) {
		for j := range 250 {
			s.Instances = append(s.Instances, on(fmt.Sprintf("process-%d", (i*250+j)/5), int32(j%5), 256))
		}
	})
	f := New(defaults)
	for _, s := range states {
		f.Set(s)
	}
	for i := 0; b.Loop(); i++ {
		f.Set(states[i%len(states)])
		f.Place([]Work{want("p", 0, 256)})
	}
}

// TestPlacesWithoutAllocating: a placement allocates nothing of its own; what an auction allocates grows with its
// doubling lists only.
func TestPlacesWithoutAllocating(t *testing.T) {
	f := fleetOf(t, defaults, large(300, 3000, nil)...)
	work := of(50, 100, 1)
	f.Place(work) // the processes are known from now on
	allocs := testing.AllocsPerRun(10, func() { f.Place(work) })
	if per := allocs / float64(len(work)); per > 0.05 {
		t.Errorf("%v allocations for %d pieces, %.3f for each", allocs, len(work), per)
	}
}
