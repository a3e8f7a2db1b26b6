package store

import (
	"reflect"
	"time"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/cells"
)

// The names of what is refused to callers of desired records.
const (
	eventDesire lrp.EventName = "desire"
	eventUpdate lrp.EventName = "update"
	eventDelete lrp.EventName = "remove desired"
)

// op is one call: what it needs to know, and what it decides.
type op interface {
	needs(*subjects)
	// decide changes the world, or refuses and leaves it as it was.
	decide(w *world, trace string) error
}

// desireOp creates a DesiredLRP and its slots.
type desireOp struct {
	desired lrp.Desired
	epoch   func() string
}

func (o *desireOp) needs(s *subjects) { s.full[o.desired.Process] = true }

func (o *desireOp) decide(w *world, trace string) error {
	cur := w.current(o.desired.Process)
	if cur.after != nil {
		return &lrp.Refusal{Slot: lrp.Slot{Process: o.desired.Process}, Event: eventDesire, Why: lrp.Exists}
	}
	d := o.desired
	d.Tag = lrp.ModificationTag{Epoch: o.epoch()}
	d.RunInfo.CreatedAt = w.now
	info := d.SchedulingInfo()
	dr := w.draft()
	dr.events = append(dr.events, event.Event{Desired: &event.DesiredChange{After: &info}})
	if err := dr.resize(d.Process, d.Domain, d.Instances, o.epoch); err != nil {
		return err
	}
	cur.after = &d
	dr.keep(trace)
	return nil
}

// updateOp changes a DesiredLRP and scales it.
type updateOp struct {
	process lrp.ProcessGUID
	update  lrp.Update
	epoch   func() string
}

func (o *updateOp) needs(s *subjects) { s.full[o.process] = true }

func (o *updateOp) decide(w *world, trace string) error {
	cur := w.current(o.process)
	if cur.after == nil {
		return &lrp.Refusal{Slot: lrp.Slot{Process: o.process}, Event: eventUpdate, Why: lrp.NotFound}
	}
	before := *cur.after
	// Here, where the record is locked: whether routes fit depends on the ports that it has now.
	if err := o.update.ValidateFor(before); err != nil {
		return err
	}
	after := o.update.Apply(before)
	after.Tag = before.Tag
	if reflect.DeepEqual(before, after) {
		return nil
	}
	after.Tag = before.Tag.Next()
	infoBefore, infoAfter := before.SchedulingInfo(), after.SchedulingInfo()
	dr := w.draft()
	dr.events = append(dr.events, event.Event{Desired: &event.DesiredChange{Before: &infoBefore, After: &infoAfter}})
	if after.Instances != before.Instances {
		if err := dr.resize(o.process, after.Domain, after.Instances, o.epoch); err != nil {
			return err
		}
	}
	cur.after = &after
	dr.keep(trace)
	return nil
}

// deleteOp removes a DesiredLRP and stops its instances.
type deleteOp struct {
	process lrp.ProcessGUID
	epoch   func() string
}

func (o *deleteOp) needs(s *subjects) { s.full[o.process] = true }

func (o *deleteOp) decide(w *world, trace string) error {
	cur := w.current(o.process)
	if cur.after == nil {
		return &lrp.Refusal{Slot: lrp.Slot{Process: o.process}, Event: eventDelete, Why: lrp.NotFound}
	}
	info := cur.after.SchedulingInfo()
	dr := w.draft()
	dr.events = append(dr.events, event.Event{Desired: &event.DesiredChange{Before: &info}})
	if err := dr.resize(o.process, cur.after.Domain, 0, o.epoch); err != nil {
		return err
	}
	cur.after = nil
	dr.keep(trace)
	return nil
}

// eventOp is something that happened to a slot.
type eventOp struct{ ev lrp.Event }

func (o *eventOp) needs(s *subjects) { s.slots[o.ev.Key.Slot] = true }

func (o *eventOp) decide(w *world, trace string) error {
	dr := w.draft()
	if err := dr.apply(o.ev); err != nil {
		return err
	}
	dr.keep(trace)
	return nil
}

// heartbeatOp is a sign of life of a cell.
type heartbeatOp struct {
	presence cells.Presence
	ttl      time.Duration
}

func (o *heartbeatOp) needs(s *subjects) { s.cells[o.presence.Cell] = true }

func (o *heartbeatOp) decide(w *world, trace string) error {
	cur := w.cell(o.presence.Cell)
	cur.touched, cur.ttl = true, o.ttl
	if cur.after != nil && reflect.DeepEqual(*cur.after, o.presence) {
		return nil
	}
	before, after := cur.after, o.presence
	cur.after = &after
	w.events = append(w.events, event.Event{
		At: w.now, TraceID: trace, Cell: &event.CellChange{Before: before, After: &after},
	})
	return nil
}

// expireOp drops a cell that has been silent for too long, unless it has been heard of meanwhile.
type expireOp struct {
	cell    lrp.CellID
	dropped bool // of the newest decision
}

func (o *expireOp) needs(s *subjects) { s.cells[o.cell] = true }

func (o *expireOp) decide(w *world, trace string) error {
	cur := w.cell(o.cell)
	o.dropped = cur.after != nil && cur.overdue && !cur.touched
	if !o.dropped {
		return nil
	}
	before := cur.after
	cur.after = nil
	w.events = append(w.events, event.Event{At: w.now, TraceID: trace, Cell: &event.CellChange{Before: before}})
	return nil
}

func (w *world) cell(id lrp.CellID) *cellState {
	c := w.cells[id]
	if c == nil {
		c = &cellState{}
		w.cells[id] = c
	}
	return c
}
