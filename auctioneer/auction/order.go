package auction

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// piece is a piece of work on its way through an auction.
type piece struct {
	first      uint64 // order of index and memory
	rank       int32  // order of the process
	at         int32  // in the work
	process    int32  // -1: a task
	constraint int32
	avoids     bool // there are cells that must not get it
	need
}

// urgency packs index and memory: instances of index 0, then tasks, then the other instances by index, in each
// larger memory first. The upper 33 bits are for twice the index, between two of which the tasks come, the
// lower 31 for the memory.
func urgency(w *Work, memory int64) uint64 {
	turn := int64(1)
	if w.Task == nil {
		turn = 2 * int64(w.Key.Index)
	}
	return uint64(turn+1<<32)<<31 | uint64(math.MaxInt32-memory)
}

// inOrder sorts work. The order is total: pieces of the same process, index and size go by domain and then in
// the order they came.
func (f *Fleet) inOrder(work []Work) []piece {
	f.sorted, f.named = f.sorted[:0], f.named[:0]
	for i := range work {
		w := &work[i]
		p := piece{at: int32(i), process: -1, avoids: len(w.Avoid) > 0, need: w.need()}
		p.first = urgency(w, p.memory)
		if w.Task != nil {
			p.constraint = f.constraint(w.Task.RootFS, w.Task.VolumeDrivers, w.Task.PlacementTags)
		} else {
			p.constraint = f.constraint(w.RootFS, w.VolumeDrivers, w.PlacementTags)
			p.process = f.process(w.Key.Process)
			f.name(p.process)
		}
		f.sorted = append(f.sorted, p)
	}
	f.rank()
	for i := range f.sorted {
		if p := &f.sorted[i]; p.process >= 0 {
			p.rank = f.processes[p.process].rank
		}
	}
	slices.SortFunc(f.sorted, func(a, b piece) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		if a.rank != b.rank {
			return cmp.Compare(a.rank, b.rank)
		}
		return cmp.Or(byName(&work[a.at], &work[b.at]), cmp.Compare(a.at, b.at))
	})
	return f.sorted
}

// byName orders pieces that are equally urgent, and of the same process if they are instances.
func byName(a, b *Work) int {
	if a.Task != nil {
		return cmp.Or(strings.Compare(string(a.Task.Key.GUID), string(b.Task.Key.GUID)), strings.Compare(string(a.Task.Key.Domain), string(b.Task.Key.Domain)))
	}
	return strings.Compare(string(a.Key.Domain), string(b.Key.Domain))
}

// name remembers that there is work of a process.
func (f *Fleet) name(p int32) {
	if f.processes[p].in != f.auction {
		f.processes[p].in = f.auction
		f.named = append(f.named, p)
	}
}

// rank numbers the processes of the work in the order of their GUIDs.
func (f *Fleet) rank() {
	slices.SortFunc(f.named, func(a, b int32) int {
		return strings.Compare(string(f.processes[a].guid), string(f.processes[b].guid))
	})
	for n, p := range f.named {
		f.processes[p].rank = int32(n)
	}
}
