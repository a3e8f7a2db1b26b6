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
	return s.send(ctx, s.signs, &request{op: &heartbeatOp{presence: p, ttl: ttl}, call: &c})
}

// forgetCellsAfter is how long the tombstone of a lost cell is kept at least. It stays for as long as
// a record names the cell.
const forgetCellsAfter = time.Hour

// expire declares cells lost that are still silent, and returns those that were.
func (s *Store) expire(ctx context.Context, silent []lrp.CellID) (lost []lrp.CellID, err error) {
	ops, requests := make([]expireOp, len(silent)), make([]*request, 0, len(silent))
	for i, id := range silent {
		ops[i].cell = id
		r := &request{op: &ops[i], call: &Call{}}
		// Behind the heartbeats that arrived before: none of those cells is silent.
		if err = s.enqueue(ctx, s.signs, r); err != nil {
			break
		}
		requests = append(requests, r)
	}
	for i, r := range requests {
		if e := s.wait(ctx, r); e != nil { // and the call may still be in the hands of a writer
			err = fmt.Errorf("lose silent cell %s: %w", silent[i], e)
		} else if ops[i].lost {
			lost = append(lost, silent[i])
		}
	}
	return lost, err
}

// Sweep declares cells lost that have been silent for longer than their time to live, and forgets
// domains that are stale and cells that were lost long ago. heard is for how long this replica has
// been able to store heartbeats: a cell whose time to live is longer than that is given the benefit of
// the doubt, so that an outage of the database is not mistaken for one of the cells.
func (s *Store) Sweep(ctx context.Context, heard time.Duration) (lost []lrp.CellID, err error) {
	rows, err := s.Pools.Read.Query(ctx, s.sql["overdue_cells"], heard.Milliseconds())
	if err != nil {
		return nil, unavailable("look for silent cells", err)
	}
	silent, err := pgx.CollectRows(rows, pgx.RowTo[lrp.CellID])
	if err != nil {
		return nil, unavailable("look for silent cells", err)
	}
	if lost, err = s.expire(ctx, silent); err != nil {
		return lost, err
	}
	if _, err = s.Pools.Read.Exec(ctx, s.sql["delete_stale_domains"]); err != nil {
		return lost, unavailable("forget stale domains", err)
	}
	_, err = s.Pools.Read.Exec(ctx, s.sql["forget_cells"], forgetCellsAfter.Milliseconds())
	return lost, unavailable("forget cells that were lost long ago", err)
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

// expireOp declares a cell lost that has been silent for too long, unless it has been heard of
// meanwhile.
type expireOp struct {
	cell lrp.CellID
	lost bool // of the newest decision
}

func (o *expireOp) needs(s *subjects) { s.cells[o.cell] = true }

func (o *expireOp) decide(w *world, c Call) error {
	cur := w.cell(o.cell)
	o.lost = cur.after != nil && cur.overdue && !cur.touched
	if !o.lost {
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
