package round

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"muster/bbs/lrp"
	"muster/cells"
	"muster/rep/repclient"
)

// Pauses between attempts to watch a cell.
const (
	minWatchPause = 50 * time.Millisecond
	maxWatchPause = 5 * time.Second
	// stateTimeout bounds the question for the state of a cell whose stream has ended.
	stateTimeout = 2 * time.Second
)

var errCellGone = errors.New("the cell is not present any more")

// Dial returns a client for a cell, connecting lazily, and what closes its connection.
type Dial func(cells.Presence) (*repclient.Client, func(), error)

// watch is a cell whose state is being followed.
type watch struct {
	presence cells.Presence // owned by the loop
	rep      *repclient.Client
	stop     func() // returns at once
}

// setCell follows a cell; called by the loop. A cell that moved is followed at its new address.
func (l *Loop) setCell(ctx context.Context, p cells.Presence) {
	old := l.watches[p.Cell]
	if old != nil && old.presence.RepURL == p.RepURL {
		old.presence = p
		return
	}
	if old != nil {
		l.removeCell(p.Cell)
	}
	rep, hangUp, err := l.Dial(p)
	if err != nil {
		l.Log.Error("cell cannot be reached", "cell_id", p.Cell, "rep_url", p.RepURL, "error", err)
		l.Backlog.CellPresent(p.Cell, time.Now())
		l.Backlog.CellSilent(p.Cell, time.Now())
		return
	}
	wctx, cancel := context.WithCancel(ctx)
	w := &watch{presence: p, rep: rep, stop: cancel}
	l.watches[p.Cell] = w
	l.Backlog.CellPresent(p.Cell, time.Now())
	l.Log.Info("cell appeared", "cell_id", p.Cell, "rep_url", p.RepURL, "zone", p.Zone)
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		defer hangUp()
		l.follow(wctx, w, p.Cell)
	}()
}

// removeCell forgets a cell; called by the loop.
func (l *Loop) removeCell(id lrp.CellID) {
	if w := l.watches[id]; w != nil {
		w.stop()
		delete(l.watches, id)
		l.Log.Info("cell is gone", "cell_id", id)
	}
	l.Backlog.CellGone(id)
}

// setCells follows exactly the cells of a list; called by the loop.
func (l *Loop) setCells(ctx context.Context, list []cells.Presence) {
	present := make(map[lrp.CellID]bool, len(list))
	for _, p := range list {
		present[p.Cell] = true
		l.setCell(ctx, p)
	}
	for id := range l.watches {
		if !present[id] {
			l.removeCell(id)
		}
	}
}

// follow hands the states of a cell to the loop until ctx ends. States that arrive faster than the
// loop takes them are folded into the newest.
func (l *Loop) follow(ctx context.Context, w *watch, id lrp.CellID) {
	var newest mailbox
	failures := 0
	for ctx.Err() == nil {
		err := w.rep.WatchState(ctx, func(st cells.State) {
			failures = 0
			if newest.put(st) {
				l.tell(ctx, func(context.Context) { l.cellState(w, id, newest.take()) })
			}
		})
		if ctx.Err() != nil {
			return
		}
		l.ask(ctx, w, id)
		l.Metrics.stateErrors.Inc()
		pause := min(maxWatchPause, minWatchPause<<min(failures, 10))
		failures++
		l.Log.Warn("state of a cell cannot be watched", "cell_id", id, "error", err, "pause", pause)
		t := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// ask asks a cell for its state when that cannot be watched: what answers once takes part, with a state that
// is as old as the pauses between the attempts.
func (l *Loop) ask(ctx context.Context, w *watch, id lrp.CellID) {
	l.tell(ctx, func(context.Context) { l.cellSilent(w, id) })
	asking, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	if st, err := w.rep.State(asking); err == nil {
		l.tell(ctx, func(context.Context) { l.cellState(w, id, st) })
	}
}

func (l *Loop) cellState(w *watch, id lrp.CellID, st cells.State) {
	if l.watches[id] != w {
		return // replaced in the meantime
	}
	if err := l.Backlog.CellState(id, st, time.Now()); err != nil {
		l.Log.Error("the state of a cell makes no sense", "cell_id", id, "error", err)
	}
}

func (l *Loop) cellSilent(w *watch, id lrp.CellID) {
	if l.watches[id] == w {
		l.Backlog.CellSilent(id, time.Now())
	}
}

// mailbox holds the newest state that was not taken yet.
type mailbox struct {
	mu   sync.Mutex
	st   cells.State
	full bool
}

// put replaces the state and tells whether there was none, so that somebody has to be told.
func (m *mailbox) put(st cells.State) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	wasFull := m.full
	m.st, m.full = st, true
	return !wasFull
}

func (m *mailbox) take() cells.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = false
	return m.st
}
