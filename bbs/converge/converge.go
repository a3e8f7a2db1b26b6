package converge

import (
	"cmp"
	"slices"
	"time"

	"muster/bbs/lrp"
	"muster/cells"
)

// MaxSteps bounds what one plan proposes, and so how long the transactions take that apply it. More
// make rare, large repairs faster; fewer let other writers in between.
const MaxSteps = 10_000

// Snapshot is the world at one moment, read in one transaction.
type Snapshot struct {
	// Desired are DesiredLRPs, in any order, one for each process.
	Desired []Desired
	// Groups are the slots of these processes that have a record, and slots of processes that nobody
	// desires; in any order, one for each slot. Wanted and Domain need not be set. Of the records
	// only identity, presence, state, crash count, since and retiring are looked at.
	Groups []lrp.Group
	// Fresh are the domains whose owner has told everything: what is not desired there is not wanted.
	Fresh []lrp.Domain
	// Cells is what is known of the cells.
	Cells cells.Presences
	// Grace is how long a cell must have been lost before what cannot be had back goes.
	Grace time.Duration
}

// Desired is what planning needs of a DesiredLRP.
type Desired struct {
	Process   lrp.ProcessGUID
	Domain    lrp.Domain
	Instances int32
}

// wants tells whether an instance is desired for a slot of the process.
func (d Desired) wants(slot lrp.Slot) bool { return slot.Index < d.Instances }

// Step is one proposed event and the reason for it, in words for people. The caller fills in the
// epoch of the event.
type Step struct {
	Event lrp.Event
	Why   string
}

// order is the order of the steps of a plan: what brings instances back comes first, and what takes
// records away last.
var order = map[lrp.EventName]int{
	lrp.Lose: 1, lrp.Return: 2, lrp.Create: 3, lrp.Restart: 4, lrp.Retire: 5, lrp.Discard: 6,
}

// Plan returns the steps that close the distance between what is desired and what there is records
// of, at most MaxSteps: by kind, and each kind by process and index.
func Plan(s Snapshot, now time.Time) []Step {
	steps := s.plan(now)
	return steps[:min(len(steps), MaxSteps)]
}

// plan returns all of the steps.
func (s Snapshot) plan(now time.Time) []Step {
	w := newWorld(s, now)
	var steps []Step
	has := map[lrp.Slot]bool{}
	for _, g := range s.Groups {
		slot := slotOf(g)
		has[slot] = true
		steps = append(steps, w.slot(slot, g, w.desired[slot.Process])...)
	}
	for _, d := range s.Desired {
		steps = append(steps, missing(d, has)...)
	}
	slices.SortStableFunc(steps, compareSteps)
	return steps
}

func compareSteps(a, b Step) int {
	x, y := &a.Event, &b.Event
	return cmp.Or(cmp.Compare(order[x.Name], order[y.Name]), cmp.Compare(x.Key.Process, y.Key.Process),
		cmp.Compare(x.Key.Index, y.Key.Index))
}

// Planner plans slot by slot, for whoever has a slot before it but not all of the process. It is safe for
// concurrent use.
type Planner struct{ w world }

// NewPlanner returns a planner that knows what a snapshot says of domains and cells.
func NewPlanner(s Snapshot, now time.Time) Planner { return Planner{newWorld(s, now)} }

// Slot returns the steps for one slot, in the order of Plan. It looks at the records
// there are, and asks for none where there is none at all. d is what is desired of its process; zero: nothing.
func (p Planner) Slot(g lrp.Group, d Desired) []Step {
	if g.Ordinary == nil && g.Evacuating == nil && g.Suspect == nil {
		return nil
	}
	steps := p.w.slot(slotOf(g), g, d)
	if len(steps) > 1 {
		slices.SortStableFunc(steps, compareSteps)
	}
	return steps
}

// Next returns when the next step becomes due if nothing changes until then; not ok when nothing
// will. A caller that sleeps until then acts when a back-off or a grace time ends, not at the next
// tick after it.
func Next(s Snapshot, now time.Time) (at time.Time, ok bool) {
	w := newWorld(s, now)
	sooner := func(due time.Time, waits bool) {
		if waits && due.After(now) && (!ok || due.Before(at)) {
			at, ok = due, true
		}
	}
	for _, g := range s.Groups {
		if o := g.Ordinary; o != nil && w.desired[o.Process].wants(o.Slot) {
			sooner(lrp.RestartAt(*o))
		}
		if o := g.Ordinary; o != nil && o.Cell != "" {
			sooner(s.Cells.LostAt(o.Cell))
		}
		if e := g.Evacuating; e != nil {
			sooner(s.Cells.GoneAt(e.Cell, s.Grace))
		}
	}
	return at, ok
}

// slotOf returns the slot of a group that has a record.
func slotOf(g lrp.Group) lrp.Slot {
	for _, a := range []*lrp.Actual{g.Ordinary, g.Evacuating, g.Suspect} {
		if a != nil {
			return a.Slot
		}
	}
	return lrp.Slot{}
}
