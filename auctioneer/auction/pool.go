package auction

import (
	"cmp"
	"slices"

	"muster/bbs/lrp"
	"muster/cells"
)

// localityWeight is added for each instance of the process on the cell; it outweighs everything else.
const localityWeight = 1000

// amounts are resources that cannot overflow when cells or work claim absurd numbers.
type amounts struct{ memory, disk, containers int64 }

func amountsOf(r cells.Resources) amounts {
	return amounts{int64(r.MemoryMB), int64(r.DiskMB), int64(r.Containers)}
}

// cell is what the auction knows of a cell, earlier placements of the same auction included.
type cell struct {
	id        lrp.CellID
	zone      *zone
	offers    offers
	available amounts
	total     amounts
	proxy     int64
	starting  int64
	position  int // in its zone, for bin packing
	instances map[lrp.ProcessGUID]int
}

// zone counts what is in a zone.
type zone struct {
	name      string
	instances map[lrp.ProcessGUID]int
}

// pool is all cells that take work, in the order of their ids.
type pool struct {
	weights  Weights
	cells    []*cell
	starting int64
}

func newPool(states []cells.State, w Weights) *pool {
	p := &pool{weights: w}
	zones := map[string]*zone{}
	index := map[*cell]int32{}
	for _, s := range states {
		if s.Evacuating || s.UnhealthyReason != "" {
			continue
		}
		z := zones[s.Zone]
		if z == nil {
			z = &zone{name: s.Zone, instances: map[lrp.ProcessGUID]int{}}
			zones[s.Zone] = z
		}
		c := &cell{
			id: s.Cell, zone: z, offers: offersOf(s),
			available: amountsOf(s.Available), total: amountsOf(s.Capacity),
			proxy: int64(max(s.ProxyMemoryAllocationMB, 0)), starting: int64(max(s.StartingContainers, 0)),
			instances: map[lrp.ProcessGUID]int{},
		}
		for _, i := range s.Instances {
			c.instances[i.Key.Process]++
			z.instances[i.Key.Process]++
		}
		p.starting += c.starting
		p.cells = append(p.cells, c)
		index[c] = s.Index
	}
	slices.SortFunc(p.cells, func(a, b *cell) int { return cmp.Compare(a.id, b.id) })
	setPositions(p.cells, index)
	return p
}

// setPositions numbers the cells of each zone by their index, so that uneven indexes of an
// installation do not favour a zone.
func setPositions(all []*cell, index map[*cell]int32) {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b *cell) int { return cmp.Compare(index[a], index[b]) })
	next := map[*zone]int{}
	for _, c := range sorted {
		c.position = next[c.zone]
		next[c.zone]++
	}
}

// lacks tells what of a need a cell does not have left.
type lacks struct{ memory, disk, containers bool }

func (l lacks) any() bool { return l.memory || l.disk || l.containers }

func (c *cell) lacks(n need) lacks {
	return lacks{
		memory:     c.available.memory < n.memory+c.proxy,
		disk:       c.available.disk < n.disk,
		containers: c.available.containers < 1,
	}
}

// score rates a cell that has room; lower is better.
func (c *cell) score(n need, w Weights) float64 {
	resource := (used(c.available.memory-n.memory-c.proxy, c.total.memory) +
		used(c.available.disk-n.disk, c.total.disk) +
		used(c.available.containers-1, c.total.containers)) / 3
	return resource +
		float64(c.starting)*w.Starting +
		localityWeight*float64(c.instances[n.process]) +
		float64(c.position)*w.BinPack
}

// used is the share in use when left remains of total. A cell that says it has nothing in all counts
// as full, so that no division by zero can make it win or lose against everything.
func used(left, total int64) float64 {
	if total <= 0 {
		return 1
	}
	return 1 - float64(left)/float64(total)
}

// reserve takes from a cell what a placement needs, in the way lacks counts it.
func (p *pool) reserve(c *cell, n need) {
	c.available.memory -= n.memory + c.proxy
	c.available.disk -= n.disk
	c.available.containers--
	c.starting++
	p.starting++
	c.instances[n.process]++
	c.zone.instances[n.process]++
}
