package auction

import (
	"slices"

	"muster/bbs/lrp"
)

// Seen counts what was found on the cells for work that was not placed. A cell that takes work is counted
// under the first constraint it fails; a cell that fits is counted under every resource it lacks.
type Seen struct {
	Cells                    int // that take work at all
	Away                     int // that are evacuating or not healthy
	RootFS, Drivers, Tags    int // that fail the constraint
	Memory, Disk, Containers int // that fit but lack it
	Short                    int // that fit but lack something
	Avoided                  int // that fit and have room but refused before
}

// Explanation says why a piece of work was not placed, by the cells as they were after the auction.
type Explanation struct {
	Reason string // what users see; its beginning is API
	Seen   Seen
	// Closest is the cell that fits and misses least; nil when no cell fits, when room is not what is
	// missing, or when more than maxClosest different needs were refused at once.
	Closest *Closest
	// Remedy is the smallest change that would place it, for operators.
	Remedy string
	// Starting and MaxStarting are set when as many containers are starting as may.
	Starting, MaxStarting int64
}

// Closest is a cell that almost had room. The share that is missing of each of its totals, added up, is the
// smallest of all cells; ties go to the smaller cell id.
type Closest struct {
	Cell lrp.CellID
	Zone string
	// What is missing there. The proxy's memory is included.
	MemoryMB, DiskMB, Containers int64
}

// maxClosest bounds for how many different needs of one auction the closest cell is looked for, since that
// looks at each cell that fits.
const maxClosest = 256

// failure is work that was not placed, and what first stood in the way.
type failure struct {
	*piece
	reason string
}

// wanting identifies a need that is explained once for all who share it.
type wanting struct {
	constraint int32
	task       bool
	reason     string
	need
}

// explainer explains the refusals of one auction.
type explainer struct {
	*Fleet
	known   map[wanting]*Explanation
	tallies map[tallyKey]*tally
	looked  int // for closest cells
}

// explainAll explains what was not placed, each different need once.
func (f *Fleet) explainAll(work []Work, failed []failure) []Refusal {
	if len(failed) == 0 {
		return nil
	}
	e := explainer{Fleet: f, known: map[wanting]*Explanation{}, tallies: map[tallyKey]*tally{}}
	refused := make([]Refusal, len(failed))
	for i, p := range failed {
		x := e.explain(&work[p.at], p)
		refused[i] = Refusal{Work: &work[p.at], Reason: x.Reason, Explanation: x}
	}
	return refused
}

func (e *explainer) explain(w *Work, p failure) *Explanation {
	key := wanting{constraint: p.constraint, task: p.process < 0, reason: p.reason, need: p.need}
	switch {
	case p.reason == reasonNoCells:
		key = wanting{reason: p.reason}
	case p.reason == reasonStartLimit:
		key = wanting{reason: p.reason}
	case len(w.Avoid) > 0:
		return e.room(w, p)
	}
	x := e.known[key]
	if x != nil {
		return x
	}
	switch p.reason {
	case reasonNoCells:
		x = &Explanation{Reason: p.reason, Seen: e.seen(), Remedy: remedyNoCells(e.seen())}
	case reasonStartLimit:
		x = &Explanation{Reason: p.reason, Seen: e.seen(), Remedy: remedyStartLimit(e.starting, e.weights.maxStarting),
			Starting: e.starting, MaxStarting: e.weights.maxStarting}
	default:
		x = e.room(w, p)
	}
	e.known[key] = x
	return x
}

// seen counts the cells.
func (e *explainer) seen() Seen { return Seen{Cells: e.taking, Away: len(e.ids) - e.taking} }

// room explains work for which no cell fits, or none of those that fit has room.
func (e *explainer) room(w *Work, p failure) *Explanation {
	n, task := p.need, p.process < 0
	t := e.tally(p.constraint, task)
	x := &Explanation{Seen: t.count(n)}
	x.Seen.Cells, x.Seen.Away = e.taking, len(e.ids)-e.taking
	x.Seen.Avoided = e.avoided(w, p.constraint, n, task)
	x.Seen.Short = len(t.cells) - x.Seen.Avoided
	c := &e.constraints[p.constraint]
	x.Reason = reason(c, x.Seen)
	switch {
	case x.Seen.Avoided > 0:
		x.Remedy = remedyAvoided(x.Seen)
	case x.Seen.Short == 0:
		x.Remedy = e.remedyConstraint(c, x.Seen)
	case e.looked < maxClosest:
		e.looked++
		x.Closest, x.Remedy = e.closest(t, n, task)
	}
	return x
}

// avoided counts the cells that are avoided although they fit and have room.
func (e *explainer) avoided(w *Work, constraint int32, n need, task bool) (count int) {
	e.q.avoid = e.q.avoid[:0]
	e.avoid(w.Avoid)
	slices.Sort(e.q.avoid)
	for _, i := range slices.Compact(e.q.avoid) {
		c := &e.cells[i]
		if c.group >= 0 && e.groups[c.group].offers.match(&e.constraints[constraint]) == fits && c.missing(n, task) == (amounts{}) {
			count++
		}
	}
	return count
}

// missing returns what a cell lacks.
func (c *cell) missing(n need, task bool) amounts {
	if !task {
		n.memory += c.proxy
	}
	return amounts{
		memory: max(n.memory-c.available.memory, 0), disk: max(n.disk-c.available.disk, 0),
		containers: max(1-c.available.containers, 0),
	}
}

// closest finds the cell that misses least, and what would help there.
func (e *explainer) closest(t *tally, n need, task bool) (*Closest, string) {
	best, least, missing := int32(-1), int64(0), amounts{}
	for _, i := range t.cells {
		c := &e.cells[i]
		m := c.missing(n, task)
		share := lack(m.memory, c.total.memory) + lack(m.disk, c.total.disk) + lack(m.containers, c.total.containers)
		if best < 0 || share < least || share == least && c.order < e.cells[best].order {
			best, least, missing = i, share, m
		}
	}
	c := &e.cells[best]
	if !task {
		n.memory += c.proxy
	}
	return &Closest{Cell: c.id, Zone: e.zones[c.zone].name, MemoryMB: missing.memory, DiskMB: missing.disk, Containers: missing.containers},
		remedyRoom(c, n, missing)
}

// lack is a third of what is missing of a total, which may be more than the total.
func lack(missing, total int64) int64 { return min(missing*(one/3)/max(total, 1), maxTerm) }

// tallyKey says whose tally it is: tasks have no proxy.
type tallyKey struct {
	constraint int32
	task       bool
}

// tally is what the cells that fit a constraint have left, sorted, so that counting for one need does not
// look at each of them.
type tally struct {
	seen         Seen // of constraints, and of containers
	cells        []int32
	memory, disk []int64
}

func (e *explainer) tally(constraint int32, task bool) *tally {
	t := e.tallies[tallyKey{constraint, task}]
	if t != nil {
		return t
	}
	t = &tally{}
	e.tallies[tallyKey{constraint, task}] = t
	for i := range e.groups {
		g := &e.groups[i]
		switch g.offers.match(&e.constraints[constraint]) {
		case failsRootFS:
			t.seen.RootFS += g.tree.len()
		case failsDrivers:
			t.seen.Drivers += g.tree.len()
		case failsTags:
			t.seen.Tags += g.tree.len()
		case fits:
			e.add(t, g, task)
		}
	}
	slices.Sort(t.memory)
	slices.Sort(t.disk)
	return t
}

// add adds the cells of a group.
func (e *explainer) add(t *tally, g *group, task bool) {
	for _, i := range g.tree.cells {
		if i < 0 {
			continue
		}
		a := e.cells[i].available
		if !task {
			a.memory -= g.proxy
		}
		t.cells, t.memory, t.disk = append(t.cells, i), append(t.memory, a.memory), append(t.disk, a.disk)
		if a.containers < 1 {
			t.seen.Containers++
		}
	}
}

// count counts the cells that lack something of a need.
func (t *tally) count(n need) Seen {
	s := t.seen
	s.Memory, _ = slices.BinarySearch(t.memory, n.memory)
	s.Disk, _ = slices.BinarySearch(t.disk, n.disk)
	return s
}
