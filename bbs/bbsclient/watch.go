package bbsclient

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/refusal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// WatchFilter chooses changes; zero members choose all. A cell must name itself.
type WatchFilter struct {
	Cell    lrp.CellID
	Domain  lrp.Domain
	Process lrp.ProcessGUID
	Task    task.GUID
}

// Watch is an open stream of changes. Its context ends it.
type Watch struct {
	stream grpc.ServerStreamingClient[bbsv1.WatchResponse]
}

// Watch opens the stream of the changes after a revision.
func (c *Client) Watch(ctx context.Context, after uint64, f WatchFilter) (*Watch, error) {
	stream, err := c.rpc.Watch(ctx, &bbsv1.WatchRequest{
		AfterRevision: after, CellId: string(f.Cell), Domain: string(f.Domain), ProcessGuid: string(f.Process),
		TaskGuid: string(f.Task),
	})
	if err != nil {
		return nil, refusal.FromStatus(err)
	}
	return &Watch{stream: stream}, nil
}

// Recv returns the next changes, and the revision to resume after. A bookmark has no changes.
func (w *Watch) Recv() ([]Event, uint64, error) {
	m, err := w.stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, 0, status.Error(codes.Unavailable, "the BBS ended the watch")
	}
	if err != nil {
		return nil, 0, refusal.FromStatus(err)
	}
	return decodeList(m.GetEvents(), wire.DecodeEvent), m.GetRevision(), nil
}

// Pauses between attempts of Follow.
const (
	minPause = 50 * time.Millisecond
	maxPause = 5 * time.Second
	// relistJitter spreads the full lists of many consumers: each waits up to this share longer.
	relistJitter = 0.2
)

// FollowOptions say what to follow and how.
type FollowOptions struct {
	Filter WatchFilter
	// Relist is the time between full lists, the safety net; 0: only when the log no longer
	// reaches back far enough.
	Relist time.Duration
	// List reads everything, replaces what the consumer knew, and returns the revision of the
	// oldest list that it used. The lists of Client may span several pages and return the revision
	// of the first, from where the watch tells what changed between them.
	List func(ctx context.Context) (uint64, error)
	// Apply is told changes in order. It and List are never called at the same time. After a List,
	// changes that the lists already showed may come again: compare modification tags.
	Apply func([]Event)
	Log   *slog.Logger
}

// Follow lists, watches from there, resumes after errors with growing pauses, and lists again when
// the log was cut off and every Relist. It returns only when ctx ends, with its error.
func (c *Client) Follow(ctx context.Context, o FollowOptions) error {
	f := follower{client: c, FollowOptions: o}
	for ctx.Err() == nil {
		err := f.round(ctx)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			continue // time for a full list
		}
		pause := f.nextPause()
		o.Log.Warn("following the BBS was interrupted", "error", err, "listed", f.listed, "revision", f.revision, "pause", pause)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return ctx.Err()
}

// follower is where a Follow stands.
type follower struct {
	client *Client
	FollowOptions
	listed   bool // the consumer is consistent with revision
	revision uint64
	relistAt time.Time // zero: never
	failures int
}

// round lists if it must and watches until an error or until it is time to list again.
func (f *follower) round(ctx context.Context) error {
	if !f.listed {
		revision, err := f.List(ctx)
		if err != nil {
			return err
		}
		f.listed, f.revision, f.relistAt = true, revision, time.Time{}
		if f.Relist > 0 {
			f.relistAt = time.Now().Add(f.Relist + time.Duration(rand.Float64()*relistJitter*float64(f.Relist)))
		}
	}
	wctx, cancel := f.untilRelist(ctx)
	defer cancel()
	err := f.watch(wctx)
	if errors.Is(context.Cause(wctx), errRelist) && ctx.Err() == nil {
		f.listed = false
		return nil
	}
	switch status.Code(err) {
	case codes.OutOfRange, codes.InvalidArgument: // the log was cut off, or belongs to another database
		f.listed = false
	}
	return err
}

// errRelist is why a watch is ended for a full list.
var errRelist = errors.New("time for a full list")

// untilRelist returns the context of one watch. It has no deadline: that would travel to the server,
// which could then end the watch first, as an error.
func (f *follower) untilRelist(ctx context.Context) (context.Context, context.CancelFunc) {
	wctx, cancel := context.WithCancelCause(ctx)
	if f.relistAt.IsZero() {
		return wctx, func() { cancel(nil) }
	}
	t := time.AfterFunc(time.Until(f.relistAt), func() { cancel(errRelist) })
	return wctx, func() { t.Stop(); cancel(nil) }
}

func (f *follower) watch(ctx context.Context) error {
	w, err := f.client.Watch(ctx, f.revision, f.Filter)
	if err != nil {
		return err
	}
	for {
		events, revision, err := w.Recv()
		if err != nil {
			return err
		}
		f.failures = 0
		if len(events) > 0 {
			f.Apply(events)
		}
		f.revision = revision
	}
}

// nextPause doubles with each failure in a row, and is shortened at random so that many consumers do
// not come back at once.
func (f *follower) nextPause() time.Duration {
	pause := min(maxPause, minPause<<min(f.failures, 10))
	f.failures++
	return pause/2 + rand.N(pause/2)
}
