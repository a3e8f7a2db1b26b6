package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
	"muster/cells/step"
	repv1 "muster/proto/rep/v1"
)

// maxTail is the largest tail that may be asked for, in lines.
const maxTail = 100_000

// Logs streams the lines of the instances of a process on this cell, those of both outputs as they
// come, and before them what is kept of instances that ended by themselves. With follow it waits for
// instances that start later; without, NOT_FOUND says that there are none.
func (s *Server) Logs(req *repv1.LogsRequest, stream grpc.ServerStreamingServer[repv1.LogsResponse]) error {
	if req.GetProcessGuid() == "" {
		return status.Error(codes.InvalidArgument, "process_guid is empty: name a process")
	}
	if t := req.GetTail(); t < 0 || t > maxTail {
		return status.Errorf(codes.InvalidArgument, "tail is %d: want 0 (all) to %d", t, maxTail)
	}
	r := reader{server: s, req: req, send: stream.Send, open: map[lrp.InstanceGUID]bool{}}
	return r.run(stream.Context())
}

// reader serves one call of Logs.
type reader struct {
	server *Server
	req    *repv1.LogsRequest

	sending sync.Mutex
	send    func(*repv1.LogsResponse) error

	open map[lrp.InstanceGUID]bool // instances that are or were read
}

func (r *reader) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	for _, rec := range r.server.cell.Ended() {
		if r.wants(rec) {
			r.open[rec.Instance] = true
			if err := r.instance(ctx, rec, false); err != nil {
				return err
			}
		}
	}
	for {
		records, changed := r.server.cell.Records()
		for _, rec := range records {
			if rec.Launched && r.wants(rec) && !r.open[rec.Instance] {
				r.open[rec.Instance] = true
				wg.Go(func() {
					if err := r.instance(ctx, rec, r.req.GetFollow()); err != nil {
						cancel(err)
					}
				})
			}
		}
		if !r.req.GetFollow() {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if len(r.open) == 0 {
		return status.Errorf(codes.NotFound, "no instance of %s is on cell %s", r.what(), r.server.cell.Presence.Cell)
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (r *reader) what() string {
	if r.req.Index != nil {
		return fmt.Sprintf("%s/%d", r.req.GetProcessGuid(), r.req.GetIndex())
	}
	return r.req.GetProcessGuid()
}

// wants tells whether an instance was asked for.
func (r *reader) wants(rec container.Record) bool {
	return string(rec.Key.Process) == r.req.GetProcessGuid() && (r.req.Index == nil || *r.req.Index == rec.Key.Index)
}

// instance sends the lines of one instance: with a tail, the newest of what is there, and then what
// follows. A container that is gone meanwhile has no more lines.
func (r *reader) instance(ctx context.Context, rec container.Record, follow bool) error {
	var rest boundary
	if tail := int(r.req.GetTail()); tail > 0 {
		kept, youngest, err := r.newest(ctx, rec, tail)
		if err != nil {
			return ignoreGone(err)
		}
		for _, line := range kept {
			if err := r.line(rec, line); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		if len(kept) > 0 {
			rest = boundary{last: kept[len(kept)-1], youngest: youngest, behind: true}
		}
	}
	return ignoreGone(r.read(ctx, rec, follow, func(line engine.Line) error {
		if !rest.passed(line) {
			return nil
		}
		return r.line(rec, line)
	}))
}

// boundary is the last line of a log that was sent already; what is behind it when the log is read again is new,
// whatever its time: the clock may have been set back meanwhile.
type boundary struct {
	last engine.Line
	// youngest is the latest time of the lines up to it.
	youngest time.Time
	behind   bool // still to come
}

// passed tells whether a line, the next one of the log, is behind the boundary. When the boundary itself is no longer
// in the log, a line that is younger than all up to it is.
func (b *boundary) passed(line engine.Line) bool {
	if !b.behind {
		return true
	}
	if line.At.Equal(b.last.At) && line.Source == b.last.Source && line.Stream == b.last.Stream && bytes.Equal(line.Text, b.last.Text) {
		b.behind = false
		return false
	}
	b.behind = !line.At.After(b.youngest)
	return !b.behind
}

// newest returns the newest lines of what is there, and the latest time of all that is there.
func (r *reader) newest(ctx context.Context, rec container.Record, n int) (kept []engine.Line, youngest time.Time, err error) {
	err = r.read(ctx, rec, false, func(line engine.Line) error {
		line.Text = bytes.Clone(line.Text)
		if line.At.After(youngest) {
			youngest = line.At
		}
		if kept = append(kept, line); len(kept) > 2*n {
			kept = append(kept[:0:0], kept[len(kept)-n:]...)
		}
		return nil
	})
	return kept[max(0, len(kept)-n):], youngest, err
}

func (r *reader) read(ctx context.Context, rec container.Record, follow bool, fn func(engine.Line) error) error {
	log, err := r.server.cell.Logs(ctx, rec.Instance, follow)
	if err != nil {
		return err
	}
	defer log.Close()
	for {
		line, err := log.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read logs of instance %s: %w", rec.Instance, err)
		}
		if err := fn(line); err != nil {
			return err
		}
	}
}

// line sends a line.
func (r *reader) line(rec container.Record, l engine.Line) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	return r.send(&repv1.LogsResponse{
		InstanceGuid: string(rec.Instance), Index: rec.Key.Index, Stderr: l.Stream == step.Stderr, Line: bytes.Clone(l.Text),
		CellId: string(r.server.cell.Presence.Cell), Source: l.Source, Time: timestamppb.New(l.At),
	})
}

func ignoreGone(err error) error {
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
