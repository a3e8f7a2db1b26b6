package server

import (
	"context"
	"time"

	"muster/bbs/internal/hub"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// Watch streams changes.
func (s *Server) Watch(r *bbsv1.WatchRequest, stream bbsv1.BBSService_WatchServer) error {
	start := time.Now()
	err := s.watch(r, stream)
	s.logWatch(stream.Context(), r, err, time.Since(start))
	return err
}

func (s *Server) watch(r *bbsv1.WatchRequest, stream bbsv1.BBSService_WatchServer) error {
	ctx := stream.Context()
	if err := s.authorize(ctx, bbsv1.BBSService_Watch_FullMethodName, r); err != nil {
		return err
	}
	p := s.parts.Load()
	if p == nil {
		return errStarting()
	}
	f := filter(r)
	if id, err := s.caller(ctx); err == nil {
		f.ByCell = id.Role == identity.Rep // which may watch itself only
	}
	w, err := p.hub.Watch(ctx, r.GetAfterRevision(), f)
	if err != nil {
		return err
	}
	defer w.Close()
	// The caller is told at once that the watch stands, also when there is nothing to see yet.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- send(ctx, w, stream) }()
	select {
	case err := <-ended:
		return err
	case <-w.Failed():
	}
	// A caller that reads nothing keeps the sender waiting, and would for ever. The end of the stream ends that.
	select {
	case err := <-ended:
		return err
	case <-time.After(cutOffTime):
		return hub.ErrSlow
	}
}

// send sends what a watch sees until it ends.
func send(ctx context.Context, w *hub.Watch, stream bbsv1.BBSService_WatchServer) error {
	for {
		records, revision, err := w.Next(ctx)
		if err != nil {
			return err
		}
		m := &bbsv1.WatchResponse{Revision: revision, Events: make([]*bbsv1.Event, len(records))}
		for i, r := range records {
			m.Events[i] = r.Wire
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// filter says what the caller wants to see.
func filter(r *bbsv1.WatchRequest) hub.Filter {
	return hub.Filter{
		Cell: lrp.CellID(r.GetCellId()), Domain: lrp.Domain(r.GetDomain()), Process: lrp.ProcessGUID(r.GetProcessGuid()),
		Task: task.GUID(r.GetTaskGuid()),
	}
}
