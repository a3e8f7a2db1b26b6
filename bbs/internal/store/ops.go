package store

import "muster/bbs/lrp"

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
	decide(w *world, c Call) error
}

// desireOp creates a DesiredLRP and its slots.
type desireOp struct {
	desired lrp.Desired
	epoch   func() string
}

func (o *desireOp) needs(s *subjects) { s.full[o.desired.Process] = true }

func (o *desireOp) decide(w *world, c Call) error {
	cur := w.current(o.desired.Process)
	if cur.after != nil {
		return &lrp.Refusal{Slot: lrp.Slot{Process: o.desired.Process}, Event: eventDesire, Why: lrp.Exists}
	}
	d := o.desired
	d.Tag = lrp.ModificationTag{Epoch: o.epoch()}
	d.RunInfo.CreatedAt = w.now
	dr := w.draft()
	if err := dr.change(nil, &d, o.epoch); err != nil {
		return err
	}
	dr.keep(c)
	return nil
}

// updateOp changes a DesiredLRP and scales it.
type updateOp struct {
	process lrp.ProcessGUID
	update  lrp.Update
	epoch   func() string
}

func (o *updateOp) needs(s *subjects) { s.full[o.process] = true }

func (o *updateOp) decide(w *world, c Call) error {
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
	if after.Tag == before.Tag {
		return nil // nothing new
	}
	dr := w.draft()
	if err := dr.change(&before, &after, o.epoch); err != nil {
		return err
	}
	dr.keep(c)
	return nil
}

// deleteOp removes a DesiredLRP and stops its instances.
type deleteOp struct {
	process lrp.ProcessGUID
	epoch   func() string
}

func (o *deleteOp) needs(s *subjects) { s.full[o.process] = true }

func (o *deleteOp) decide(w *world, c Call) error {
	cur := w.current(o.process)
	if cur.after == nil {
		return &lrp.Refusal{Slot: lrp.Slot{Process: o.process}, Event: eventDelete, Why: lrp.NotFound}
	}
	dr := w.draft()
	if err := dr.change(cur.after, nil, o.epoch); err != nil {
		return err
	}
	dr.keep(c)
	return nil
}

// eventOp is something that happened to a slot.
type eventOp struct {
	ev   lrp.Event
	keep bool // of the newest decision
}

func (o *eventOp) needs(s *subjects) {
	s.slots[o.ev.Key.Slot] = true
	if !blind(o.ev.Name) {
		add(&s.seeing, o.ev.Key.Slot)
	}
	if needsWholeProcess(o.ev.Name) {
		add(&s.counted, o.ev.Key.Process)
	}
}

func (o *eventOp) decide(w *world, c Call) (err error) {
	dr := w.draft()
	if o.keep, err = dr.apply(o.ev); err != nil {
		return err
	}
	dr.keep(c)
	return nil
}
