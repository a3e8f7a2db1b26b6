package round

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/auctioneer/backlog"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
)

// Follow tells the loop what the BBS knows, until ctx ends.
func (l *Loop) Follow(ctx context.Context) error {
	return l.BBS.Follow(ctx, bbsclient.FollowOptions{
		Relist: l.Relist, List: l.list, Log: l.Log,
		Apply: func(events []bbsclient.Event) {
			l.tell(ctx, func(ctx context.Context) {
				for _, ev := range events {
					l.apply(ctx, ev)
				}
			})
		},
	})
}

// list reads everything at once and hands it to the loop; the oldest revision is where to go on from.
func (l *Loop) list(ctx context.Context) (uint64, error) {
	var (
		w         backlog.World
		presences []cells.Presence
		revisions [4]uint64
	)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		w.Processes, revisions[0], err = l.BBS.SchedulingInfos(gctx, bbsclient.DesiredFilter{})
		return err
	})
	g.Go(func() (err error) {
		w.Actuals, revisions[1], err = l.BBS.Actuals(gctx, bbsclient.ActualFilter{})
		return err
	})
	g.Go(func() (err error) {
		presences, revisions[2], err = l.BBS.Cells(gctx)
		return err
	})
	g.Go(func() (err error) {
		w.Tasks, revisions[3], err = l.BBS.Tasks(gctx, bbsclient.TaskFilter{})
		return err
	})
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for _, p := range presences {
		w.Cells = append(w.Cells, p.Cell)
	}
	l.tell(ctx, func(ctx context.Context) {
		l.Backlog.Load(w, time.Now())
		l.setCells(ctx, presences)
		l.Log.Debug("listed", "processes", len(w.Processes), "instances", len(w.Actuals), "tasks", len(w.Tasks), "cells", len(presences))
	})
	return slices.Min(revisions[:]), nil
}

// apply tells the backlog one event; called by the loop.
func (l *Loop) apply(ctx context.Context, ev bbsclient.Event) {
	switch {
	case ev.Desired != nil && ev.Desired.After != nil:
		l.Backlog.SetProcess(*ev.Desired.After)
	case ev.Desired != nil && ev.Desired.Before != nil:
		l.Backlog.RemoveProcess(ev.Desired.Before.Process)
	case ev.Actual != nil:
		l.Backlog.Change(lrp.Change{Before: ev.Actual.Before, After: ev.Actual.After}, ev.TraceID)
	case ev.Task != nil:
		l.Backlog.ChangeTask(*ev.Task, ev.TraceID)
	case ev.Cell != nil && ev.Cell.After != nil:
		l.setCell(ctx, *ev.Cell.After)
	case ev.Cell != nil && ev.Cell.Before != nil:
		l.removeCell(ev.Cell.Before.Cell)
	}
}
