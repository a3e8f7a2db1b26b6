package store

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/cells"
)

// subjects are what a batch is about: what it must lock and read before anything can be decided.
type subjects struct {
	// full are processes whose whole record and all instances are needed.
	full map[lrp.ProcessGUID]bool
	// slots are single slots; of their processes only the number of instances is needed.
	slots map[lrp.Slot]bool
	cells map[lrp.CellID]bool
}

func newSubjects() subjects {
	return subjects{full: map[lrp.ProcessGUID]bool{}, slots: map[lrp.Slot]bool{}, cells: map[lrp.CellID]bool{}}
}

// lockKeys returns the advisory locks of the subjects, sorted, once each.
func (s subjects) lockKeys() []int64 {
	keys := map[int64]bool{}
	for p := range s.full {
		keys[lockKey("process", string(p))] = true
	}
	for slot := range s.slots {
		keys[lockKey("process", string(slot.Process))] = true
	}
	for c := range s.cells {
		keys[lockKey("cell", string(c))] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// lockKey names an advisory lock. Two subjects that share a key only wait for each other.
func lockKey(kind, name string) int64 {
	h := fnv.New64a()
	h.Write([]byte(kind + "\x00" + name))
	return int64(h.Sum64())
}

// wanted is how many instances a process wants; absent processes want none.
type wanted struct {
	domain    lrp.Domain
	instances int32
}

// desiredState is a DesiredLRP of a batch: as it was, and as it has become. nil: there is none.
type desiredState struct{ before, after *lrp.Desired }

// groupState is the group of a slot: as it was, and as it has become.
type groupState struct{ before, after lrp.Group }

// cellState is a cell: as it was, and as it has become.
type cellState struct {
	before, after *cells.Presence
	ttl           time.Duration // of after
	overdue       bool          // as it was, the cell had been silent for too long
	touched       bool          // heard of, so after must be stamped
}

// world is what a batch knows and has decided so far. It is plain data: deciding does no I/O.
type world struct {
	now     time.Time
	desired map[lrp.ProcessGUID]*desiredState
	wanted  map[lrp.ProcessGUID]wanted
	groups  map[lrp.ProcessGUID]map[int32]*groupState
	cells   map[lrp.CellID]*cellState
	events  []event.Event
}

func newWorld(now time.Time) *world {
	return &world{
		now: now, desired: map[lrp.ProcessGUID]*desiredState{}, wanted: map[lrp.ProcessGUID]wanted{},
		groups: map[lrp.ProcessGUID]map[int32]*groupState{}, cells: map[lrp.CellID]*cellState{},
	}
}

// place puts a record that was read into its group.
func (w *world) place(a lrp.Actual) {
	g := w.group(a.Slot)
	switch a.Presence {
	case lrp.Evacuating:
		g.before.Evacuating = &a
	case lrp.Suspect:
		g.before.Suspect = &a
	default:
		g.before.Ordinary = &a
	}
	g.after = g.before
}

func (w *world) group(s lrp.Slot) *groupState {
	if w.groups[s.Process] == nil {
		w.groups[s.Process] = map[int32]*groupState{}
	}
	g := w.groups[s.Process][s.Index]
	if g == nil {
		g = &groupState{}
		w.groups[s.Process][s.Index] = g
	}
	return g
}

func (w *world) current(p lrp.ProcessGUID) *desiredState {
	d := w.desired[p]
	if d == nil {
		d = &desiredState{}
		w.desired[p] = d
	}
	return d
}

// draft is what one call would change. It is thrown away when the call is refused.
type draft struct {
	w      *world
	groups map[lrp.Slot]lrp.Group
	events []event.Event

	resized lrp.ProcessGUID // the process whose wish changes; empty: none
	want    wanted          // its new wish
}

func (w *world) draft() *draft { return &draft{w: w, groups: map[lrp.Slot]lrp.Group{}} }

// apply runs the rules for one event.
func (d *draft) apply(ev lrp.Event) error {
	slot := ev.Key.Slot
	before, drafted := d.groups[slot]
	if !drafted {
		before = d.w.group(slot).after
	}
	want := d.w.wanted[slot.Process]
	if slot.Process == d.resized {
		want = d.want
	}
	before.Wanted, before.Domain = slot.Index < want.instances, want.domain
	out, err := lrp.Apply(before, ev, d.w.now)
	if err != nil {
		return err // a refusal already says which slot, which event, and why
	}
	changes := lrp.Diff(before, out.Group)
	if len(changes) == 0 && len(out.Crashes) == 0 {
		return nil
	}
	d.groups[slot] = out.Group
	for i := range out.Crashes {
		d.events = append(d.events, event.Event{Crash: &out.Crashes[i]})
	}
	for i := range changes {
		d.events = append(d.events, event.Event{Actual: &changes[i]})
	}
	return nil
}

// keep makes the draft part of the world.
func (d *draft) keep(c Call) {
	if d.resized != "" {
		d.w.wanted[d.resized] = d.want
	}
	for slot, g := range d.groups {
		d.w.group(slot).after = g
	}
	for _, ev := range d.events {
		ev.At, ev.TraceID = d.w.now, c.TraceID
		d.w.events = append(d.w.events, ev)
	}
}

// resize makes the slots of a process those that are wanted now.
func (d *draft) resize(p lrp.ProcessGUID, domain lrp.Domain, instances int32, epoch func() string) error {
	d.resized, d.want = p, wanted{domain, instances}
	var existing []int32
	for index, g := range d.w.groups[p] {
		if g.after.Ordinary != nil {
			existing = append(existing, index)
		}
	}
	slices.Sort(existing)
	for _, ev := range lrp.Resize(p, domain, existing, instances) {
		ev.Epoch = epoch()
		if err := d.apply(ev); err != nil {
			return fmt.Errorf("resize process %s to %d: %w", p, instances, unexpected(err))
		}
	}
	return nil
}

// unexpected hides a refusal of an event that the store made itself: it is no answer to the caller.
func unexpected(err error) error { return errors.New(err.Error()) }
