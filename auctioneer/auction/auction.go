package auction

import (
	"cmp"
	"slices"

	"muster/bbs/lrp"
	"muster/cells"
)

// Work is an instance to be placed.
type Work struct {
	cells.Instance
	// Avoid names cells that are not to get it even though they seem to fit: they refused it on
	// the state they are still known by.
	Avoid []lrp.CellID
}

// Weights tune the score.
type Weights struct {
	// Starting is added for each container that is starting on a cell; 0 or larger.
	Starting float64
	// BinPack is added for each position of a cell in its zone; 0 spreads, larger packs.
	BinPack float64
	// MaxStarting bounds the containers starting at once on all cells together; 0 or less: no bound.
	MaxStarting int32
}

// Placement says which cell gets a piece of work.
type Placement struct {
	Work  Work
	Cell  lrp.CellID
	Zone  string
	Score float64
}

// Refusal says why a piece of work was not placed.
type Refusal struct {
	Work Work
	// Reason is the text users see; its beginning is API.
	Reason string
	Seen   Seen
}

// Seen counts what was found on the cells for work that was not placed. Each cell is counted under
// the first constraint it failed; a cell that fits is counted under every resource it lacks.
type Seen struct {
	Cells                    int // that take work at all
	RootFS, Drivers, Tags    int // that fail the constraint
	Memory, Disk, Containers int // that fit but lack it
	Short                    int // that fit but lack something
	Avoided                  int // that fit and have room but refused before
}

// Result is what an auction decided; both lists are in the order of decision.
type Result struct {
	Placed  []Placement
	Refused []Refusal
}

// Run places work on cells. It changes none of its arguments.
func Run(work []Work, states []cells.State, w Weights) Result {
	var res Result
	pool := newPool(states, w)
	for _, item := range inOrder(work) {
		winner, refusal := pool.place(item)
		if winner == nil {
			res.Refused = append(res.Refused, refusal)
			continue
		}
		res.Placed = append(res.Placed, *winner)
	}
	return res
}

// inOrder sorts by index, then by memory downwards, then by key so that the order is total.
func inOrder(work []Work) []Work {
	sorted := slices.Clone(work)
	slices.SortStableFunc(sorted, func(a, b Work) int {
		return cmp.Or(
			cmp.Compare(a.Key.Index, b.Key.Index),
			cmp.Compare(b.Resources.MemoryMB, a.Resources.MemoryMB),
			cmp.Compare(a.Key.Process, b.Key.Process),
			cmp.Compare(a.Key.Domain, b.Key.Domain),
		)
	})
	return sorted
}

// place chooses a cell for one piece of work and reserves what it needs.
func (p *pool) place(item Work) (*Placement, Refusal) {
	if len(p.cells) == 0 {
		return nil, Refusal{Work: item, Reason: reasonNoCells}
	}
	if p.weights.MaxStarting > 0 && p.starting >= int64(p.weights.MaxStarting) {
		return nil, Refusal{Work: item, Reason: reasonStartLimit, Seen: Seen{Cells: len(p.cells)}}
	}
	n := needOf(item)
	c, score, seen := p.scan(n)
	if c == nil {
		return nil, Refusal{Work: item, Reason: reason(n, seen), Seen: seen}
	}
	p.reserve(c, n)
	return &Placement{Work: item, Cell: c.id, Zone: c.zone.name, Score: score}, Refusal{}
}
