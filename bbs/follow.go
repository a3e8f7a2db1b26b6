package bbs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/bbs/converge"
	"muster/bbs/event"
	"muster/bbs/internal/hub"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/internal/wait"
)

const (
	// cellsAtOnce is how many cells are repaired with one plan: instances of so many fit into it as a rule.
	cellsAtOnce = 32
	// repairers is how many plans are in the making at once: while one is written the next one is read.
	repairers = 2
)

// follow reads the log from a revision on, whichever replica wrote it, and notes what there is to do.
func (c *converger) follow(ctx context.Context, revision uint64) error {
	lost := map[lrp.CellID]bool{}
	for ctx.Err() == nil {
		w, err := c.hub.Watch(ctx, revision, hub.Filter{})
		if err == nil {
			for err == nil {
				var records []*store.Record
				if records, revision, err = next(ctx, w, revision); err == nil {
					c.see(records, lost)
				}
			}
			w.Close()
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, hub.ErrSlow): // goes on where it was
		case errors.Is(err, hub.ErrPruned), errors.Is(err, hub.ErrFuture):
			// What was missed is found by comparing everything.
			revision = c.hub.Newest()
			clear(lost)
			c.soon()
		default:
			wait.For(ctx, convergeRetry)
		}
	}
	return ctx.Err()
}

// next returns what comes next, and the revision to resume after, also with an error.
func next(ctx context.Context, w *hub.Watch, after uint64) ([]*store.Record, uint64, error) {
	records, revision, err := w.Next(ctx)
	if err != nil {
		return nil, after, err
	}
	return records, revision, nil
}

// see notes what some changes ask for. lost are the cells that are known to have fallen silent.
func (c *converger) see(records []*store.Record, lost map[lrp.CellID]bool) {
	for _, r := range records {
		switch r.Kind {
		case store.OfCell:
			c.seeCell(r.Event().Cell, lost)
			continue
		case store.OfTask:
			ev := r.Event()
			c.metrics.changed(ev.Task)
			if ev.Task.After != nil {
				c.callbacks.Submit(*ev.Task.After, ev.TraceID)
			}
			continue
		}
		if r.State == "" {
			continue
		}
		c.restart.see(r)
		// A call or a plan that was on its way when the cell came or went: nobody has dealt with it.
		suspect := r.Presence == lrp.Suspect
		if r.CellAfter != "" && (lost[r.CellAfter] && !suspect && r.CellAfter != r.CellBefore || !lost[r.CellAfter] && suspect) {
			c.changed.add(r.CellAfter)
		}
	}
}

// seeCell notes that a cell came or went.
func (c *converger) seeCell(change *event.CellChange, lost map[lrp.CellID]bool) {
	of := change.After
	if of == nil {
		of = change.Before
	}
	if of == nil {
		return
	}
	lost[of.Cell] = change.After == nil
	if change.Before == nil || change.After == nil {
		c.changed.add(of.Cell)
	}
}

// repairCells deals with cells that fell silent or came back, as soon as the log tells of them.
func (c *converger) repairCells(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changed.ready:
		}
		if err := c.repairChanged(ctx); errors.Is(err, store.ErrFenced) {
			return err
		}
	}
}

// repairChanged deals with the cells that are noted. Comparisons wait meanwhile: they would find the same
// again.
func (c *converger) repairChanged(ctx context.Context) error {
	c.repairing.Lock()
	defer c.repairing.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	for range repairers {
		g.Go(func() error {
			for ids := c.changed.take(); len(ids) > 0 && ctx.Err() == nil; ids = c.changed.take() {
				if err := c.repairSome(ctx, ids); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// repairSome deals with some cells, and notes them again if that fails. It fails only when the lease is
// lost.
func (c *converger) repairSome(ctx context.Context, ids []lrp.CellID) error {
	err := c.repair(ctx, ids)
	switch {
	case errors.Is(err, store.ErrFenced):
		return err
	case err != nil && ctx.Err() == nil:
		c.log.Warn("repair what is on cells that came or went", "error", err, "cells", len(ids))
		wait.For(ctx, convergeRetry)
		c.changed.add(ids...)
	}
	return nil
}

// repair deals with what is on some cells, converge.MaxSteps slots at a time: what is known of the cells is
// read again for each such portion.
func (c *converger) repair(ctx context.Context, ids []lrp.CellID) error {
	start := time.Now()
	slots, err := c.onCells(ctx, ids)
	if err != nil {
		return err
	}
	steps := 0
	for portion := range slices.Chunk(slots, converge.MaxSteps) {
		taken, err := c.store.Repair(ctx, portion, c.call)
		if err != nil {
			return err
		}
		if err := c.took(ctx, taken); err != nil {
			return err
		}
		steps += len(taken)
	}
	if steps == 0 {
		return nil
	}
	took := time.Since(start)
	c.metrics.converged(cellsPass, took)
	c.log.Info("repaired what is on cells that came or went", "cells", len(ids), "steps", steps, "took", took)
	return nil
}

func (c *converger) onCells(ctx context.Context, ids []lrp.CellID) ([]lrp.Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	return c.store.OnCells(ctx, ids)
}

// changedCells are cells to look at. It is safe for concurrent use.
type changedCells struct {
	ready chan struct{} // capacity 1: there are some

	mu  sync.Mutex
	ids []lrp.CellID // in the order in which they came
}

func newChangedCells() *changedCells { return &changedCells{ready: make(chan struct{}, 1)} }

func (q *changedCells) add(ids ...lrp.CellID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		if !slices.Contains(q.ids, id) {
			q.ids = append(q.ids, id)
		}
	}
	select {
	case q.ready <- struct{}{}:
	default: // it is known
	}
}

// take returns up to cellsAtOnce cells and forgets them.
func (q *changedCells) take() []lrp.CellID {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.ids), cellsAtOnce)
	ids := q.ids[:n:n]
	q.ids = q.ids[n:]
	return ids
}
