// Package server answers rep.v1 for a cell: what it has (State, WatchState), what it should take on
// (Perform), and what its instances write (Logs). Who may call what is said by one table, allowed.
package server

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"muster/cells"
	"muster/internal/identity"
	repv1 "muster/proto/rep/v1"
	"muster/rep/internal/runner"
	"muster/rep/internal/wire"
)

// MaxWork is the most instances and tasks that one Perform may name.
const MaxWork = 1024

// allowed says which roles may call which method; others, health and reflection, are for everybody who
// was let in.
func allowed(method string) []identity.Role {
	switch method {
	case repv1.RepService_State_FullMethodName, repv1.RepService_WatchState_FullMethodName:
		return []identity.Role{identity.Auctioneer, identity.BBS, identity.Operator}
	case repv1.RepService_Perform_FullMethodName:
		return []identity.Role{identity.Auctioneer, identity.BBS}
	case repv1.RepService_Logs_FullMethodName:
		return []identity.Role{identity.Operator, identity.BBS}
	}
	return Roles()
}

// Roles returns every role that may call anything.
func Roles() []identity.Role {
	return []identity.Role{identity.Auctioneer, identity.BBS, identity.Operator}
}

// Server answers for one cell.
type Server struct {
	repv1.UnsafeRepServiceServer // a call that is not implemented does not compile
	cell                         *runner.Cell
}

// New returns a server.
func New(cell *runner.Cell) *Server { return &Server{cell: cell} }

// Options returns what the gRPC server has to be made with: the role check.
func Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := authorize(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := authorize(ss.Context(), info.FullMethod); err != nil {
				return err
			}
			return next(srv, ss)
		}),
	}
}

func authorize(ctx context.Context, method string) error {
	id, err := identity.FromContext(ctx)
	if err != nil {
		return status.Errorf(codes.Unauthenticated, "%v", err)
	}
	if roles := allowed(method); !slices.Contains(roles, id.Role) {
		return status.Errorf(codes.PermissionDenied, "%s may not call %s: it is for %v", id, method, roles)
	}
	return nil
}

// Register adds the service, health and reflection to a gRPC server.
func (s *Server) Register(g reflection.GRPCServer) {
	repv1.RegisterRepServiceServer(g, s)
	healthv1.RegisterHealthServer(g, health.NewServer())
	reflection.Register(g)
}

// State returns the state of the cell.
func (s *Server) State(context.Context, *repv1.StateRequest) (*repv1.StateResponse, error) {
	state, _ := s.cell.State()
	return wire.FromState(state), nil
}

// WatchState streams the state, and then what changes of it. Changes that come while a message is being
// sent are folded into one.
func (s *Server) WatchState(_ *repv1.StateRequest, stream grpc.ServerStreamingServer[repv1.StateResponse]) error {
	state, changed := s.cell.State()
	for m := wire.FromState(state); ; {
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		before := state
		state, changed = s.cell.State()
		m = wire.Changes(before, state)
	}
}

// Perform takes on work.
func (s *Server) Perform(_ context.Context, req *repv1.PerformRequest) (*repv1.PerformResponse, error) {
	if cell := s.cell.Presence.Cell; req.GetCellId() != string(cell) {
		return nil, status.Errorf(codes.FailedPrecondition, "cell_id is %q, this is cell %q: ask the BBS where the cell is", req.GetCellId(), cell)
	}
	if n := len(req.GetLrps()) + len(req.GetTasks()); n > MaxWork {
		return nil, status.Errorf(codes.InvalidArgument, "lrps and tasks have %d entries together, at most %d: make several calls", n, MaxWork)
	}
	var work []cells.Instance
	for _, m := range req.GetLrps() {
		work = append(work, wire.ToInstance(m))
	}
	var tasks []cells.Task
	for _, m := range req.GetTasks() {
		tasks = append(tasks, wire.ToTask(m))
	}
	resp := &repv1.PerformResponse{}
	for _, r := range s.cell.Perform(work, tasks) {
		m := &repv1.Refusal{Reason: r.Reason}
		if r.Task != nil {
			m.Task = wire.FromTask(*r.Task)
		} else {
			m.Lrp = wire.FromInstance(r.Instance)
		}
		resp.Refused = append(resp.Refused, m)
	}
	return resp, nil
}
