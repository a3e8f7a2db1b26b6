package store

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// queueReads queues the reads of what a batch is about; the answers go into the world.
func (s *Store) queueReads(pb *pgx.Batch, subj subjects, w *world) {
	full := sortedTexts(subj.full) // plain texts: what has a type of its own is written by reflection
	if len(full) > 0 {
		pb.Queue(s.sql["read_desired"], full).Query(func(rows pgx.Rows) error { return s.readDesired(w, rows) })
		pb.Queue(s.sql["read_instances"], full).Query(func(rows pgx.Rows) error {
			return eachRow(s, rows, s.scanActual, w.place, w.blockInstance)
		})
	}
	processes, indices := make([]string, 0, len(subj.slots)), make([]int32, 0, len(subj.slots)) // of single slots
	// In the order of the index: what lies side by side is read together.
	for _, slot := range slices.SortedFunc(maps.Keys(subj.slots), compareSlots) {
		if !subj.full[slot.Process] {
			processes, indices = append(processes, string(slot.Process)), append(indices, slot.Index)
		}
	}
	if len(processes) > 0 {
		pb.Queue(s.sql["read_slots"], processes, indices).Query(func(rows pgx.Rows) error { return s.readSlots(w, subj, rows) })
	}
	if len(subj.cells) > 0 {
		pb.Queue(s.sql["read_cells"], slices.Sorted(maps.Keys(subj.cells))).Query(func(rows pgx.Rows) error { return w.readCells(rows) })
	}
}

// sortedTexts returns the keys of a set, as plain texts.
func sortedTexts[K ~string](set map[K]bool) []string {
	texts := make([]string, 0, len(set))
	for k := range set {
		texts = append(texts, string(k))
	}
	slices.Sort(texts)
	return texts
}

// readDesired and readSlots note what cannot be read, and go on: calls about other records do not suffer
// for it.
func (s *Store) readDesired(w *world, rows pgx.Rows) error {
	return eachRow(s, rows, s.scanWhole,
		func(d lrp.Desired) {
			w.desired[d.Process] = &desiredState{before: &d, after: &d}
			w.wanted[d.Process] = wanted{d.Domain, d.Instances, d.Strategy}
		},
		func(d lrp.Desired, u *Unreadable) { w.block().processes[d.Process] = u })
}

func (s *Store) readSlots(w *world, subj subjects, rows pgx.Rows) error {
	var want wanted
	front := []any{(*string)(&want.domain), &want.instances, (*int32)(&want.strategy)}
	take := func(a *lrp.Actual, netInfo, told []byte) bool {
		if want.domain != "" {
			w.wanted[a.Process] = want
		}
		return a.State == "" || subj.mayVeil(a.Slot) && s.veil(w, a, netInfo, told)
	}
	scan := func(r pgx.CollectableRow) (lrp.Actual, error) { return s.scanRecord(r, take, front...) }
	return eachRow(s, rows, scan, func(a lrp.Actual) {
		if a.State != "" {
			w.place(a)
		}
	}, w.blockInstance)
}

// blockInstance notes that an instance cannot be read.
func (w *world) blockInstance(a lrp.Actual, u *Unreadable) {
	w.block().processes[a.Process], w.block().slots[a.Slot] = u, u
}

func (w *world) readCells(rows pgx.Rows) error {
	var id lrp.CellID
	var presence []byte
	var ttlMS int64
	var overdue bool
	_, err := pgx.ForEachRow(rows, []any{&id, &presence, &ttlMS, &overdue}, func() error {
		p, err := decodePresence(presence)
		if err != nil {
			return err
		}
		w.cells[id] = &cellState{before: &p, after: &p, ttl: time.Duration(ttlMS) * time.Millisecond, overdue: overdue}
		return nil
	})
	return err
}

// plan is what a batch writes: the arguments of its set statements.
type plan struct {
	insertDesired, updateDesired columns
	deleteDesired                []string
	insertActuals, updateActuals actualRows
	deleteActuals                columns
	upsertCells, touchCells      columns
	lostCells                    []string
	at                           time.Time
	events                       eventRows
	records                      []Record
	others
}

// plan compares what was with what has become.
func (s *Store) plan(w *world) (*plan, error) {
	p := &plan{
		insertDesired: make(columns, 17), updateDesired: make(columns, 8),
		deleteActuals: make(columns, 3), upsertCells: make(columns, 3), touchCells: make(columns, 2),
		events: newEventRows(len(w.events)), records: make([]Record, 0, len(w.events)), at: w.now,
	}
	if err := s.planDesired(p, w); err != nil {
		return nil, err
	}
	if err := s.planActuals(p, w); err != nil {
		return nil, err
	}
	if err := p.planCells(w); err != nil {
		return nil, err
	}
	if err := s.planTasks(p, w); err != nil {
		return nil, err
	}
	p.planRequests(w)
	p.planFences(w)
	for i := range w.events {
		ev := &w.events[i]
		r, err := w.record(*ev)
		if err != nil {
			return nil, err
		}
		p.events.add(&r, ev.TraceID, s.payload(&r, w.batch, ev.TraceID))
		p.records = append(p.records, r)
	}
	return p, nil
}

func (s *Store) planDesired(p *plan, w *world) error {
	for _, process := range slices.Sorted(maps.Keys(w.desired)) {
		d := w.desired[process]
		if err := s.planProcess(p, process, d.before, d.after); err != nil {
			return fmt.Errorf("encode process %s: %w", process, err)
		}
	}
	return nil
}

func (s *Store) planProcess(p *plan, process lrp.ProcessGUID, before, after *lrp.Desired) error {
	switch {
	case before == after:
		return nil
	case after == nil:
		p.deleteDesired = append(p.deleteDesired, string(process))
		return nil
	case before == nil:
		return s.insertDesired(p.insertDesired, *after)
	case before.Tag.Epoch != after.Tag.Epoch: // removed and desired again in one batch
		p.deleteDesired = append(p.deleteDesired, string(process))
		return s.insertDesired(p.insertDesired, *after)
	}
	var recipe []byte
	if !reflect.DeepEqual(before.RunInfo, after.RunInfo) {
		var err error
		if recipe, err = s.sealRecipe(*after); err != nil {
			return err
		}
	}
	return s.updateDesired(p.updateDesired, *after, recipe)
}

func (s *Store) planActuals(p *plan, w *world) error {
	for _, process := range slices.Sorted(maps.Keys(w.groups)) {
		group := w.groups[process]
		for _, index := range slices.Sorted(maps.Keys(group)) {
			g := group[index]
			was, is := p.planMoves(g.before, g.after)
			for place := range was {
				if err := s.planInstance(p, was[place], is[place], w.parts(is[place])); err != nil {
					return fmt.Errorf("encode an instance of process %s: %w", process, err)
				}
			}
		}
	}
	return nil
}

func (s *Store) planInstance(p *plan, before, after *lrp.Actual, encoded *wire.Parts) error {
	write := func(rows *actualRows) error {
		if err := s.actualRow(rows, after); err != nil {
			return err
		}
		s.unveil(rows, after, encoded)
		return nil
	}
	switch {
	case before == after:
		return nil
	case before == nil:
		return write(&p.insertActuals)
	case after == nil:
		row(p.deleteActuals, string(before.Process), before.Index, presenceName(before.Presence))
		return nil
	case !reflect.DeepEqual(before, after):
		return write(&p.updateActuals)
	}
	return nil
}

func (p *plan) planCells(w *world) error {
	for _, id := range slices.Sorted(maps.Keys(w.cells)) {
		c := w.cells[id]
		switch {
		case c.after == nil && c.before != nil:
			p.lostCells = append(p.lostCells, string(id))
		case c.after != c.before:
			presence, err := encodePresence(*c.after)
			if err != nil {
				return fmt.Errorf("encode the presence of cell %s: %w", id, err)
			}
			row(p.upsertCells, string(id), presence, c.ttl.Milliseconds())
		case c.touched && c.after != nil:
			row(p.touchCells, string(id), c.ttl.Milliseconds())
		}
	}
	return nil
}

func (p *plan) empty() bool {
	return len(p.records) == 0 && p.touchCells[0] == nil && !p.upsertFences.has()
}

// queue queues the writes. Deletions come first: a record can be replaced by another in one batch.
func (p *plan) queue(pb *pgx.Batch, sql map[string]string) {
	if len(p.records) == 0 && !p.upsertFences.has() {
		pb.Queue(sql["relax_commit"])
	}
	for _, set := range []struct {
		name string
		args columns
	}{
		{"delete_desired", ids(p.deleteDesired)}, {"insert_desired", p.insertDesired}, {"update_desired", p.updateDesired},
		{"delete_actuals", p.deleteActuals}, {"move_actuals", p.moveActuals}, {"insert_actuals", p.insertActuals.args()}, {"update_actuals", p.updateActuals.args()},
		{"lose_cells", ids(p.lostCells)}, {"upsert_cells", p.upsertCells}, {"touch_cells", p.touchCells},
		{"delete_tasks", ids(p.deleteTasks)}, {"insert_tasks", p.insertTasks}, {"update_tasks", p.updateTasks},
		{"insert_requests", p.insertRequests}, {"upsert_fences", p.upsertFences},
	} {
		if set.args.has() {
			pb.Queue(sql[set.name], set.args...)
		}
	}
}

// has tells whether there is anything to write.
func (c columns) has() bool { return len(c) > 0 && c[0] != nil }

// ids makes the only argument of a deletion; none when there is nothing to delete.
func ids(list []string) columns {
	if len(list) == 0 {
		return columns{nil}
	}
	return columns{list}
}

func encodePresence(p cells.Presence) ([]byte, error) { return proto.Marshal(wire.EncodePresence(p)) }

func decodePresence(b []byte) (cells.Presence, error) {
	var m bbsv1.CellPresence
	if err := proto.Unmarshal(b, &m); err != nil {
		return cells.Presence{}, fmt.Errorf("presence of a cell: %w", err)
	}
	return wire.DecodePresence(&m), nil
}

// upsertDomain and its like are not about LRP rows: they are single statements.

// UpsertDomain declares a domain fresh for ttl, in whole seconds; 0: for ever.
func (s *Store) UpsertDomain(ctx context.Context, d lrp.Domain, ttl time.Duration) error {
	_, err := s.Pools.Read.Exec(ctx, s.sql["upsert_domain"], string(d), int64(ttl/time.Second))
	return unavailable("declare a domain fresh", err)
}
