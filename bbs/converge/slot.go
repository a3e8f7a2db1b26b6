package converge

import (
	"fmt"
	"time"

	"muster/bbs/lrp"
)

// world is a snapshot, made ready for questions.
type world struct {
	Snapshot
	now     time.Time
	desired map[lrp.ProcessGUID]Desired
	fresh   map[lrp.Domain]bool
}

func newWorld(s Snapshot, now time.Time) world {
	w := world{Snapshot: s, now: now, desired: make(map[lrp.ProcessGUID]Desired, len(s.Desired)), fresh: map[lrp.Domain]bool{}}
	for _, d := range s.Desired {
		w.desired[d.Process] = d
	}
	for _, d := range s.Fresh {
		w.fresh[d] = true
	}
	return w
}

// leftover tells whether a slot is known not to be wanted, and says why. Who desires a process says
// so in the domain of its DesiredLRP; where there is none, in that of the records.
func (w world) leftover(slot lrp.Slot, g lrp.Group, d Desired) (why string, ok bool) {
	if d.wants(slot) {
		return "", false
	}
	if d.Domain != "" {
		return fmt.Sprintf("only %d instances are desired", d.Instances), w.fresh[d.Domain]
	}
	return fmt.Sprintf("nobody desires %s any more", slot.Process), w.fresh[domainOf(g)]
}

func domainOf(g lrp.Group) lrp.Domain {
	for _, a := range []*lrp.Actual{g.Ordinary, g.Evacuating, g.Suspect} {
		if a != nil {
			return a.Domain
		}
	}
	return ""
}

// slot decides about one slot that has records. d is what is desired of its process; zero: nothing.
func (w world) slot(slot lrp.Slot, g lrp.Group, d Desired) []Step {
	if why, ok := w.leftover(slot, g, d); ok {
		return w.clear(slot, g, why)
	}
	steps, returns := w.suspect(g)
	if e := g.Evacuating; e != nil && w.gone(e) {
		steps = append(steps, about(lrp.Discard, e, fmt.Sprintf("cell %s, which it was to leave, is gone", e.Cell)))
	}
	if o := g.Ordinary; returns && (o == nil || !w.lost(o)) {
		return steps // with the slot, whoever has it now
	}
	return append(steps, w.ordinary(slot, g, d)...)
}

// clear winds up a slot that nobody wants.
func (w world) clear(slot lrp.Slot, g lrp.Group, why string) []Step {
	var steps []Step
	o, e := g.Ordinary, g.Evacuating
	stays := o != nil && !o.Retiring || g.Suspect != nil // without being told
	if o != nil && w.lost(o) {
		steps = append(steps, about(lrp.Lose, o, fmt.Sprintf("%s, and cell %s fell silent", why, o.Cell)))
		stays = g.Suspect != nil
	}
	switch {
	case e == nil:
	case w.gone(e):
		steps = append(steps, about(lrp.Discard, e, fmt.Sprintf("%s, and cell %s is gone", why, e.Cell)))
	case !e.Retiring:
		stays = true
	}
	if stays {
		steps = append(steps, Step{lrp.Event{Name: lrp.Retire, Key: lrp.Key{Slot: slot, Domain: domainOf(g)}}, why})
	}
	return steps
}

// suspect decides about the suspect instance of a slot, and whether it takes the slot back.
func (w world) suspect(g lrp.Group) (steps []Step, returns bool) {
	s, o := g.Suspect, g.Ordinary
	switch {
	case s == nil:
		return nil, false
	case o != nil && o.State == lrp.Running && !o.Retiring && !w.lost(o):
		return []Step{about(lrp.Discard, s, fmt.Sprintf("%v runs in its place", o.InstanceKey))}, false
	case w.Cells.Present(s.Cell):
		return []Step{about(lrp.Return, s, fmt.Sprintf("cell %s is back", s.Cell))}, true
	}
	return nil, false
}

// ordinary decides about the ordinary instance of a slot that may be wanted.
func (w world) ordinary(slot lrp.Slot, g lrp.Group, d Desired) []Step {
	o := g.Ordinary
	if o == nil {
		if d.wants(slot) {
			return []Step{create(slot, d)}
		}
		return nil
	}
	switch due, waits := lrp.RestartAt(*o); {
	case w.lost(o) && (d.wants(slot) || o.Retiring):
		return []Step{about(lrp.Lose, o, fmt.Sprintf("cell %s fell silent", o.Cell))}
	case waits && !w.now.Before(due) && d.wants(slot):
		return []Step{{
			lrp.Event{Name: lrp.Restart, Key: o.Key},
			fmt.Sprintf("crashed %d times in a row, waited %v", o.CrashCount, lrp.BackOff(o.CrashCount)),
		}}
	}
	return nil
}

// lost tells whether an instance is on a cell that fell silent.
func (w world) lost(a *lrp.Actual) bool { return a.Cell != "" && w.Cells.Lost(a.Cell, w.now) }

// gone tells whether an instance was on a cell that fell silent for good.
func (w world) gone(a *lrp.Actual) bool { return w.Cells.Gone(a.Cell, w.now, w.Grace) }

// missing creates what is desired and has no record at all. It needs no fresh domain: creating what
// somebody asked for destroys nothing.
func missing(d Desired, has map[lrp.Slot]bool) []Step {
	var steps []Step
	for index := range d.Instances {
		slot := lrp.Slot{Process: d.Process, Index: index}
		if has[slot] {
			continue
		}
		if steps = append(steps, create(slot, d)); len(steps) == MaxSteps {
			break
		}
	}
	return steps
}

func create(slot lrp.Slot, d Desired) Step {
	return Step{
		lrp.Event{Name: lrp.Create, Key: lrp.Key{Slot: slot, Domain: d.Domain}},
		fmt.Sprintf("%d instances are desired, this one has no record", d.Instances),
	}
}

// about is a step that means one instance and no other.
func about(name lrp.EventName, a *lrp.Actual, why string) Step {
	return Step{lrp.Event{Name: name, Key: a.Key, By: a.InstanceKey}, why}
}
