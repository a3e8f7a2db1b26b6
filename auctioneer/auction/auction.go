package auction

import (
	"errors"

	"muster/bbs/lrp"
	"muster/cells"
)

// Work is an instance or a task to be placed.
type Work struct {
	cells.Instance
	// Task is set when it is a task; the instance means nothing then.
	Task *cells.Task
	// Avoid names cells that are not to get it even though they seem to fit: they refused it on
	// the state they are still known by.
	Avoid []lrp.CellID
}

// need returns the resources; less than nothing counts as nothing.
func (w *Work) need() need {
	r := w.Resources
	if w.Task != nil {
		r = w.Task.Resources
	}
	return need{memory: int64(max(r.MemoryMB, 0)), disk: int64(max(r.DiskMB, 0))}
}

// Weights tune the score. What makes no sense counts as the nearest bound.
type Weights struct {
	// Starting is added for each container that is starting on a cell; 0 to MaxWeight.
	Starting float64
	// BinPack is added for each position of a cell in its zone; 0 spreads, larger packs; 0 to MaxWeight.
	BinPack float64
	// MaxStarting bounds the containers starting at once on all cells together; 0 or less: no bound.
	MaxStarting int32
}

// Placement says which cell gets a piece of work.
type Placement struct {
	Work  *Work // one of those that were given
	Cell  lrp.CellID
	Zone  string
	Score float64 // of the cell, with the work
}

// Refusal says why a piece of work was not placed.
type Refusal struct {
	Work *Work // one of those that were given
	// Reason is the text users see; its beginning is API. It is that of the explanation, until somebody
	// knows better.
	Reason string
	// Explanation may be shared by all who need the same; it is not to be changed.
	*Explanation
}

// Result is what an auction decided; both lists are in the order of decision.
type Result struct {
	Placed  []Placement
	Refused []Refusal
	// Complaints names what of the states and weights makes no sense; nil when all does.
	Complaints error
}

// Run places work on cells. It changes none of its arguments. Of two states of one cell the later counts.
func Run(work []Work, states []cells.State, w Weights) Result {
	f := New(w)
	errs := []error{w.Check()}
	for _, s := range states {
		errs = append(errs, f.Set(s))
	}
	placed, refused := f.Place(work)
	return Result{Placed: placed, Refused: refused, Complaints: errors.Join(errs...)}
}

// Place places work and reserves what it needs. What it reserved stays so until the next Set of the cell. The
// results point into work.
func (f *Fleet) Place(work []Work) (placed []Placement, refused []Refusal) {
	f.begin()
	pieces := f.inOrder(work)
	placed = make([]Placement, 0, len(pieces))
	failed := f.refused[:0]
	for i := range pieces {
		p := &pieces[i]
		w := &work[p.at]
		if why := f.place(p, w); why != "" {
			failed = append(failed, failure{piece: p, reason: why})
			continue
		}
		placed = append(placed, f.winner(w))
	}
	refused = f.explainAll(work, failed)
	f.refused = failed[:0]
	f.end()
	return placed, refused
}

// winner is the placement that the search found.
func (f *Fleet) winner(w *Work) Placement {
	c := &f.cells[f.q.best]
	return Placement{Work: w, Cell: c.id, Zone: f.zones[c.zone].name, Score: points(f.q.score)}
}

// begin starts an auction.
func (f *Fleet) begin() {
	f.auction++
	f.prepare()
	if len(f.constraints) > maxConstraints {
		f.constraints = nil
		clear(f.constraintIDs)
	}
}

// maxKept bounds for how many pieces of work room is kept until the next auction.
const maxKept = 1 << 16

// end forgets the processes that were named in vain, and the room that a very large auction took.
func (f *Fleet) end() {
	for _, p := range f.named {
		f.release(p)
	}
	if cap(f.pieces) > maxKept {
		f.pieces, f.ordered, f.keys, f.refused, f.named = nil, nil, [2][]key{}, nil, nil
	}
}

// place chooses a cell for one piece of work and reserves what it needs; otherwise it says what stood in
// the way.
func (f *Fleet) place(p *piece, w *Work) (reason string) {
	if why := f.blocked(); why != "" {
		return why
	}
	if f.choose(p, w); f.q.best < 0 {
		return reasonInsufficient
	}
	f.reserve(&f.q, p.process)
	return ""
}

// blocked says what keeps any work at all from being placed.
func (f *Fleet) blocked() (reason string) {
	switch {
	case f.taking == 0:
		return reasonNoCells
	case f.weights.maxStarting > 0 && f.starting >= f.weights.maxStarting:
		return reasonStartLimit
	}
	return ""
}

// choose finds the best cell for a piece of work.
func (f *Fleet) choose(p *piece, w *Work) {
	kind := 0
	var pr *process
	if p.process >= 0 {
		kind, pr = 1, &f.processes[p.process]
	}
	f.q.begin(p.need, pr)
	if p.avoids { // w itself is rarely near: the pieces are in another order
		f.avoid(w.Avoid)
	}
	c := &f.constraints[p.constraint]
	f.match(c)
	if c.misfitsIn != f.auction {
		c.misfitsIn, c.misfits = f.auction, [2][]need{c.misfits[0][:0], c.misfits[1][:0]}
	}
	for _, m := range c.misfits[kind] {
		if m.least(p.need) {
			return
		}
	}
	if pr == nil {
		f.seekTask(c)
	} else {
		f.seekInstance(c)
	}
	if f.q.best < 0 && !p.avoids && len(c.misfits[kind]) < maxMisfits {
		c.misfits[kind] = append(c.misfits[kind], p.need)
	}
}

// maxMisfits bounds how many needs without room are remembered for a constraint.
const maxMisfits = 8

// avoid tells the query which cells it must not find.
func (f *Fleet) avoid(ids []lrp.CellID) {
	for _, id := range ids {
		if i, known := f.ids[id]; known {
			f.q.avoid = append(f.q.avoid, i)
		}
	}
}

// reserve takes from the cell that was found what is needed, in the way that the search counts it.
func (f *Fleet) reserve(q *query, process int32) {
	c := &f.cells[q.best]
	c.available.memory -= q.memory
	c.available.disk -= q.disk
	c.available.containers--
	c.starting++
	f.starting++
	if process >= 0 {
		c.available.memory -= c.proxy
		f.host(q.best, c.zone, process)
	} else {
		c.tasks++
	}
	f.refresh(c)
}
