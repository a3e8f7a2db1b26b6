package server

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	bbsv1 "muster/proto/bbs/v1"
)

// logged says at which level a call that writes is logged. What clients ask for is told: it is what
// everything else follows from, and the request id leads from there through the logs of all daemons.
// What daemons report comes thousands of times a second. Reads and signs of life are not logged.
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
	level, writes := s.levels[method]
	if !writes || !s.Log.Enabled(ctx, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 8), slog.String("method", method), slog.String("trace_id", traceID(ctx)))
	attrs = append(attrs, subject(req)...)
	attrs = append(attrs, slog.String("code", status.Code(err).String()), slog.Duration("took", took))
	if err != nil && status.Code(err) != codes.OK {
		attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
	}
	s.Log.LogAttrs(ctx, level, "call", attrs...)
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
