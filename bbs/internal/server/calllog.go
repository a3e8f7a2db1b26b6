package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/hub"
	bbsv1 "muster/proto/bbs/v1"
)

// logged says at which level a call that writes is logged. What clients ask for is told: it is what
// everything else follows from, and the request id leads from there through the logs of all daemons.
// What daemons report comes thousands of times a second. Reads and signs of life are not logged, unless they
// are made by somebody who may not: see logCall.
func logged() map[string]slog.Level {
	levels := map[string]slog.Level{}
	for level, methods := range map[slog.Level][]string{
		slog.LevelInfo: {
			bbsv1.BBSService_DesireLRP_FullMethodName, bbsv1.BBSService_BatchDesireLRPs_FullMethodName,
			bbsv1.BBSService_UpdateDesiredLRP_FullMethodName, bbsv1.BBSService_RemoveDesiredLRP_FullMethodName,
			bbsv1.BBSService_RetireActualLRP_FullMethodName,
			bbsv1.BBSService_DesireTask_FullMethodName, bbsv1.BBSService_CancelTask_FullMethodName,
			bbsv1.BBSService_ResolvingTask_FullMethodName, bbsv1.BBSService_DeleteTask_FullMethodName,
		},
		slog.LevelDebug: {
			bbsv1.BBSService_UpsertDomain_FullMethodName,
			bbsv1.BBSService_ClaimActualLRP_FullMethodName, bbsv1.BBSService_StartActualLRP_FullMethodName,
			bbsv1.BBSService_CrashActualLRP_FullMethodName, bbsv1.BBSService_FailActualLRP_FullMethodName,
			bbsv1.BBSService_RemoveActualLRP_FullMethodName,
			bbsv1.BBSService_EvacuateClaimedActualLRP_FullMethodName, bbsv1.BBSService_EvacuateRunningActualLRP_FullMethodName,
			bbsv1.BBSService_EvacuateStoppedActualLRP_FullMethodName, bbsv1.BBSService_EvacuateCrashedActualLRP_FullMethodName,
			bbsv1.BBSService_RemoveEvacuatingActualLRP_FullMethodName,
			bbsv1.BBSService_StartTask_FullMethodName, bbsv1.BBSService_CompleteTask_FullMethodName,
			bbsv1.BBSService_FailTask_FullMethodName, bbsv1.BBSService_RejectTask_FullMethodName,
		},
	} {
		for _, m := range methods {
			levels[m] = level
		}
	}
	return levels
}

// logCall writes the one line of a call that ended.
func (s *Server) logCall(ctx context.Context, method string, req any, err error, took time.Duration) {
	level, told := s.levels[method]
	if status.Code(err) == codes.PermissionDenied { // whatever it was: somebody has the wrong certificate, or tries
		level, told = slog.LevelInfo, true
	}
	if !told || !s.Log.Enabled(ctx, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 10), slog.String("method", method), slog.String("trace_id", traceID(ctx)))
	attrs = append(attrs, s.who(ctx)...)
	attrs = append(attrs, subject(req)...)
	attrs = append(attrs, slog.String("code", status.Code(err).String()), slog.Duration("took", took))
	if err != nil && status.Code(err) != codes.OK {
		attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
	}
	s.Log.LogAttrs(ctx, level, "call", attrs...)
}

// who says who is calling: the role, and of cells which one.
func (s *Server) who(ctx context.Context) []slog.Attr {
	id, err := s.Identify(ctx)
	switch {
	case err != nil:
		return []slog.Attr{slog.String("role", "unknown")}
	case id.Cell != "":
		return []slog.Attr{slog.String("role", string(id.Role)), slog.String("caller_cell_id", id.Cell)}
	}
	return []slog.Attr{slog.String("role", string(id.Role))}
}

// logWatch writes the one line of a watch that ended. One that was too slow is a reader in trouble.
func (s *Server) logWatch(ctx context.Context, r *bbsv1.WatchRequest, why error, took time.Duration) {
	level, reason := slog.LevelInfo, "the caller left"
	switch {
	case errors.Is(why, hub.ErrSlow):
		level, reason = slog.LevelWarn, why.Error()
	case why != nil && ctx.Err() == nil:
		reason = why.Error()
	}
	attrs := append(s.who(ctx), slog.String("trace_id", traceID(ctx)), slog.Uint64("after_revision", r.GetAfterRevision()))
	for _, part := range []struct{ name, value string }{
		{"cell_id", r.GetCellId()}, {"domain", r.GetDomain()}, {"process_guid", r.GetProcessGuid()}, {"task_guid", r.GetTaskGuid()},
	} {
		if part.value != "" {
			attrs = append(attrs, slog.String(part.name, part.value))
		}
	}
	s.Log.LogAttrs(ctx, level, "watch ended", append(attrs, slog.Duration("took", took), slog.String("reason", reason))...)
}

// subject says what a request is about.
func subject(req any) []slog.Attr {
	switch r := req.(type) {
	case *bbsv1.DesireLRPRequest:
		return []slog.Attr{slog.String("process_guid", r.GetDesiredLrp().GetProcessGuid())}
	case *bbsv1.BatchDesireLRPsRequest:
		return []slog.Attr{slog.Int("records", len(r.GetDesiredLrps()))}
	case interface{ GetProcessGuid() string }:
		return []slog.Attr{slog.String("process_guid", r.GetProcessGuid())}
	case interface{ GetTaskGuid() string }:
		return []slog.Attr{slog.String("task_guid", r.GetTaskGuid())}
	case interface{ GetActualLrpKey() *bbsv1.ActualLRPKey }:
		k := r.GetActualLrpKey()
		return []slog.Attr{slog.String("process_guid", k.GetProcessGuid()), slog.Int("index", int(k.GetIndex()))}
	default:
		return nil
	}
}
