package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
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
			if r.wants(rec) && !r.open[rec.Instance] {
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

// wants tells whether an instance was asked for and may have written something.
func (r *reader) wants(rec container.Record) bool {
	return string(rec.Key.Process) == r.req.GetProcessGuid() && rec.Launched &&
		(r.req.Index == nil || *r.req.Index == rec.Key.Index)
}

// instance sends the lines of one instance: with a tail, the newest of what is there, and then what
// follows. A container that is gone meanwhile has no more lines.
func (r *reader) instance(ctx context.Context, rec container.Record, follow bool) error {
	skip := map[engine.Stream]int64{}
	if tail := int(r.req.GetTail()); tail > 0 {
		kept, err := r.tail(ctx, rec, tail, skip)
		if err != nil {
			return ignoreGone(err)
		}
		for _, line := range kept {
			if err := r.line(line); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for n, stream := range []engine.Stream{engine.Stdout, engine.Stderr} {
		wg.Go(func() {
			errs[n] = ignoreGone(r.read(ctx, rec, stream, skip[stream], follow, r.line))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// tail returns the newest lines of what is there, and counts the bytes read. The outputs carry no
// times, so those of standard error come behind those of standard output.
func (r *reader) tail(ctx context.Context, rec container.Record, n int, skip map[engine.Stream]int64) ([]*repv1.LogsResponse, error) {
	var kept []*repv1.LogsResponse
	for _, stream := range []engine.Stream{engine.Stdout, engine.Stderr} {
		var own []*repv1.LogsResponse
		count := counter{}
		err := r.readCounted(ctx, rec, stream, &count, func(m *repv1.LogsResponse) error {
			own = append(own, m)
			if len(own) > 2*n {
				own = append(own[:0:0], own[len(own)-n:]...)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		skip[stream] = count.n
		kept = append(kept, own[max(0, len(own)-n):]...)
	}
	return kept[max(0, len(kept)-n):], nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

func (r *reader) readCounted(ctx context.Context, rec container.Record, stream engine.Stream, c *counter, fn func(*repv1.LogsResponse) error) error {
	rc, err := r.server.cell.Logs(ctx, rec.Instance, stream, false)
	if err != nil {
		return err
	}
	defer rc.Close()
	return r.split(io.TeeReader(rc, c), rec, stream, fn)
}

func (r *reader) read(ctx context.Context, rec container.Record, stream engine.Stream, skip int64, follow bool, fn func(*repv1.LogsResponse) error) error {
	rc, err := r.server.cell.Logs(ctx, rec.Instance, stream, follow)
	if err != nil {
		return err
	}
	defer rc.Close()
	if _, err := io.CopyN(io.Discard, rc, skip); err != nil {
		return err
	}
	return r.split(rc, rec, stream, fn)
}

func (r *reader) split(from io.Reader, rec container.Record, stream engine.Stream, fn func(*repv1.LogsResponse) error) error {
	l := lines{r: from}
	for {
		line, err := l.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read logs of instance %s: %w", rec.Instance, err)
		}
		if err := fn(&repv1.LogsResponse{
			InstanceGuid: string(rec.Instance), Index: rec.Key.Index, Stderr: stream == engine.Stderr,
			Line: append([]byte(nil), line...), CellId: string(r.server.cell.Presence.Cell),
		}); err != nil {
			return err
		}
	}
}

func (r *reader) line(m *repv1.LogsResponse) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	return r.send(m)
}

func ignoreGone(err error) error {
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
