package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// store is there: the interceptor has seen to it.
func (s *Server) store() *store.Store { return s.parts.Load().store }

// DesireLRP creates a DesiredLRP.
func (s *Server) DesireLRP(ctx context.Context, r *bbsv1.DesireLRPRequest) (*bbsv1.DesiredLRPLifecycleResponse, error) {
	d := wire.DecodeDesired(r.GetDesiredLrp())
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if err := s.store().Desire(ctx, d, call(ctx)); err != nil {
		return nil, err
	}
	return &bbsv1.DesiredLRPLifecycleResponse{}, nil
}

// UpdateDesiredLRP changes a DesiredLRP.
func (s *Server) UpdateDesiredLRP(ctx context.Context, r *bbsv1.UpdateDesiredLRPRequest) (*bbsv1.DesiredLRPLifecycleResponse, error) {
	if r.GetUpdate() == nil {
		return nil, missing("update", "say what is to change")
	}
	if r.GetProcessGuid() == "" {
		return nil, missing("process_guid", "name the process")
	}
	u := wire.DecodeUpdate(r.GetUpdate())
	// What is wrong by itself need not wait for the record; the store checks the rest.
	if err := u.Validate(); err != nil {
		return nil, err
	}
	if err := s.store().Update(ctx, lrp.ProcessGUID(r.GetProcessGuid()), u, call(ctx)); err != nil {
		return nil, err
	}
	return &bbsv1.DesiredLRPLifecycleResponse{}, nil
}

// RemoveDesiredLRP removes a DesiredLRP.
func (s *Server) RemoveDesiredLRP(ctx context.Context, r *bbsv1.RemoveDesiredLRPRequest) (*bbsv1.DesiredLRPLifecycleResponse, error) {
	if r.GetProcessGuid() == "" {
		return nil, missing("process_guid", "name the process")
	}
	if err := s.store().RemoveDesired(ctx, lrp.ProcessGUID(r.GetProcessGuid()), call(ctx)); err != nil {
		return nil, err
	}
	return &bbsv1.DesiredLRPLifecycleResponse{}, nil
}

func missing(field, remedy string) error {
	return &lrp.Invalid{Fields: []lrp.FieldError{{Field: field, Problem: "is required: " + remedy}}}
}

func desiredFilter(r *bbsv1.DesiredLRPsRequest) store.DesiredFilter {
	f := store.DesiredFilter{Domain: lrp.Domain(r.GetDomain()), Prefixes: r.GetAppGuids()}
	for _, p := range r.GetProcessGuids() {
		f.Processes = append(f.Processes, lrp.ProcessGUID(p))
	}
	return f
}

// DesiredLRPs lists whole DesiredLRPs. Image passwords are for cells only.
func (s *Server) DesiredLRPs(ctx context.Context, r *bbsv1.DesiredLRPsRequest) (*bbsv1.DesiredLRPsResponse, error) {
	list, revision, err := s.store().Desired(ctx, desiredFilter(r))
	if err != nil {
		return nil, err
	}
	res := &bbsv1.DesiredLRPsResponse{Revision: revision}
	for _, d := range list {
		d.RunInfo.ImagePassword = ""
		res.DesiredLrps = append(res.DesiredLrps, wire.EncodeDesired(d))
	}
	return res, nil
}

// DesiredLRPByProcessGuid returns one whole DesiredLRP. The image password is for cells only.
func (s *Server) DesiredLRPByProcessGuid(ctx context.Context, r *bbsv1.DesiredLRPByProcessGuidRequest) (*bbsv1.DesiredLRPResponse, error) {
	p := lrp.ProcessGUID(r.GetProcessGuid())
	if p == "" {
		return nil, missing("process_guid", "name the process")
	}
	id, err := s.Identify(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	d, actuals, err := s.store().DesiredWithActuals(ctx, p)
	switch {
	case err != nil:
		return nil, err
	case id.Role == identity.Rep && !mayRead(id, actuals):
		// Also when there is no such process: a cell learns nothing about others.
		return nil, status.Errorf(codes.PermissionDenied, "process %s has no instance for cell %q", p, id.Cell)
	case d == nil:
		return nil, &lrp.Refusal{Slot: lrp.Slot{Process: p}, Event: "get", Why: lrp.NotFound}
	case id.Role != identity.Rep:
		d.RunInfo.ImagePassword = ""
	}
	return &bbsv1.DesiredLRPResponse{DesiredLrp: wire.EncodeDesired(*d)}, nil
}

// DesiredLRPSchedulingInfos lists what placement needs.
func (s *Server) DesiredLRPSchedulingInfos(ctx context.Context, r *bbsv1.DesiredLRPsRequest) (*bbsv1.DesiredLRPSchedulingInfosResponse, error) {
	list, revision, err := s.store().Scheduling(ctx, desiredFilter(r))
	if err != nil {
		return nil, err
	}
	res := &bbsv1.DesiredLRPSchedulingInfosResponse{Revision: revision}
	for _, info := range list {
		res.DesiredLrpSchedulingInfos = append(res.DesiredLrpSchedulingInfos, wire.EncodeSchedulingInfo(info))
	}
	return res, nil
}

// DesiredLRPRoutingInfos lists what routing needs.
func (s *Server) DesiredLRPRoutingInfos(ctx context.Context, r *bbsv1.DesiredLRPsRequest) (*bbsv1.DesiredLRPsResponse, error) {
	list, revision, err := s.store().Scheduling(ctx, desiredFilter(r))
	if err != nil {
		return nil, err
	}
	res := &bbsv1.DesiredLRPsResponse{Revision: revision}
	for _, i := range list {
		res.DesiredLrps = append(res.DesiredLrps, wire.EncodeSummary(lrp.SchedulingInfo{
			Process: i.Process, Domain: i.Domain, LogGUID: i.LogGUID, Instances: i.Instances,
			Routes: i.Routes, MetricTags: i.MetricTags, Tag: i.Tag,
		}))
	}
	return res, nil
}

// ActualLRPs lists ActualLRPs.
func (s *Server) ActualLRPs(ctx context.Context, r *bbsv1.ActualLRPsRequest) (*bbsv1.ActualLRPsResponse, error) {
	list, revision, err := s.store().Actuals(ctx, store.ActualFilter{
		Domain: lrp.Domain(r.GetDomain()), Cell: lrp.CellID(r.GetCellId()), Process: lrp.ProcessGUID(r.GetProcessGuid()), Index: r.Index,
	})
	if err != nil {
		return nil, err
	}
	res := &bbsv1.ActualLRPsResponse{Revision: revision}
	for _, a := range list {
		res.ActualLrps = append(res.ActualLrps, wire.EncodeActual(a))
	}
	return res, nil
}

// apply reports an event; the store validates it.
func (s *Server) apply(ctx context.Context, ev lrp.Event) (*bbsv1.ActualLRPLifecycleResponse, error) {
	if err := s.store().Apply(ctx, ev, call(ctx)); err != nil {
		return nil, err
	}
	return &bbsv1.ActualLRPLifecycleResponse{}, nil
}

// ClaimActualLRP reports a claim.
func (s *Server) ClaimActualLRP(ctx context.Context, r *bbsv1.ClaimActualLRPRequest) (*bbsv1.ActualLRPLifecycleResponse, error) {
	return s.apply(ctx, wire.DecodeClaim(r))
}

// StartActualLRP reports a start.
func (s *Server) StartActualLRP(ctx context.Context, r *bbsv1.StartActualLRPRequest) (*bbsv1.ActualLRPLifecycleResponse, error) {
	return s.apply(ctx, wire.DecodeStart(r))
}

// CrashActualLRP reports a crash.
func (s *Server) CrashActualLRP(ctx context.Context, r *bbsv1.CrashActualLRPRequest) (*bbsv1.ActualLRPLifecycleResponse, error) {
	return s.apply(ctx, wire.DecodeCrash(r))
}

// FailActualLRP reports a slot that could not be placed.
func (s *Server) FailActualLRP(ctx context.Context, r *bbsv1.FailActualLRPRequest) (*bbsv1.ActualLRPLifecycleResponse, error) {
	return s.apply(ctx, wire.DecodeFail(r))
}

// RemoveActualLRP reports that an instance is gone.
func (s *Server) RemoveActualLRP(ctx context.Context, r *bbsv1.RemoveActualLRPRequest) (*bbsv1.ActualLRPLifecycleResponse, error) {
	return s.apply(ctx, wire.DecodeRemove(r))
}

// RetireActualLRP asks for an instance to be stopped.
func (s *Server) RetireActualLRP(ctx context.Context, r *bbsv1.RetireActualLRPRequest) (*bbsv1.ActualLRPLifecycleResponse, error) {
	return s.apply(ctx, wire.DecodeRetire(r))
}

// Domains lists the fresh domains.
func (s *Server) Domains(ctx context.Context, _ *bbsv1.DomainsRequest) (*bbsv1.DomainsResponse, error) {
	list, revision, err := s.store().Domains(ctx)
	if err != nil {
		return nil, err
	}
	res := &bbsv1.DomainsResponse{Revision: revision}
	for _, d := range list {
		res.Domains = append(res.Domains, string(d))
	}
	return res, nil
}

// UpsertDomain declares a domain fresh.
func (s *Server) UpsertDomain(ctx context.Context, r *bbsv1.UpsertDomainRequest) (*bbsv1.UpsertDomainResponse, error) {
	if r.GetDomain() == "" {
		return nil, missing("domain", "name the domain")
	}
	if err := s.store().UpsertDomain(ctx, lrp.Domain(r.GetDomain()), time.Duration(r.GetTtl())*time.Second); err != nil {
		return nil, err
	}
	return &bbsv1.UpsertDomainResponse{}, nil
}

// Cells lists the cells that are present.
func (s *Server) Cells(ctx context.Context, _ *bbsv1.CellsRequest) (*bbsv1.CellsResponse, error) {
	list, revision, err := s.store().Cells(ctx)
	if err != nil {
		return nil, err
	}
	res := &bbsv1.CellsResponse{Revision: revision}
	for _, p := range list {
		res.Cells = append(res.Cells, wire.EncodePresence(p))
	}
	return res, nil
}

// Heartbeat notes a sign of life of a cell.
func (s *Server) Heartbeat(ctx context.Context, r *bbsv1.HeartbeatRequest) (*bbsv1.HeartbeatResponse, error) {
	p, ttl := wire.DecodePresence(r.GetPresence()), time.Duration(r.GetTtlMs())*time.Millisecond
	if r.GetTtlMs() < minHeartbeatTTL.Milliseconds() || r.GetTtlMs() > maxHeartbeatTTL.Milliseconds() {
		return nil, &lrp.Invalid{Fields: []lrp.FieldError{{
			Field: "ttl_ms", Value: fmt.Sprint(r.GetTtlMs()),
			Problem: fmt.Sprintf("must be %d to %d milliseconds", minHeartbeatTTL.Milliseconds(), maxHeartbeatTTL.Milliseconds()),
		}}}
	}
	if err := s.store().Heartbeat(ctx, p, ttl, call(ctx)); err != nil {
		return nil, err
	}
	return &bbsv1.HeartbeatResponse{}, nil
}

// Watch streams changes.
func (s *Server) Watch(r *bbsv1.WatchRequest, stream bbsv1.BBSService_WatchServer) error {
	ctx := stream.Context()
	if err := s.authorize(ctx, bbsv1.BBSService_Watch_FullMethodName, r); err != nil {
		return err
	}
	p := s.parts.Load()
	if p == nil {
		return errStarting()
	}
	w, err := p.hub.Watch(ctx, r.GetAfterRevision(), hub.Filter{
		Cell: lrp.CellID(r.GetCellId()), Domain: lrp.Domain(r.GetDomain()), Process: lrp.ProcessGUID(r.GetProcessGuid()),
	})
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		records, revision, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for more := true; more; more = len(records) > 0 {
			var m *bbsv1.WatchResponse
			m, records = message(records, revision)
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// message makes a message of a bearable size of some changes, one at least, and returns those that
// are left. Only the last message may name the revision up to which everything was sent; the others
// name that of their last change. No changes make a bookmark.
func message(records []*store.Record, revision uint64) (*bbsv1.WatchResponse, []*store.Record) {
	m := &bbsv1.WatchResponse{Revision: revision}
	size := 0
	for n, r := range records {
		size += r.Size
		if n == maxEventsPerMessage || n > 0 && size > maxBytesPerMessage {
			m.Revision = records[n-1].Revision
			return m, records[n:]
		}
		m.Events = append(m.Events, r.Message)
	}
	return m, nil
}
