package auction

import (
	"math"
	"slices"
)

// overlay lays the instances of one process over the trees: for each node the fewest that a cell below it
// has. A process with instances on most cells needs it, or the search would visit each of these cells,
// which all look good until the instances are added to their score.
type overlay struct{ groups []least }

// least is the part of an overlay for one group.
type least struct {
	arranged uint64   // the arrangement of leaves that it is for
	counts   []uint16 // by node; too many count as the largest number, which is still a lower bound
}

// maxOverlays bounds how many processes have one; it is two bytes for each node of the trees.
const maxOverlays = 1024

// overlayFor returns the least counts of a process in a group; nil when it has none.
func (f *Fleet) overlayFor(p *process, g int32) []uint16 {
	if p.overlay == nil {
		return nil
	}
	for int(g) >= len(p.overlay.groups) {
		p.overlay.groups = append(p.overlay.groups, least{})
	}
	t, l := &f.groups[g].tree, &p.overlay.groups[g]
	if l.arranged == t.arranged {
		return l.counts
	}
	l.arranged, l.counts = t.arranged, resize(l.counts, len(t.nodes))
	size := t.size()
	for leaf, c := range t.cells {
		n := uint16(math.MaxUint16)
		if c >= 0 {
			n = saturated(p.cells.of(c))
		}
		l.counts[size+leaf] = n
	}
	for i := size - 1; i > 0; i-- {
		l.counts[i] = min(l.counts[2*i], l.counts[2*i+1])
	}
	return l.counts
}

func saturated(n int32) uint16 { return uint16(min(max(n, 0), math.MaxUint16)) }

// count says how many instances a cell has now.
func (f *Fleet) count(o *overlay, c *cell, n int32) {
	if c.group < 0 || int(c.group) >= len(o.groups) {
		return
	}
	l, t := &o.groups[c.group], &f.groups[c.group].tree
	if l.arranged != t.arranged {
		return // it is made anew before it is used
	}
	i := t.size() + int(c.leaf)
	l.counts[i] = saturated(n)
	for i > 1 {
		i /= 2
		fewest := min(l.counts[2*i], l.counts[2*i+1])
		if l.counts[i] == fewest {
			return
		}
		l.counts[i] = fewest
	}
}

// overlayIfWorthIt makes an overlay for a process when searches for it have visited too many cells in vain.
func (f *Fleet) overlayIfWorthIt(p *process) {
	if p.overlay != nil || p.wasted < 2*len(f.cells)+1024 {
		return
	}
	if f.overlays >= maxOverlays {
		for i := range f.processes {
			f.processes[i].overlay, f.processes[i].wasted = nil, 0
		}
		f.overlays = 0
	}
	p.overlay, p.wasted = &overlay{}, 0
	f.overlays++
}

func (o *overlay) clone() *overlay {
	if o == nil {
		return nil
	}
	groups := slices.Clone(o.groups)
	for i := range groups {
		groups[i].counts = slices.Clone(groups[i].counts)
	}
	return &overlay{groups}
}
