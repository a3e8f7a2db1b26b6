package server

import (
	"context"

	"muster/bbs/internal/refusal"
	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// actuals lists ActualLRPs.
func (s *Server) actuals(ctx context.Context, r pageRequest, f store.ActualFilter) (answer[*bbsv1.ActualLRP], error) {
	return list(ctx, r, listing[lrp.Actual, *bbsv1.ActualLRP]{
		most: maxPage, key: store.Position, encode: wire.EncodeActual,
		read: func(p store.Page) ([]lrp.Actual, store.Mark, error) { return s.store().Actuals(ctx, f, p) },
	})
}

// ActualLRPs lists ActualLRPs.
func (s *Server) ActualLRPs(ctx context.Context, r *bbsv1.ActualLRPsRequest) (*bbsv1.ActualLRPsResponse, error) {
	a, err := s.actuals(ctx, r, store.ActualFilter{
		Domain: lrp.Domain(r.GetDomain()), Cell: lrp.CellID(r.GetCellId()), Process: lrp.ProcessGUID(r.GetProcessGuid()), Index: r.Index,
	})
	if err != nil {
		return nil, err
	}
	return &bbsv1.ActualLRPsResponse{ActualLrps: a.records, Revision: a.revision, NextPageToken: a.next}, nil
}

// ActualLRPsByProcessGuids lists the ActualLRPs of many processes.
func (s *Server) ActualLRPsByProcessGuids(ctx context.Context, r *bbsv1.ActualLRPsByProcessGuidsRequest) (*bbsv1.ActualLRPsByProcessGuidsResponse, error) {
	if len(r.GetProcessGuids()) == 0 {
		return nil, missing("process_guids", "name one process at least")
	}
	if err := atMost("process_guids", len(r.GetProcessGuids()), maxGUIDs); err != nil {
		return nil, err
	}
	a, err := s.actuals(ctx, r, store.ActualFilter{Processes: processes(r.GetProcessGuids())})
	if err != nil {
		return nil, err
	}
	return &bbsv1.ActualLRPsByProcessGuidsResponse{ActualLrps: a.records, Revision: a.revision, NextPageToken: a.next}, nil
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

// evacuate reports what a drained cell has. What the rules decided about the container goes with an
// error, too; without a decision the client knows what is safe.
func (s *Server) evacuate(ctx context.Context, ev lrp.Event) (*bbsv1.EvacuationResponse, error) {
	keep, err := s.store().Evacuate(ctx, ev, call(ctx))
	if decided, ok := refusal.ToStatus(err); ok {
		return nil, refusal.Keep(decided, keep)
	}
	if err != nil {
		return nil, err
	}
	return &bbsv1.EvacuationResponse{KeepContainer: keep}, nil
}

// EvacuateClaimedActualLRP reports a slot that a drained cell had claimed.
func (s *Server) EvacuateClaimedActualLRP(ctx context.Context, r *bbsv1.EvacuateClaimedActualLRPRequest) (*bbsv1.EvacuationResponse, error) {
	return s.evacuate(ctx, wire.DecodeEvacuateClaimed(r))
}

// EvacuateRunningActualLRP reports an instance that a drained cell runs.
func (s *Server) EvacuateRunningActualLRP(ctx context.Context, r *bbsv1.EvacuateRunningActualLRPRequest) (*bbsv1.EvacuationResponse, error) {
	return s.evacuate(ctx, wire.DecodeEvacuateRunning(r))
}

// EvacuateStoppedActualLRP reports an instance of a drained cell that was stopped.
func (s *Server) EvacuateStoppedActualLRP(ctx context.Context, r *bbsv1.EvacuateStoppedActualLRPRequest) (*bbsv1.EvacuationResponse, error) {
	return s.evacuate(ctx, wire.DecodeEvacuateStopped(r))
}

// EvacuateCrashedActualLRP reports an instance of a drained cell that ended by itself.
func (s *Server) EvacuateCrashedActualLRP(ctx context.Context, r *bbsv1.EvacuateCrashedActualLRPRequest) (*bbsv1.EvacuationResponse, error) {
	return s.evacuate(ctx, wire.DecodeEvacuateCrashed(r))
}

// RemoveEvacuatingActualLRP reports that a drained cell gives an instance up.
func (s *Server) RemoveEvacuatingActualLRP(ctx context.Context, r *bbsv1.RemoveEvacuatingActualLRPRequest) (*bbsv1.RemoveEvacuatingActualLRPResponse, error) {
	if _, err := s.apply(ctx, wire.DecodeRemoveEvacuating(r)); err != nil {
		return nil, err
	}
	return &bbsv1.RemoveEvacuatingActualLRPResponse{}, nil
}
