package server

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// right says who may call one RPC. A cell may call what names it, and only about itself.
type right struct {
	Roles []identity.Role
	// Cell returns the cell that a request is about; nil when cells may not call. Every request of
	// a cell must name the cell of its certificate here.
	Cell func(req any) string
	// Records is set when, besides, the record itself decides whether a cell may see it: mayRead.
	Records bool
}

// rights is the whole table: an RPC that is not here may be called by nobody.
func rights() map[string]right {
	const (
		client, operator  = identity.Client, identity.Operator
		auctioneer, route = identity.Auctioneer, identity.RouteEmitter
	)
	desire := right{Roles: []identity.Role{client, operator}}
	return map[string]right{
		bbsv1.BBSService_DesireLRP_FullMethodName:        desire,
		bbsv1.BBSService_UpdateDesiredLRP_FullMethodName: desire,
		bbsv1.BBSService_RemoveDesiredLRP_FullMethodName: desire,
		bbsv1.BBSService_RetireActualLRP_FullMethodName:  desire,
		bbsv1.BBSService_UpsertDomain_FullMethodName:     desire,
		bbsv1.BBSService_DesiredLRPs_FullMethodName:      desire,

		bbsv1.BBSService_DesiredLRPByProcessGuid_FullMethodName: {
			Roles: []identity.Role{client, operator}, Cell: ofNoCell, Records: true,
		},
		bbsv1.BBSService_DesiredLRPSchedulingInfos_FullMethodName: {Roles: []identity.Role{client, operator, auctioneer}},
		bbsv1.BBSService_DesiredLRPRoutingInfos_FullMethodName:    {Roles: []identity.Role{client, operator, route}},
		bbsv1.BBSService_Domains_FullMethodName:                   {Roles: []identity.Role{client, operator, auctioneer, route}},
		bbsv1.BBSService_Cells_FullMethodName:                     {Roles: []identity.Role{client, operator, auctioneer, route}},

		bbsv1.BBSService_ActualLRPs_FullMethodName: {
			Roles: []identity.Role{client, operator, auctioneer, route},
			Cell:  func(r any) string { return r.(*bbsv1.ActualLRPsRequest).GetCellId() },
		},
		bbsv1.BBSService_Watch_FullMethodName: {
			Roles: []identity.Role{client, operator, auctioneer, route},
			Cell:  func(r any) string { return r.(*bbsv1.WatchRequest).GetCellId() },
		},

		bbsv1.BBSService_FailActualLRP_FullMethodName: {Roles: []identity.Role{auctioneer}},

		bbsv1.BBSService_ClaimActualLRP_FullMethodName: {Cell: ofInstance},
		bbsv1.BBSService_StartActualLRP_FullMethodName: {Cell: ofInstance},
		bbsv1.BBSService_CrashActualLRP_FullMethodName: {Cell: ofInstance},
		// An operator may clear the record of an instance whose cell is gone for good.
		bbsv1.BBSService_RemoveActualLRP_FullMethodName: {Roles: []identity.Role{operator}, Cell: ofInstance},
		bbsv1.BBSService_Heartbeat_FullMethodName: {
			Cell: func(r any) string { return r.(*bbsv1.HeartbeatRequest).GetPresence().GetCellId() },
		},
	}
}

// ofInstance is the cell of the instance that a request speaks for.
func ofInstance(req any) string {
	return req.(interface {
		GetActualLrpInstanceKey() *bbsv1.ActualLRPInstanceKey
	}).GetActualLrpInstanceKey().GetCellId()
}

// anyCell marks requests that name no cell; the record decides.
const anyCell = "*"

func ofNoCell(any) string { return anyCell }

// authorize answers whether the caller may make a request.
func (s *Server) authorize(ctx context.Context, method string, req any) error {
	id, err := s.Identify(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	r, ok := s.rights[method]
	switch {
	case !ok:
		return status.Errorf(codes.PermissionDenied, "%s may not be called by anybody", method)
	case id.Role != identity.Rep:
		if !slices.Contains(r.Roles, id.Role) {
			return status.Errorf(codes.PermissionDenied, "%s may not call %s", id, method)
		}
		return nil
	case r.Cell == nil:
		return status.Errorf(codes.PermissionDenied, "a cell may not call %s", method)
	}
	if cell := r.Cell(req); cell != anyCell && cell != id.Cell {
		return status.Errorf(codes.PermissionDenied, "cell %q may call %s only about itself, not about cell %q", id.Cell, method, cell)
	}
	return nil
}

// mayRead tells whether a caller may read the recipe of a process. A cell may when it has one of the
// instances, or when one is still to be placed: it reads the recipe of the work it was given before
// it claims it.
func mayRead(id identity.ID, actuals []lrp.Actual) bool {
	if id.Role != identity.Rep {
		return true
	}
	return slices.ContainsFunc(actuals, func(a lrp.Actual) bool {
		return a.State == lrp.Unclaimed || string(a.Cell) == id.Cell
	})
}
