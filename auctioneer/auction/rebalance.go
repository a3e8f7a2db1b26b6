package auction

import (
	"container/heap"
	"slices"

	"muster/bbs/lrp"
	"muster/cells"
)

// Move is an instance that would be better off on another cell.
type Move struct {
	Instance cells.Instance
	From, To lrp.CellID
	Gain     Gain
}

// Gain is what a move makes better.
type Gain int

// The gains, in the order of their weight: a move is worth its price when it improves one and leaves those before it
// as they are.
const (
	NoGain Gain = iota
	// MoreEvenZones: the zones' numbers of instances of the process come closer.
	MoreEvenZones
	// MoreEvenCells: so do those of the cells.
	MoreEvenCells
	// MoreEvenLoad: the shares in use come closer: what is in use of memory, disk and containers, times its share
	// of the cell's total, added up over the cells, falls.
	MoreEvenLoad
)

// minLoadGain is how much of its sum, where 1 is a fleet of which all is in use, a move must gain to be worth it.
const minLoadGain = 1e-9

// maxPasses bounds how often all cells are looked at. Two do: moves of the first may make others possible.
const maxPasses = 64

// Rebalance returns moves that make a fleet more even, for example after a cell was added: at most limit, to be made
// in this order, each when the one before runs. A move takes an instance that runs off its cell and places it by the
// rules of an auction; starting containers count as they are in the states. It is taken only when it gains
// something, and what it gains no later move gives back, so that moves end and never go round. With bin packing,
// load is uneven on purpose and no reason to move.
func Rebalance(states []cells.State, w Weights, limit int) []Move {
	r := rebalancing{Fleet: New(w), states: map[lrp.CellID]*cells.State{}, limit: limit}
	for i := range states {
		if r.Set(states[i]); states[i].Cell != "" {
			r.states[states[i].Cell] = &states[i]
		}
	}
	r.begin()
	r.start()
	for range maxPasses {
		if before := len(r.moves); r.pass() == before {
			break
		}
	}
	return r.moves
}

// rebalancing is a fleet on its way to being even.
type rebalancing struct {
	*Fleet
	states map[lrp.CellID]*cells.State
	limit  int
	moves  []Move
	total  amounts              // of all cells that take work
	there  map[int32][]*located // instances that may be moved, by cell
}

// located is an instance as the search knows it.
type located struct {
	piece
	instance *cells.Instance
}

// start sums up the cells and reads their instances.
func (r *rebalancing) start() {
	r.there = map[int32][]*located{}
	for _, i := range r.byID {
		c := &r.cells[i]
		if c.group < 0 {
			continue
		}
		r.total.memory += max(c.total.memory, 0)
		r.total.disk += max(c.total.disk, 0)
		r.total.containers += max(c.total.containers, 0)
		s := r.states[c.id]
		for n := range s.Instances {
			if s.Instances[n].State != cells.InstanceRunning {
				continue
			}
			w := Work{Instance: s.Instances[n]}
			r.there[i] = append(r.there[i], &located{piece: r.piece(&w), instance: &s.Instances[n]})
		}
	}
}

// pass takes one move after the other from the cell that is fullest then, leaves out cells that have none to give, and
// returns how many moves there are in the end.
func (r *rebalancing) pass() int {
	q := make(fullest, 0, len(r.byID))
	for _, i := range r.byID {
		q = append(q, filled{r.share(i), r.cells[i].order, i})
	}
	heap.Init(&q)
	for q.Len() > 0 && len(r.moves) < r.limit {
		top := &q[0]
		switch share := r.share(top.cell); {
		case share != top.share: // it has got something since, or given
			top.share = share
			heap.Fix(&q, 0)
		case !r.improve(top.cell):
			heap.Pop(&q)
		}
	}
	return len(r.moves)
}

// filled is a cell and its share in use.
type filled struct {
	share int64
	order uint64
	cell  int32
}

// fullest is a heap of cells, the fullest first.
type fullest []filled

// Len is that of heap.Interface, as are the others.
func (q fullest) Len() int { return len(q) }

func (q fullest) Less(a, b int) bool {
	return q[a].share > q[b].share || q[a].share == q[b].share && q[a].order < q[b].order
}

func (q fullest) Swap(a, b int) { q[a], q[b] = q[b], q[a] }

// Push is not used: cells only leave.
func (q *fullest) Push(x any) { *q = append(*q, x.(filled)) }

// Pop removes the last.
func (q *fullest) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// share is the mean share in use, in units.
func (r *rebalancing) share(i int32) int64 {
	c := &r.cells[i]
	return c.memoryRate.used(c.available.memory, c.total.memory) + c.diskRate.used(c.available.disk, c.total.disk) +
		c.containerRate.used(c.available.containers, c.total.containers)
}

// improve makes the best move away from a cell; false when there is none.
func (r *rebalancing) improve(from int32) bool {
	best, to, gain, load := -1, int32(-1), NoGain, 0.0
	tried := map[piece]bool{}
	for n, l := range r.there[from] {
		key := l.piece
		if tried[key] {
			continue // the same as one before
		}
		tried[key] = true
		target, g, by := r.try(from, l)
		if g != NoGain && (gain == NoGain || g < gain || g == gain && by > load) {
			best, to, gain, load = n, target, g, by
		}
	}
	if best < 0 {
		return false
	}
	l := r.there[from][best]
	r.shift(from, l, -1)
	r.shift(to, l, 1)
	r.there[from] = slices.Delete(r.there[from], best, best+1)
	r.there[to] = append(r.there[to], l)
	r.moves = append(r.moves, Move{Instance: *l.instance, From: r.cells[from].id, To: r.cells[to].id, Gain: gain})
	return true
}

// try says where an instance would go, and what that would gain.
func (r *rebalancing) try(from int32, l *located) (to int32, g Gain, load float64) {
	p := &r.processes[l.process]
	zone, here := p.zones.of(r.cells[from].zone), p.cells.of(from)
	r.shift(from, l, -1)
	w := Work{Instance: *l.instance}
	r.auction++ // what had no room before may have it now
	r.choose(&l.piece, &w)
	to = r.q.best
	r.shift(from, l, 1)
	if to < 0 || to == from {
		return to, NoGain, 0
	}
	a, b := &r.cells[from], &r.cells[to]
	load = r.lighter(a, b, l.need)
	thereZone, there := p.zones.of(b.zone), p.cells.of(to)
	switch {
	case a.zone != b.zone && zone > thereZone+1:
		return to, MoreEvenZones, load
	case a.zone != b.zone && zone < thereZone+1:
		return to, NoGain, 0
	case here > there+1:
		return to, MoreEvenCells, load
	case here < there+1:
		return to, NoGain, 0
	case load > minLoadGain && r.weights.binPack == 0:
		return to, MoreEvenLoad, load
	}
	return to, NoGain, 0
}

// lighter is by how much the sum of what is in use times its share falls when a need moves from a to b.
func (r *rebalancing) lighter(a, b *cell, n need) float64 {
	return (lighter(a.total.memory-a.available.memory, a.total.memory, n.memory+a.proxy, r.total.memory) +
		lighter(b.total.memory-b.available.memory, b.total.memory, -n.memory-b.proxy, r.total.memory) +
		lighter(a.total.disk-a.available.disk, a.total.disk, n.disk, r.total.disk) +
		lighter(b.total.disk-b.available.disk, b.total.disk, -n.disk, r.total.disk) +
		lighter(a.total.containers-a.available.containers, a.total.containers, 1, r.total.containers) +
		lighter(b.total.containers-b.available.containers, b.total.containers, -1, r.total.containers)) / 3
}

// lighter is by how much used²/total falls when less is in use; in shares of all that there is.
func lighter(used, total, less, all int64) float64 {
	if total <= 0 {
		return 0
	}
	return float64(less) * float64(2*used-less) / float64(total) / float64(all)
}

// shift takes an instance off a cell, or puts it on.
func (r *rebalancing) shift(i int32, l *located, by int32) {
	c := &r.cells[i]
	c.available.memory -= int64(by) * (l.memory + c.proxy)
	c.available.disk -= int64(by) * l.disk
	c.available.containers -= int64(by)
	r.countOn(i, l.process, by)
	r.processes[l.process].zones.add(c.zone, by)
	r.refresh(c)
}
