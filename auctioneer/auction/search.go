package auction

import (
	"math/bits"
	"slices"
)

// need is the resources of a piece of work, without the proxy of the cell.
type need struct{ memory, disk int64 }

func (n need) least(o need) bool { return n.memory <= o.memory && n.disk <= o.disk }

// query is one search: what is wanted, and the best that was found so far.
type query struct {
	need
	process *process // nil: a task
	avoid   []int32

	best  int32 // cell; -1: none
	score int64
	order uint64
	held  int // visits to cells that have the process already

	later [64]branch // nodes of a tree, which is never as deep
}

// begin makes the query one that found nothing.
func (q *query) begin(n need, p *process) {
	q.need, q.process, q.avoid = n, p, q.avoid[:0]
	q.best, q.score, q.order, q.held = -1, never, 0, 0
}

// beats tells whether a cell of this score and order, or anything below a node with these bounds, could win.
func (q *query) beats(score int64, order uint64) bool {
	return score < q.score || score == q.score && order < q.order && q.best >= 0
}

// probe is a query in one tree.
type probe struct {
	*query
	tree         *tree
	nodes        []bounds // of the tree
	memory, disk int64    // with the proxy
	counts       []uint16 // of the overlay; nil: none
	depth        int      // nodes in later
}

// branch is a node that is looked at later, and the least score below it.
type branch struct {
	node  int
	score int64
}

// bound returns the least score that something below a node can have; ok is false when nothing there has
// room, or can win.
func (p *probe) bound(i int) (score int64, ok bool) {
	n := &p.nodes[i]
	if n.memory < p.memory || n.disk < p.disk {
		return 0, false
	}
	score = n.load
	if p.process == nil {
		score = n.taskLoad
	}
	score += n.memoryRate.of(p.memory) + n.diskRate.of(p.disk)
	if p.counts != nil {
		score += locality * int64(p.counts[i])
	}
	return score, p.beats(score, n.order)
}

// promised returns the leaf of a cell below a node that keeps what the node promises, and is first of those that do.
// Then there is nothing better below. It is usual where all cells have the same totals.
func (p *probe) promised(i, size int) (leaf int, ok bool) {
	n := &p.nodes[i]
	leaf = size + int(n.leaf)
	if p.process == nil {
		leaf = size + int(n.taskLeaf)
	}
	l := &p.nodes[leaf]
	return leaf, l.memoryRate == n.memoryRate && l.diskRate == n.diskRate && l.memory >= p.memory && l.disk >= p.disk &&
		(p.counts == nil || p.counts[leaf] == p.counts[i])
}

// free tells whether nothing about a cell speaks against it that its bounds do not know.
func (p *probe) free(cell int32) bool {
	return (p.process == nil || p.counts != nil || p.process.cells.of(cell) == 0) && !slices.Contains(p.avoid, cell)
}

// seek looks for a better cell in a group than the one that was found so far.
func (f *Fleet) seek(at int32) {
	g := &f.groups[at]
	if g.tree.size() == 0 {
		return
	}
	p := probe{query: &f.q, tree: &g.tree, nodes: g.tree.nodes, memory: f.q.memory, disk: f.q.disk}
	if f.q.process != nil {
		p.memory += g.proxy
		p.counts = f.overlayFor(f.q.process, at)
	}
	score, ok := p.bound(1)
	if !ok {
		return
	}
	held, visits := f.q.held, 0
	for next := (branch{1, score}); ok; next, ok = p.pop() {
		if leaf, ok := p.descend(next); ok {
			f.weigh(g.tree.cells[leaf.node-g.tree.size()], leaf.score, p.nodes[leaf.node].order, p.counts != nil)
		}
		visits++
	}
	f.account(g, visits, f.q.held-held)
}

// descend goes down to a leaf, on the side that promises more; ok is false when nothing below can win.
func (p *probe) descend(b branch) (leaf branch, ok bool) {
	size := p.tree.size()
	for b.node < size {
		if leaf, ok := p.promised(b.node, size); ok && p.free(p.tree.cells[leaf-size]) {
			return branch{leaf, b.score}, true
		}
		if b, ok = p.side(2 * b.node); !ok {
			return b, false
		}
	}
	return b, true
}

// side returns the better of two nodes, and leaves the other for later; ok is false when neither can win.
func (p *probe) side(node int) (better branch, ok bool) {
	l, r := branch{node: node}, branch{node: node + 1}
	var left, right bool
	l.score, left = p.bound(l.node)
	r.score, right = p.bound(r.node)
	switch {
	case left && right:
		if r.score < l.score || r.score == l.score && p.nodes[r.node].order < p.nodes[l.node].order {
			l, r = r, l
		}
		p.later[p.depth] = r
		p.depth++
		return l, true
	case right:
		return r, true
	}
	return l, left
}

// pop returns a node that was left for later and can still win.
func (p *probe) pop() (next branch, ok bool) {
	for p.depth > 0 {
		p.depth--
		next = p.later[p.depth]
		if p.beats(next.score, p.nodes[next.node].order) {
			return next, true
		}
	}
	return next, false
}

// weigh compares one cell that has room with the best so far. Its score lacks the instances of the process,
// unless counted says that an overlay has added them.
func (f *Fleet) weigh(cell int32, score int64, order uint64, counted bool) {
	q := &f.q
	if q.process != nil {
		if n := q.process.cells.of(cell); n > 0 {
			if counted {
				score -= locality * int64(saturated(n))
			}
			score += times(locality, int64(n))
			q.held++
		}
	}
	if q.beats(score, order) && !slices.Contains(q.avoid, cell) {
		q.best, q.score, q.order = cell, score, order
	}
}

// account notes what a search has cost beyond what it should have.
func (f *Fleet) account(g *group, visits, held int) {
	usual := 4 + bits.Len(uint(g.tree.size()))
	switch {
	case visits <= usual:
	case 2*held > visits && f.q.process.overlay == nil:
		f.q.process.wasted += visits
		f.overlayIfWorthIt(f.q.process)
	default:
		g.tree.wasted += 2 * (visits - usual)
		if g.tree.disordered() {
			f.arrangeGroup(g)
		}
	}
}

// seekTask finds the cell for a task in any zone.
func (f *Fleet) seekTask(c *constraint) {
	for _, z := range c.zones {
		for _, g := range z.groups {
			f.seek(g)
		}
	}
}

// seekInstance finds the cell for an instance: the zones with the fewest instances of the process compete
// as one, and only when they have no room those with the next number do.
func (f *Fleet) seekInstance(c *constraint) {
	zones := &f.q.process.zones
	for level := int32(-1); f.q.best < 0; {
		fewest := int32(-1)
		for _, z := range c.zones {
			if n := zones.of(z.zone); n > level && (fewest < 0 || n < fewest) {
				fewest = n
			}
		}
		if fewest < 0 {
			return
		}
		level = fewest
		for _, z := range c.zones {
			if zones.of(z.zone) != level {
				continue
			}
			for _, g := range z.groups {
				f.seek(g)
			}
		}
	}
}
