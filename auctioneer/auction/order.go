package auction

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// piece is a piece of work on its way through an auction.
type piece struct {
	at         int32 // in the work
	process    int32 // -1: a task
	constraint int32
	avoids     bool // there are cells that must not get it
	need
}

// key is where a piece comes in the order: by urgency, then by the rank of its process in the upper half of
// second. The lower half is its number, which makes the order total.
type key struct{ first, second uint64 }

// same tells whether only names can tell which of two comes first.
func (k key) same(o key) bool { return k.first == o.first && k.second>>32 == o.second>>32 }

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

// inOrder returns work in the order in which it is placed.
func (f *Fleet) inOrder(work []Work) []piece {
	f.pieces, f.named = slices.Grow(f.pieces[:0], len(work)), f.named[:0]
	keys := slices.Grow(f.keys[0][:0], len(work))
	for i := range work {
		w := &work[i]
		p := f.piece(w)
		p.at = int32(i)
		f.pieces = append(f.pieces, p)
		keys = append(keys, key{urgency(w, p.memory), uint64(i)})
	}
	f.rank()
	for i := range keys {
		if p := f.pieces[i].process; p >= 0 {
			keys[i].second |= uint64(f.processes[p].rank) << 32
		}
	}
	f.keys[0], f.keys[1] = sorted(keys, slices.Grow(f.keys[1][:0], len(keys))[:len(keys)])
	keys = f.keys[0]
	for i := 0; i < len(keys); {
		end := i + 1
		for end < len(keys) && keys[end].same(keys[i]) {
			end++
		}
		if end > i+1 {
			slices.SortFunc(keys[i:end], func(a, b key) int {
				return cmp.Or(byName(&work[uint32(a.second)], &work[uint32(b.second)]), cmp.Compare(a.second, b.second))
			})
		}
		i = end
	}
	// The loads of this loop do not wait for each other, as those of the placements would.
	f.ordered = slices.Grow(f.ordered[:0], len(keys))
	for _, k := range keys {
		f.ordered = append(f.ordered, f.pieces[uint32(k.second)])
	}
	return f.ordered
}

// piece reads a piece of work.
func (f *Fleet) piece(w *Work) piece {
	p := piece{process: -1, avoids: len(w.Avoid) > 0, need: w.need()}
	if w.Task != nil {
		p.constraint = f.constraint(w.Task.RootFS, w.Task.VolumeDrivers, w.Task.PlacementTags)
		return p
	}
	p.constraint = f.constraint(w.RootFS, w.VolumeDrivers, w.PlacementTags)
	p.process = f.process(w.Key.Process)
	if pr := &f.processes[p.process]; pr.in != f.auction {
		pr.in = f.auction
		f.named = append(f.named, p.process)
	}
	return p
}

// sorted sorts keys byte by byte, from the last, with room for as many; bytes that are the same everywhere are
// left out. It returns the keys in order, and the room.
func sorted(keys, room []key) (inOrder, rest []key) {
	var differ key
	for _, k := range keys {
		differ.first |= k.first ^ keys[0].first
		differ.second |= k.second ^ keys[0].second
	}
	for shift := 0; shift < 128; shift += 8 {
		if digit(differ, shift) == 0 {
			continue
		}
		var next [256]int
		for _, k := range keys {
			next[digit(k, shift)]++
		}
		at := 0
		for d, n := range next {
			next[d], at = at, at+n
		}
		for _, k := range keys {
			d := digit(k, shift)
			room[next[d]] = k
			next[d]++
		}
		keys, room = room, keys
	}
	return keys, room
}

// digit is a byte of a key, of which second is the lower half.
func digit(k key, shift int) byte {
	if shift < 64 {
		return byte(k.second >> shift)
	}
	return byte(k.first >> (shift - 64))
}

// byName orders pieces that are equally urgent, and of the same process if they are instances.
func byName(a, b *Work) int {
	if a.Task != nil {
		return cmp.Or(strings.Compare(string(a.Task.Key.GUID), string(b.Task.Key.GUID)), strings.Compare(string(a.Task.Key.Domain), string(b.Task.Key.Domain)))
	}
	return strings.Compare(string(a.Key.Domain), string(b.Key.Domain))
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
