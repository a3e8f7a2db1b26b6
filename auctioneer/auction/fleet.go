package auction

import (
	"cmp"
	"maps"
	"slices"

	"muster/bbs/lrp"
	"muster/cells"
)

// Fleet is the cells as the auction knows them, in an index that follows their states: a changed state costs
// the size of that cell, not of the fleet. It is not safe for concurrent use.
type Fleet struct {
	weights  weights
	starting int64 // containers, on all cells that take work
	taking   int   // cells that take work

	ids    map[lrp.CellID]int32
	cells  []cell
	unused []int32 // entries of cells
	byID   []int32 // cells in the order of their ids

	zones    []zone
	zoneIDs  map[string]int32
	groups   []group
	groupIDs map[string]int32
	retired  []int32 // entries of groups
	// made grows with each group that comes or goes, and makes constraints look at the groups again.
	made int

	processes   []process
	processIDs  map[lrp.ProcessGUID]int32
	unusedGUIDs []int32 // entries of processes
	overlays    int     // processes that have one

	constraints   []constraint
	constraintIDs map[string]int32
	auction       uint64 // number of the auction, for what holds within one
	arrangements  uint64 // of trees, so far

	likened []likened
	name    []byte
	q       query
	pieces  []piece
	ordered []piece
	keys    [2][]key
	refused []failure
	named   []int32 // processes of which there is work
}

// cell is what the auction knows of a cell, what it has placed there included.
type cell struct {
	id    lrp.CellID
	order uint64 // smaller than that of every cell with a larger id
	zone  int32
	group int32 // -1: it takes no work
	leaf  int32 // in the tree of its group

	available, total                    amounts
	memoryRate, diskRate, containerRate rate
	proxy                               int64

	starting  int64
	index     int32
	position  int64   // in its zone, for bin packing; kept only when it counts
	tasks     int64   // that are there
	instances []int32 // their processes
}

// zone is a set of cells that fail together.
type zone struct {
	name     string
	members  []int32 // cells, by index and id; kept only for bin packing
	unsorted bool
}

// group is the cells of a zone that offer the same.
type group struct {
	key    string // empty: no group
	zone   int32
	offers offers
	proxy  int64
	tree   tree
}

// process is what the auction knows of a process, tasks aside.
type process struct {
	guid  lrp.ProcessGUID
	total int
	cells counts
	zones counts
	rank  int32 // of the GUID among those of the auction of the number in
	in    uint64
	// wasted counts visits to cells that lost because they have the process already; when there were
	// many, overlay is made.
	wasted  int
	overlay *overlay
}

// New returns a fleet without cells. Weights that make no sense count as their nearest bound; Weights.Check
// names them.
func New(w Weights) *Fleet {
	return &Fleet{
		weights: weightsOf(w), ids: map[lrp.CellID]int32{}, zoneIDs: map[string]int32{}, groupIDs: map[string]int32{},
		processIDs: map[lrp.ProcessGUID]int32{}, constraintIDs: map[string]int32{},
	}
}

// Len returns how many cells there are, whether they take work or not.
func (f *Fleet) Len() int { return len(f.ids) }

// Set replaces all that is known of a cell, what Place reserved there included. A state without an id is not
// taken; numbers that make no sense are taken as the nearest that do. The error names them all; it is for
// whoever looks after the cell.
func (f *Fleet) Set(s cells.State) error {
	if s.Cell == "" {
		return &StateError{Field: "cell_id", Value: `""`, Bound: "an id"}
	}
	i, known := f.ids[s.Cell]
	if !known {
		i = f.add(s.Cell)
	}
	old := f.cells[i]
	c := &f.cells[i]
	c.instances = nil
	if s.Evacuating || s.UnhealthyReason != "" {
		f.leaveGroup(i)
		c.starting, c.tasks = 0, 0
	} else {
		f.fill(c, s)
		z := f.zone(s.Zone)
		c.instances = make([]int32, 0, len(s.Instances))
		for _, inst := range s.Instances {
			f.host(i, z, f.process(inst.Key.Process))
		}
		f.joinGroup(i, z, s)
		f.starting += c.starting
	}
	f.forget(i, &old)
	return CheckState(s)
}

// fill takes the numbers of a state.
func (f *Fleet) fill(c *cell, s cells.State) {
	c.total, c.available = amountsOf(s.Capacity), amountsOf(s.Available)
	c.memoryRate, c.diskRate, c.containerRate = rateOf(c.total.memory), rateOf(c.total.disk), rateOf(c.total.containers)
	c.proxy = max(int64(s.ProxyMemoryAllocationMB), 0)
	c.starting, c.tasks = max(int64(s.StartingContainers), 0), int64(len(s.Tasks))
}

// forget takes back what a cell had contributed as it was before.
func (f *Fleet) forget(i int32, old *cell) {
	f.starting -= old.starting
	for _, p := range old.instances {
		f.unhost(i, old.zone, p)
	}
}

// Remove forgets a cell.
func (f *Fleet) Remove(id lrp.CellID) {
	i, known := f.ids[id]
	if !known {
		return
	}
	f.leaveGroup(i)
	old := f.cells[i]
	f.forget(i, &old)
	at, _ := f.search(id)
	f.byID = slices.Delete(f.byID, at, at+1)
	delete(f.ids, id)
	f.cells[i] = cell{group: -1}
	f.unused = append(f.unused, i)
}

// search returns where a cell is in the order of ids, or would be.
func (f *Fleet) search(id lrp.CellID) (at int, found bool) {
	return slices.BinarySearchFunc(f.byID, id, func(i int32, id lrp.CellID) int { return cmp.Compare(f.cells[i].id, id) })
}

// The distance between the orders of two neighbours when they are numbered, and at the end.
const orderGap = 1 << 32

// add makes an entry for a cell.
func (f *Fleet) add(id lrp.CellID) int32 {
	i := int32(len(f.cells))
	if n := len(f.unused); n > 0 {
		i, f.unused = f.unused[n-1], f.unused[:n-1]
	} else {
		f.cells = append(f.cells, cell{})
	}
	at, _ := f.search(id)
	f.cells[i] = cell{id: id, group: -1}
	f.ids[id] = i
	f.byID = slices.Insert(f.byID, at, i)
	before := uint64(0)
	if at > 0 {
		before = f.cells[f.byID[at-1]].order
	}
	switch {
	case at == len(f.byID)-1:
		f.cells[i].order = before + orderGap
	default:
		f.cells[i].order = before + (f.cells[f.byID[at+1]].order-before)/2
	}
	if f.cells[i].order == before || f.cells[i].order > 1<<63 {
		f.renumber()
	}
	return i
}

// renumber spaces the orders out when there is no number left between two.
func (f *Fleet) renumber() {
	for n, i := range f.byID {
		f.cells[i].order = uint64(n+1) * orderGap
	}
	for g := range f.groups {
		f.arrangeGroup(&f.groups[g])
	}
}

func (f *Fleet) zone(name string) int32 {
	z, known := f.zoneIDs[name]
	if !known {
		z = int32(len(f.zones))
		f.zones = append(f.zones, zone{name: name})
		f.zoneIDs[name] = z
	}
	return z
}

// joinGroup puts a cell where its state says it belongs.
func (f *Fleet) joinGroup(i, z int32, s cells.State) {
	c := &f.cells[i]
	g := f.groupOf(z, c.proxy, s)
	if c.group != g || c.index != s.Index {
		f.leaveGroup(i)
		c.zone, c.group, c.index = z, g, s.Index
		f.taking++
		if f.weights.binPack > 0 {
			f.zones[z].members, f.zones[z].unsorted = append(f.zones[z].members, i), true
		}
		t := &f.groups[g].tree
		leaf, ok := t.take(i)
		if !ok {
			t.cells = append(t.cells, i)
			f.arrangeGroup(&f.groups[g])
			return
		}
		c.leaf, t.arranged = leaf, f.arrangement()
	}
	f.refresh(c)
}

// leaveGroup takes a cell out of the search.
func (f *Fleet) leaveGroup(i int32) {
	c := &f.cells[i]
	if c.group < 0 {
		return
	}
	f.groups[c.group].tree.leave(c.leaf)
	c.group = -1
	f.taking--
	if f.weights.binPack > 0 {
		z := &f.zones[c.zone]
		z.members, z.unsorted = slices.DeleteFunc(z.members, func(m int32) bool { return m == i }), true
	}
}

// process returns the entry of a process.
func (f *Fleet) process(guid lrp.ProcessGUID) int32 {
	p, known := f.processIDs[guid]
	if known {
		return p
	}
	if n := len(f.unusedGUIDs); n > 0 {
		p, f.unusedGUIDs = f.unusedGUIDs[n-1], f.unusedGUIDs[:n-1]
	} else {
		p = int32(len(f.processes))
		f.processes = append(f.processes, process{})
	}
	f.processes[p] = process{guid: guid}
	f.processIDs[guid] = p
	return p
}

// host counts an instance of a process on a cell and in its zone.
func (f *Fleet) host(i, z, p int32) {
	f.cells[i].instances = append(f.cells[i].instances, p)
	f.countOn(i, p, 1)
	f.processes[p].zones.add(z, 1)
}

// unhost takes back an instance of a process on a cell.
func (f *Fleet) unhost(i, z, p int32) {
	f.countOn(i, p, -1)
	f.processes[p].zones.add(z, -1)
	f.release(p)
}

// countOn counts instances of a process on a cell.
func (f *Fleet) countOn(i, p, by int32) {
	pr := &f.processes[p]
	pr.total += int(by)
	n := pr.cells.add(i, by)
	if pr.overlay != nil {
		f.count(pr.overlay, &f.cells[i], n)
	}
}

// release forgets a process of which nothing is there any more.
func (f *Fleet) release(p int32) {
	pr := &f.processes[p]
	if pr.total > 0 {
		return
	}
	if pr.overlay != nil {
		f.overlays--
	}
	delete(f.processIDs, pr.guid)
	f.processes[p] = process{}
	f.unusedGUIDs = append(f.unusedGUIDs, p)
}

// load is what a cell scores before a need is added to it: for an instance, and for a task.
func (f *Fleet) load(c *cell) (instance, task int64) {
	if c.available.containers < 1 {
		return never, never
	}
	load := c.memoryRate.used(c.available.memory, c.total.memory) +
		c.diskRate.used(c.available.disk, c.total.disk) +
		c.containerRate.used(c.available.containers-1, c.total.containers) +
		times(f.weights.starting, c.starting)
	return load + times(f.weights.binPack, c.position), load + times(locality, c.tasks)
}

// bounds are those of one cell.
func (f *Fleet) bounds(c *cell) bounds {
	b := bounds{memory: c.available.memory, disk: c.available.disk, memoryRate: c.memoryRate, diskRate: c.diskRate, order: c.order}
	b.load, b.taskLoad = f.load(c)
	return b
}

// refresh tells the tree how a cell is now.
func (f *Fleet) refresh(c *cell) { f.groups[c.group].tree.set(c.leaf, f.bounds(c)) }

// prepare brings up to date what changes of single cells leave behind.
func (f *Fleet) prepare() {
	for z := range f.zones {
		if f.zones[z].unsorted {
			f.setPositions(&f.zones[z])
		}
	}
	for i := range f.groups {
		switch g := &f.groups[i]; {
		case g.key != "" && g.tree.len() == 0:
			delete(f.groupIDs, g.key)
			*g = group{}
			f.retired = append(f.retired, int32(i))
			f.made++
		case g.tree.disordered():
			f.arrangeGroup(g)
		}
	}
}

// setPositions numbers the cells of a zone by their index, so that uneven indexes of an installation do not
// favour a zone.
func (f *Fleet) setPositions(z *zone) {
	z.unsorted = false
	slices.SortFunc(z.members, func(a, b int32) int {
		return cmp.Or(cmp.Compare(f.cells[a].index, f.cells[b].index), cmp.Compare(f.cells[a].order, f.cells[b].order))
	})
	for n, i := range z.members {
		if c := &f.cells[i]; c.position != int64(n) {
			c.position = int64(n)
			f.refresh(c)
		}
	}
}

// Clone returns a fleet that goes its own way from here, for dry runs.
func (f *Fleet) Clone() *Fleet {
	c := *f
	c.ids, c.zoneIDs, c.groupIDs = maps.Clone(f.ids), maps.Clone(f.zoneIDs), maps.Clone(f.groupIDs)
	c.processIDs = maps.Clone(f.processIDs)
	c.cells, c.zones, c.groups, c.processes = slices.Clone(f.cells), slices.Clone(f.zones), slices.Clone(f.groups), slices.Clone(f.processes)
	for i := range c.cells {
		c.cells[i].instances = slices.Clone(c.cells[i].instances)
	}
	for i := range c.zones {
		c.zones[i].members = slices.Clone(c.zones[i].members)
	}
	for i := range c.groups {
		t := &c.groups[i].tree
		t.nodes, t.cells, t.free = slices.Clone(t.nodes), slices.Clone(t.cells), slices.Clone(t.free)
	}
	for i := range c.processes {
		p := &c.processes[i]
		p.cells.slots, p.zones.slots = slices.Clone(p.cells.slots), slices.Clone(p.zones.slots)
		p.overlay = p.overlay.clone()
	}
	c.unused, c.byID, c.retired, c.unusedGUIDs = slices.Clone(f.unused), slices.Clone(f.byID), slices.Clone(f.retired), slices.Clone(f.unusedGUIDs)
	c.constraints, c.constraintIDs = nil, map[string]int32{}
	c.likened, c.name, c.q, c.pieces, c.ordered, c.keys, c.refused, c.named = nil, nil, query{}, nil, nil, [2][]key{}, nil, nil
	return &c
}
