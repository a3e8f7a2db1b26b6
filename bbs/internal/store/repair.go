package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"muster/bbs/converge"
	"muster/bbs/lrp"
)

// repair is the name of what is done about a slot when not even a plan for it could be made.
const repair lrp.EventName = "repair"

// Repaired is a step that was planned for a slot, and its answer.
type Repaired struct {
	converge.Step
	Err error
}

// OnCells returns the slots that have a record on one of some cells.
func (s *Store) OnCells(ctx context.Context, ids []lrp.CellID) (slots []lrp.Slot, err error) {
	rows, err := s.Pools.Read.Query(ctx, s.sql["read_slots_on_cells"], ids)
	if err != nil {
		return nil, unavailable("read what is on cells", err)
	}
	var slot lrp.Slot
	_, err = pgx.ForEachRow(rows, []any{(*string)(&slot.Process), &slot.Index}, func() error {
		slots = append(slots, slot)
		return nil
	})
	return slots, unavailable("read what is on cells", err)
}

// Repair plans for some slots, as converge.Plan does, and takes the steps. It plans where a slot is locked and
// read for them: so each is decided by what it is then, and read once. Of a slot of which nothing can be
// said, the answer is a step named repair.
func (s *Store) Repair(ctx context.Context, slots []lrp.Slot, c Call) ([]Repaired, error) {
	planner, err := s.planner(ctx)
	if err != nil {
		return nil, err
	}
	ops, items := make([]repairOp, len(slots)), make([]item, len(slots))
	for i, slot := range slots {
		ops[i] = repairOp{slot: slot, planner: planner, epoch: newEpoch}
		items[i] = item{op: &ops[i], subject: string(slot.Process), weight: 2}
	}
	done := make([]Repaired, 0, len(slots))
	var unseen []converge.Step
	for i, err := range s.bulk(ctx, items, c, false) {
		if err != nil { // and the writer may still be at it
			done = append(done, Repaired{converge.Step{Event: lrp.Event{Name: repair, Key: lrp.Key{Slot: slots[i]}}}, err})
			continue
		}
		done, unseen = append(done, ops[i].done...), append(unseen, ops[i].unseen...)
	}
	return append(done, s.takeUnseen(ctx, unseen, c)...), nil
}

// planner returns a planner that knows the domains and the cells of this moment.
func (s *Store) planner(ctx context.Context) (converge.Planner, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	var known converge.Snapshot
	now := s.now()
	_, err := s.snapshot(ctx, func(pb *pgx.Batch) { s.queueKnowledge(pb, &known, now) })
	return converge.NewPlanner(known, now), err
}

// takeUnseen takes the steps that need to see what cells have reported.
func (s *Store) takeUnseen(ctx context.Context, steps []converge.Step, c Call) []Repaired {
	evs, done := make([]lrp.Event, len(steps)), make([]Repaired, len(steps))
	for i, step := range steps {
		evs[i] = step.Event
	}
	for i, err := range s.ApplyAll(ctx, evs, c) {
		done[i] = Repaired{steps[i], err}
	}
	return done
}

// repairOp plans for one slot and takes the steps.
type repairOp struct {
	slot    lrp.Slot
	planner converge.Planner
	epoch   func() string

	// Of the newest decision: the steps that were answered, and those that need another read.
	done   []Repaired
	unseen []converge.Step
}

func (o *repairOp) needs(s *subjects) { s.slots[o.slot] = true }

func (o *repairOp) decide(w *world, c Call) error {
	o.done, o.unseen = o.done[:0], o.unseen[:0]
	want := w.wanted[o.slot.Process]
	desired := converge.Desired{Process: o.slot.Process, Domain: want.domain, Instances: want.instances}
	for _, step := range o.planner.Slot(w.group(o.slot).after, desired) {
		if len(o.unseen) > 0 || !blind(step.Event.Name) {
			o.unseen = append(o.unseen, step) // and what follows, to keep the order
			continue
		}
		ev := step.Event
		ev.Epoch = o.epoch()
		dr := w.draft()
		_, err := dr.apply(ev)
		if err == nil {
			dr.keep(c)
		}
		o.done = append(o.done, Repaired{step, err})
	}
	return nil
}
