// Package naive is the rule of the auction in plain loops: for each piece of work every cell is looked at. Tests
// and benches hold the index of package auction against it. It shares no code with the index, only the types
// of what goes in; and what of an input makes no sense it reads in the same way.
package naive

import (
	"cmp"
	"math"
	"math/bits"
	"net/url"
	"slices"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

// Answer is what becomes of one piece of work.
type Answer struct {
	Work  *auction.Work
	Cell  lrp.CellID // empty: it is not placed
	Score int64      // in units of 2^-30
	// Limited means that as many containers are starting as may.
	Limited bool
}

// World is the cells that take work.
type World struct {
	weights  auction.Weights
	cells    []*cell
	starting int64
}

type cell struct {
	cells.State
	memory, disk, containers int64 // available
	starting                 int64
	position                 int64 // in its zone
	tasks                    int64
	instances                map[lrp.ProcessGUID]int64
}

// New returns a world of cells, of which no two have one id.
func New(states []cells.State, w auction.Weights) *World {
	n := &World{weights: w}
	for _, s := range states {
		if s.Evacuating || s.UnhealthyReason != "" {
			continue
		}
		c := &cell{
			State:  s,
			memory: int64(s.Available.MemoryMB), disk: int64(s.Available.DiskMB), containers: int64(s.Available.Containers),
			starting: int64(max(s.StartingContainers, 0)), tasks: int64(len(s.Tasks)), instances: map[lrp.ProcessGUID]int64{},
		}
		c.ProxyMemoryAllocationMB = max(c.ProxyMemoryAllocationMB, 0)
		for _, i := range s.Instances {
			c.instances[i.Key.Process]++
		}
		n.starting += c.starting
		n.cells = append(n.cells, c)
	}
	for _, c := range n.cells {
		for _, o := range n.cells {
			if w.BinPack != 0 && o.Zone == c.Zone && (o.Index < c.Index || o.Index == c.Index && o.Cell < c.Cell) {
				c.position++
			}
		}
	}
	return n
}

// Order returns work in the order in which it is placed.
func Order(work []auction.Work) []*auction.Work {
	var all []*auction.Work
	for i := range work {
		all = append(all, &work[i])
	}
	stage := func(w *auction.Work) int {
		switch {
		case w.Task != nil:
			return 1
		case w.Key.Index <= 0:
			return 0
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b *auction.Work) int {
		if x, y := stage(a), stage(b); x != y {
			return x - y
		}
		if a.Task != nil {
			return cmp.Or(cmp.Compare(memory(b), memory(a)), cmp.Compare(a.Task.Key.GUID, b.Task.Key.GUID), cmp.Compare(a.Task.Key.Domain, b.Task.Key.Domain))
		}
		return cmp.Or(cmp.Compare(a.Key.Index, b.Key.Index), cmp.Compare(memory(b), memory(a)),
			cmp.Compare(a.Key.Process, b.Key.Process), cmp.Compare(a.Key.Domain, b.Key.Domain))
	})
	return all
}

func resources(w *auction.Work) cells.Resources {
	if w.Task != nil {
		return w.Task.Resources
	}
	return w.Resources
}

func memory(w *auction.Work) int64 { return int64(max(resources(w).MemoryMB, 0)) }
func disk(w *auction.Work) int64   { return int64(max(resources(w).DiskMB, 0)) }

// Place places work, one piece after the other.
func (n *World) Place(work []auction.Work) []Answer {
	var answers []Answer
	for _, w := range Order(work) {
		a := Answer{Work: w}
		if n.weights.MaxStarting > 0 && n.starting >= int64(n.weights.MaxStarting) {
			a.Limited = len(n.cells) > 0
			answers = append(answers, a)
			continue
		}
		if c, score := n.choose(w); c != nil {
			n.reserve(c, w)
			a.Cell, a.Score = c.Cell, score
		}
		answers = append(answers, a)
	}
	return answers
}

// choose returns the cell that wins: of the zones with the fewest instances of the process that have a cell with
// room, the cell with the lowest score; of equal ones that with the smallest id.
func (n *World) choose(w *auction.Work) (best *cell, lowest int64) {
	inZone := map[string]int64{}
	if w.Task == nil {
		for _, c := range n.cells {
			inZone[c.Zone] += c.instances[w.Key.Process]
		}
	}
	rootFS, drivers, tags := w.RootFS, w.VolumeDrivers, w.PlacementTags
	if w.Task != nil {
		rootFS, drivers, tags = w.Task.RootFS, w.Task.VolumeDrivers, w.Task.PlacementTags
	}
	u, err := url.Parse(rootFS)
	for _, c := range n.cells {
		if err != nil || !c.offers(u, drivers, tags) || !c.room(w) || slices.Contains(w.Avoid, c.Cell) {
			continue
		}
		s := n.score(c, w)
		if best != nil {
			x, y := inZone[c.Zone], inZone[best.Zone]
			if x > y || x == y && (s > lowest || s == lowest && c.Cell > best.Cell) {
				continue
			}
		}
		best, lowest = c, s
	}
	return best, lowest
}

// offers tells whether the cell has the root file system and the drivers, and required ⊆ tags ⊆ required ∪ optional.
func (c *cell) offers(u *url.URL, drivers, tags []string) bool {
	p, ok := c.RootFSProviders[u.Scheme]
	if !ok || u.Scheme == "" || len(p.Names) > 0 && !slices.Contains(p.Names, u.Opaque) {
		return false
	}
	for _, d := range drivers {
		if !slices.Contains(c.VolumeDrivers, d) {
			return false
		}
	}
	for _, t := range c.PlacementTags {
		if !slices.Contains(tags, t) {
			return false
		}
	}
	for _, t := range tags {
		if !slices.Contains(c.PlacementTags, t) && !slices.Contains(c.OptionalPlacementTags, t) {
			return false
		}
	}
	return true
}

// takes is the memory that the cell gives away for the work.
func (c *cell) takes(w *auction.Work) int64 {
	if w.Task != nil {
		return memory(w)
	}
	return memory(w) + int64(c.ProxyMemoryAllocationMB)
}

func (c *cell) room(w *auction.Work) bool {
	return c.memory >= c.takes(w) && c.disk >= disk(w) && c.containers >= 1
}

const unit = 1 << 30

// score is the mean share in use with the work, and the weights times what they are for. Every term is rounded
// down to the unit; the shares in use before and what is added are terms of their own.
func (n *World) score(c *cell, w *auction.Work) int64 {
	t := c.Capacity
	s := third(inUse(t.MemoryMB, c.memory), t.MemoryMB) + third(inUse(t.DiskMB, c.disk), t.DiskMB) + third(inUse(t.Containers, c.containers-1), t.Containers)
	if t.MemoryMB > 0 {
		s += third(c.takes(w), t.MemoryMB)
	}
	if t.DiskMB > 0 {
		s += third(disk(w), t.DiskMB)
	}
	s += weighed(n.weights.Starting, c.starting)
	if w.Task != nil {
		return s + weighed(1000, c.tasks)
	}
	return s + weighed(n.weights.BinPack, c.position) + weighed(1000, c.instances[w.Key.Process])
}

// inUse is what is not available of a total.
func inUse(total int32, available int64) int64 { return max(int64(total)-available, 0) }

// third is a third of the share of an amount in a total, of which it is at most all; a total of nothing is all in
// use. The factor for one MB is rounded down to 2^-62, the product to the unit.
func third(amount int64, total int32) int64 {
	if total <= 0 {
		return unit / 3
	}
	hi, lo := bits.Mul64(uint64(amount), uint64(1<<62/(3*int64(total))))
	return min(int64(hi<<32+lo>>32), unit/3)
}

// weighed is a weight times a count, and at most 2^29.
func weighed(weight float64, count int64) int64 {
	if math.IsNaN(weight) || weight < 0 {
		weight = 0
	}
	w := int64(math.Round(min(weight, 1e6) * unit))
	if hi, lo := bits.Mul64(uint64(w), uint64(count)); hi == 0 && lo < 1<<59 {
		return int64(lo)
	}
	return 1 << 59
}

func (n *World) reserve(c *cell, w *auction.Work) {
	c.memory -= c.takes(w)
	c.disk -= disk(w)
	c.containers--
	c.starting++
	n.starting++
	if w.Task != nil {
		c.tasks++
		return
	}
	c.instances[w.Key.Process]++
}
