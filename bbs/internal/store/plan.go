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
	full := slices.Sorted(maps.Keys(subj.full))
	if len(full) > 0 {
		pb.Queue(s.sql["read_desired"], full).Query(func(rows pgx.Rows) error { return w.readDesired(rows) })
	}
	var processes []lrp.ProcessGUID // of single slots
	var indices []int32
	singles := map[lrp.ProcessGUID]bool{}
	for slot := range subj.slots {
		if !subj.full[slot.Process] {
			processes, indices = append(processes, slot.Process), append(indices, slot.Index)
			singles[slot.Process] = true
		}
	}
	if len(singles) > 0 {
		pb.Queue(s.sql["read_wanted"], slices.Sorted(maps.Keys(singles))).Query(func(rows pgx.Rows) error { return w.readWanted(rows) })
	}
	if len(full)+len(singles) > 0 {
		pb.Queue(s.sql["read_actuals"], full, processes, indices).Query(func(rows pgx.Rows) error { return w.readActuals(rows) })
	}
	if len(subj.cells) > 0 {
		pb.Queue(s.sql["read_cells"], slices.Sorted(maps.Keys(subj.cells))).Query(func(rows pgx.Rows) error { return w.readCells(rows) })
	}
}

func (w *world) readDesired(rows pgx.Rows) error {
	all, err := pgx.CollectRows(rows, scanDesired)
	if err != nil {
		return err
	}
	for _, r := range all {
		d, err := r.whole()
		if err != nil {
			return err
		}
		w.desired[d.Process] = &desiredState{before: &d, after: &d}
		w.wanted[d.Process] = wanted{d.Domain, d.Instances}
	}
	return nil
}

func (w *world) readWanted(rows pgx.Rows) error {
	var p lrp.ProcessGUID
	var want wanted
	_, err := pgx.ForEachRow(rows, []any{&p, &want.domain, &want.instances}, func() error {
		w.wanted[p] = want
		return nil
	})
	return err
}

func (w *world) readActuals(rows pgx.Rows) error {
	all, err := pgx.CollectRows(rows, scanActual)
	for _, a := range all {
		w.place(a)
	}
	return err
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
	insertActuals, updateActuals columns
	deleteActuals                columns
	upsertCells, touchCells      columns
	deleteCells                  []string
	at                           time.Time
	events                       columns
	records                      []Record
}

// plan compares what was with what has become.
func (s *Store) plan(w *world) (*plan, error) {
	p := &plan{
		insertDesired: make(columns, 17), updateDesired: make(columns, 8),
		insertActuals: make(columns, actualColumns), updateActuals: make(columns, actualColumns), deleteActuals: make(columns, 3),
		upsertCells: make(columns, 3), touchCells: make(columns, 2), events: make(columns, 6), at: w.now,
	}
	if err := p.planDesired(w); err != nil {
		return nil, err
	}
	p.planActuals(w)
	if err := p.planCells(w); err != nil {
		return nil, err
	}
	for _, ev := range w.events {
		r := newRecord(ev)
		payload, err := r.payload()
		if err != nil {
			return nil, fmt.Errorf("encode an event: %w", err)
		}
		row(p.events, ev.TraceID, string(r.Process), string(r.Domain), string(r.CellBefore), string(r.CellAfter), payload)
		p.records = append(p.records, r)
	}
	return p, nil
}

func (p *plan) planDesired(w *world) error {
	for _, process := range slices.Sorted(maps.Keys(w.desired)) {
		d := w.desired[process]
		switch {
		case d.before == d.after:
		case d.after == nil:
			p.deleteDesired = append(p.deleteDesired, string(process))
		case d.before == nil:
			recipe, err := encodeRecipe(d.after.RunInfo)
			if err != nil {
				return fmt.Errorf("encode the recipe of process %s: %w", process, err)
			}
			insertDesired(p.insertDesired, *d.after, recipe)
		case d.before.Tag.Epoch != d.after.Tag.Epoch: // removed and desired again in one batch
			recipe, err := encodeRecipe(d.after.RunInfo)
			if err != nil {
				return fmt.Errorf("encode the recipe of process %s: %w", process, err)
			}
			p.deleteDesired = append(p.deleteDesired, string(process))
			insertDesired(p.insertDesired, *d.after, recipe)
		default:
			var recipe []byte
			if !reflect.DeepEqual(d.before.RunInfo, d.after.RunInfo) {
				var err error
				if recipe, err = encodeRecipe(d.after.RunInfo); err != nil {
					return fmt.Errorf("encode the recipe of process %s: %w", process, err)
				}
			}
			updateDesired(p.updateDesired, *d.after, recipe)
		}
	}
	return nil
}

func (p *plan) planActuals(w *world) {
	for _, process := range slices.Sorted(maps.Keys(w.groups)) {
		group := w.groups[process]
		for _, index := range slices.Sorted(maps.Keys(group)) {
			g := group[index]
			for _, place := range []struct{ before, after *lrp.Actual }{
				{g.before.Ordinary, g.after.Ordinary},
				{g.before.Evacuating, g.after.Evacuating},
				{g.before.Suspect, g.after.Suspect},
			} {
				switch {
				case place.before == place.after:
				case place.before == nil:
					actualRow(p.insertActuals, place.after)
				case place.after == nil:
					b := place.before
					row(p.deleteActuals, string(b.Process), b.Index, presenceName(b.Presence))
				case !reflect.DeepEqual(place.before, place.after):
					actualRow(p.updateActuals, place.after)
				}
			}
		}
	}
}

func (p *plan) planCells(w *world) error {
	for _, id := range slices.Sorted(maps.Keys(w.cells)) {
		c := w.cells[id]
		switch {
		case c.after == nil && c.before != nil:
			p.deleteCells = append(p.deleteCells, string(id))
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
	return len(p.records) == 0 && p.touchCells[0] == nil
}

// queue queues the writes. Deletions come first: a record can be replaced by another in one batch.
func (p *plan) queue(pb *pgx.Batch, sql map[string]string) {
	if len(p.records) == 0 {
		pb.Queue(sql["relax_commit"])
	}
	for _, set := range []struct {
		name string
		args columns
	}{
		{"delete_desired", ids(p.deleteDesired)}, {"insert_desired", p.insertDesired}, {"update_desired", p.updateDesired},
		{"delete_actuals", p.deleteActuals}, {"insert_actuals", p.insertActuals}, {"update_actuals", p.updateActuals},
		{"delete_cells", ids(p.deleteCells)}, {"upsert_cells", p.upsertCells}, {"touch_cells", p.touchCells},
	} {
		if set.args[0] != nil {
			pb.Queue(sql[set.name], set.args...)
		}
	}
}

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
