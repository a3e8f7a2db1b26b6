package store

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/cells"
)

// Heartbeat notes a sign of life of a cell, good for ttl.
func (s *Store) Heartbeat(ctx context.Context, p cells.Presence, ttl time.Duration, c Call) error {
	return s.do(ctx, &heartbeatOp{presence: p, ttl: ttl}, c)
}

// expire drops cells that are still silent, and returns those that were.
func (s *Store) expire(ctx context.Context, silent []lrp.CellID) (dropped []lrp.CellID, err error) {
	ops := make([]op, len(silent))
	for i, id := range silent {
		ops[i] = &expireOp{cell: id}
	}
	for i, answer := range s.doAll(ctx, ops, Call{}) {
		switch {
		case answer != nil: // and the call may still be in the hands of a writer
			err = fmt.Errorf("drop silent cell %s: %w", silent[i], answer)
		case ops[i].(*expireOp).dropped:
			dropped = append(dropped, silent[i])
		}
	}
	return dropped, err
}

// Sweep drops cells that have been silent for longer than their time to live, and forgets domains
// that are stale. heard is for how long this replica has been able to store heartbeats: a cell
// whose time to live is longer than that is given the benefit of the doubt, so that an outage of the
// database is not mistaken for one of the cells.
func (s *Store) Sweep(ctx context.Context, heard time.Duration) (dropped []lrp.CellID, err error) {
	rows, err := s.Pools.Read.Query(ctx, s.sql["overdue_cells"], heard.Milliseconds())
	if err != nil {
		return nil, unavailable("look for silent cells", err)
	}
	silent, err := pgx.CollectRows(rows, pgx.RowTo[lrp.CellID])
	if err != nil {
		return nil, unavailable("look for silent cells", err)
	}
	if dropped, err = s.expire(ctx, silent); err != nil {
		return dropped, err
	}
	_, err = s.Pools.Read.Exec(ctx, s.sql["delete_stale_domains"])
	return dropped, unavailable("forget stale domains", err)
}

// heartbeatOp is a sign of life of a cell.
type heartbeatOp struct {
	presence cells.Presence
	ttl      time.Duration
}

func (o *heartbeatOp) needs(s *subjects) { s.cells[o.presence.Cell] = true }

func (o *heartbeatOp) decide(w *world, c Call) error {
	cur := w.cell(o.presence.Cell)
	cur.touched, cur.ttl = true, o.ttl
	if cur.after != nil && reflect.DeepEqual(*cur.after, o.presence) {
		return nil
	}
	before, after := cur.after, o.presence
	cur.after = &after
	w.events = append(w.events, event.Event{
		At: w.now, TraceID: c.TraceID, Cell: &event.CellChange{Before: before, After: &after},
	})
	return nil
}

// expireOp drops a cell that has been silent for too long, unless it has been heard of meanwhile.
type expireOp struct {
	cell    lrp.CellID
	dropped bool // of the newest decision
}

func (o *expireOp) needs(s *subjects) { s.cells[o.cell] = true }

func (o *expireOp) decide(w *world, c Call) error {
	cur := w.cell(o.cell)
	o.dropped = cur.after != nil && cur.overdue && !cur.touched
	if !o.dropped {
		return nil
	}
	before := cur.after
	cur.after = nil
	w.events = append(w.events, event.Event{At: w.now, TraceID: c.TraceID, Cell: &event.CellChange{Before: before}})
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
