package server

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/hub"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// unlogged are the calls that change nothing, and the one that only says that a cell lives.
var unlogged = []string{
	"ActualLRPs", "ActualLRPsByProcessGuids", "Cells", "DesiredLRPByProcessGuid", "DesiredLRPRoutingInfos",
	"DesiredLRPSchedulingInfoByProcessGuid", "DesiredLRPSchedulingInfos", "DesiredLRPs", "Domains", "Heartbeat", "Ping",
	"TaskByGuid", "Tasks",
}

// Whoever adds a call has to say whether it is logged.
func TestEveryCallHasALevel(t *testing.T) {
	t.Parallel()
	levels := logged()
	for _, m := range bbsv1.BBSService_ServiceDesc.Methods {
		_, ok := levels["/"+bbsv1.BBSService_ServiceDesc.ServiceName+"/"+m.MethodName]
		if ok == slices.Contains(unlogged, m.MethodName) {
			t.Errorf("%s: logged is %v, and it is among the unlogged: %v", m.MethodName, ok, !ok)
		}
	}
}

// A call that writes leaves one line with the id of its request, what it is about and how it ended: of
// clients always, of cells, who make thousands a second, only when somebody wants to know.
func TestCallsAreLogged(t *testing.T) {
	t.Parallel()
	desire := &bbsv1.DesireLRPRequest{DesiredLrp: &bbsv1.DesiredLRP{ProcessGuid: "p"}}
	claim := &bbsv1.ClaimActualLRPRequest{ProcessGuid: "p", ActualLrpInstanceKey: &bbsv1.ActualLRPInstanceKey{CellId: "c1"}}
	for name, tc := range map[string]struct {
		method string
		req    any
		role   identity.ID
		level  slog.Level
		want   []string // none: no line
	}{
		"a client": {bbsv1.BBSService_DesireLRP_FullMethodName, desire, identity.ID{Role: identity.Client}, slog.LevelInfo,
			[]string{"level=INFO", "method=/bbs.v1.BBSService/DesireLRP", "trace_id=req-1", "role=client", "process_guid=p", "code=Aborted", "error=no"}},
		"a cell": {bbsv1.BBSService_ClaimActualLRP_FullMethodName, claim, identity.ID{Role: identity.Rep, Cell: "c1"}, slog.LevelInfo, nil},
		"a reader who may not": {bbsv1.BBSService_DesiredLRPs_FullMethodName, &bbsv1.DesiredLRPsRequest{}, identity.ID{Role: identity.Rep, Cell: "c1"}, slog.LevelInfo,
			[]string{"level=INFO", "method=/bbs.v1.BBSService/DesiredLRPs", "role=rep", "caller_cell_id=c1", "code=PermissionDenied"}},
		"a cell, with details": {bbsv1.BBSService_ClaimActualLRP_FullMethodName, claim, identity.ID{Role: identity.Rep, Cell: "c1"}, slog.LevelDebug,
			[]string{"level=DEBUG", "trace_id=req-1", "role=rep", "caller_cell_id=c1", "process_guid=p"}},
		"a reader":    {bbsv1.BBSService_Domains_FullMethodName, &bbsv1.DomainsRequest{}, identity.ID{Role: identity.Client}, slog.LevelDebug, nil},
		"who may not": {bbsv1.BBSService_DesireLRP_FullMethodName, desire, identity.ID{Role: identity.Gorouter}, slog.LevelInfo, []string{"code=PermissionDenied"}},
	} {
		var out bytes.Buffer
		s := New(Options{
			Log:      slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: tc.level})),
			Identify: func(context.Context) (identity.ID, error) { return tc.role, nil },
		})
		s.Open(nil, nil)
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(traceKey, "req-1"))
		_, err := s.unary(ctx, tc.req, &grpc.UnaryServerInfo{Server: s, FullMethod: tc.method}, func(context.Context, any) (any, error) {
			return nil, status.Error(codes.Aborted, "no")
		})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := strings.Count(out.String(), "\n"); n != min(len(tc.want), 1) {
			t.Errorf("%s: %d lines: %s", name, n, &out)
		}
		for _, want := range tc.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: the line lacks %s: %s", name, want, &out)
			}
		}
	}
}

// A watch that ends leaves one line: whose it was, of what, for how long and why; one that was too slow is a
// warning.
func TestWatchesAreLogged(t *testing.T) {
	t.Parallel()
	left, leave := context.WithCancel(t.Context())
	leave()
	r := &bbsv1.WatchRequest{AfterRevision: 7, CellId: "c1", Domain: "d"}
	for name, tc := range map[string]struct {
		ctx  context.Context
		why  error
		want []string
	}{
		"too slow":  {t.Context(), hub.ErrSlow, []string{"level=WARN", "reads too slowly"}},
		"left":      {left, context.Canceled, []string{"level=INFO", "the caller left"}},
		"cut short": {t.Context(), hub.ErrPruned, []string{"level=INFO", hub.ErrPruned.Error()}},
	} {
		var out bytes.Buffer
		s := New(Options{
			Log:      slog.New(slog.NewTextHandler(&out, nil)),
			Identify: func(context.Context) (identity.ID, error) { return identity.ID{Role: identity.Rep, Cell: "c1"}, nil },
		})
		s.logWatch(tc.ctx, r, tc.why, time.Second)
		for _, want := range append(tc.want, "watch ended", "role=rep", "caller_cell_id=c1", "after_revision=7", " cell_id=c1", "domain=d", "took=1s") {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: the line lacks %q: %s", name, want, &out)
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 1 || strings.Contains(out.String(), "process_guid") {
			t.Errorf("%s: %d lines: %s", name, n, &out)
		}
	}
}
