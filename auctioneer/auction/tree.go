package auction

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// tree finds the cell with the lowest score among the cells of a group: a binary tree over the cells whose
// nodes know bounds of everything below them. A search goes down the side with the lower bound and leaves
// out what has no room or cannot win. The arrangement of the leaves has no influence on what is found, only
// on how fast: cells that look alike are to be neighbours. The tree counts what it visits in vain and
// arranges its leaves anew when that has cost more than arranging does.
type tree struct {
	nodes  []bounds // nodes[1] is the root, the children of i are 2i and 2i+1, the second half are leaves
	cells  []int32  // by leaf; -1: none
	free   []int32  // leaves without a cell
	loose  int      // cells added since the leaves were arranged
	wasted int      // visits in vain since then
	// patience doubles what is wasted before the next arrangement. It grows when arranging did not help.
	patience int
	// arranged is another number whenever a leaf gets another cell, so that whoever keeps something by
	// leaf notices.
	arranged uint64
}

// bounds are the best that a cell below a node could be, each of them on its own. They fill a line of the
// processor's cache.
type bounds struct {
	load         int64 // least, for instances; never: no cell takes anything
	taskLoad     int64 // least, for tasks
	leaf         int32 // of the first cell with the least load
	taskLeaf     int32 // of the first cell with the least load for tasks
	memory, disk int64 // most available
	memoryRate   rate  // least
	diskRate     rate  // least
	order        uint64
}

// nobody are the bounds of no cell at all.
var nobody = bounds{load: never, taskLoad: never, memory: math.MinInt64, disk: math.MinInt64,
	memoryRate: math.MaxUint64, diskRate: math.MaxUint64, order: math.MaxUint64}

// join returns the bounds of both children of a node.
func (t *tree) join(i int) bounds {
	b, o := t.nodes[2*i], &t.nodes[2*i+1]
	if o.load < b.load || o.load == b.load && t.order(o.leaf) < t.order(b.leaf) {
		b.load, b.leaf = o.load, o.leaf
	}
	if o.taskLoad < b.taskLoad || o.taskLoad == b.taskLoad && t.order(o.taskLeaf) < t.order(b.taskLeaf) {
		b.taskLoad, b.taskLeaf = o.taskLoad, o.taskLeaf
	}
	b.memory, b.disk = max(b.memory, o.memory), max(b.disk, o.disk)
	b.memoryRate, b.diskRate = min(b.memoryRate, o.memoryRate), min(b.diskRate, o.diskRate)
	b.order = min(b.order, o.order)
	return b
}

// order is that of the cell at a leaf.
func (t *tree) order(leaf int32) uint64 { return t.nodes[t.size()+int(leaf)].order }

// size is how many leaves there are.
func (t *tree) size() int { return len(t.nodes) / 2 }

// set says what is at a leaf.
func (t *tree) set(leaf int32, b bounds) {
	i := t.size() + int(leaf)
	b.leaf, b.taskLeaf = leaf, leaf
	t.nodes[i] = b
	for i > 1 {
		i /= 2
		joined := t.join(i)
		if joined == t.nodes[i] {
			return
		}
		t.nodes[i] = joined
	}
}

// take gives a free leaf to a cell; ok is false when there is none.
func (t *tree) take(cell int32) (leaf int32, ok bool) {
	last := len(t.free) - 1
	if last < 0 {
		return 0, false
	}
	leaf, t.free = t.free[last], t.free[:last]
	t.cells[leaf] = cell
	t.loose++
	return leaf, true
}

// leave takes the leaf from its cell.
func (t *tree) leave(leaf int32) {
	t.set(leaf, nobody)
	t.cells[leaf] = -1
	t.free = append(t.free, leaf)
}

// len is how many cells there are.
func (t *tree) len() int { return t.size() - len(t.free) }

// maxPatience keeps arranging from being given up where it does not help today.
const maxPatience = 4

// disordered tells whether arranging the leaves is worth its price.
func (t *tree) disordered() bool {
	return t.loose > t.len()/8+8 || t.wasted > (16*t.size()+1024)<<t.patience
}

// arrange gives the cells the leaves in their order, with room for some more.
func (t *tree) arrange(all []likened) {
	size := 1
	for size < len(all)+len(all)/16 {
		size *= 2
	}
	patience := 0
	if t.wasted > 0 {
		patience = min(t.patience+1, maxPatience)
	}
	*t = tree{nodes: resize(t.nodes, 2*size), cells: resize(t.cells, size), free: t.free[:0], patience: patience}
	for i := range t.nodes {
		t.nodes[i] = nobody
		t.nodes[i].leaf, t.nodes[i].taskLeaf = int32(i&(size-1)), int32(i&(size-1))
	}
	for leaf, l := range all {
		t.cells[leaf] = l.cell
	}
	for leaf := size - 1; leaf >= len(all); leaf-- {
		t.cells[leaf] = -1
		t.free = append(t.free, int32(leaf))
	}
}

// sum computes the inner nodes from the leaves.
func (t *tree) sum() {
	for i := t.size() - 1; i > 0; i-- {
		t.nodes[i] = t.join(i)
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}

// likeness is a number that is close for cells that look alike: first by what a MB of their memory and disk
// counts, then by how much of both is left.
func (c *cell) likeness() uint64 {
	return alike(uint64(c.memoryRate), uint64(c.diskRate))<<24 | alike(uint64(max(c.available.memory, 0)), uint64(max(c.available.disk, 0)))
}

// alike puts the bits of two logarithms in turn, so that pairs that are close in both are close in it more
// often than not; 24 bits.
func alike(a, b uint64) uint64 { return spread(coarse(a))<<1 | spread(coarse(b)) }

// likened is a cell and its likeness.
type likened struct {
	likeness uint64
	cell     int32
}

// coarse is the logarithm of a number, in steps of about 3%; 12 bits.
func coarse(x uint64) uint64 {
	n := bits.Len64(x)
	if n < 6 {
		return x
	}
	return uint64(n<<5) | x>>(n-6)&31
}

// spread puts a zero before each of the low 17 bits.
func spread(x uint64) uint64 {
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	x = (x | x<<2) & 0x3333333333333333
	return (x | x<<1) & 0x5555555555555555
}

// arrangeGroup arranges the leaves of a group by likeness.
func (f *Fleet) arrangeGroup(g *group) {
	all := f.likened[:0]
	for _, c := range g.tree.cells {
		if c >= 0 {
			all = append(all, likened{f.cells[c].likeness(), c})
		}
	}
	f.likened = all
	slices.SortFunc(all, func(a, b likened) int {
		return cmp.Or(cmp.Compare(a.likeness, b.likeness), cmp.Compare(a.cell, b.cell))
	})
	g.tree.arrange(all)
	g.tree.arranged = f.arrangement()
	size := g.tree.size()
	for leaf, l := range all {
		f.cells[l.cell].leaf = int32(leaf)
		b := f.bounds(&f.cells[l.cell])
		b.leaf, b.taskLeaf = int32(leaf), int32(leaf)
		g.tree.nodes[size+leaf] = b
	}
	g.tree.sum()
}

// arrangement returns a number that no tree of this fleet has had.
func (f *Fleet) arrangement() uint64 {
	f.arrangements++
	return f.arrangements
}
