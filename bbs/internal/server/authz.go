package server

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// right says who may call one RPC. A cell may call what names it, and only about itself.
type right struct {
	Roles []identity.Role
	// Cell returns the cell that a request is about. Every request of a cell must name the cell of its
	// certificate here. Nil: requests name no cell, and AnyCell tells whether cells may call.
	Cell func(req any) string
	// AnyCell is set when every cell may call. What it may see is then up to the record: mayRead.
	AnyCell bool
}

// rights is the whole table: an RPC that is not here may be called by nobody.
func rights() map[string]right {
	const (
		client, operator  = identity.Client, identity.Operator
		auctioneer, route = identity.Auctioneer, identity.RouteEmitter
	)
	desire := right{Roles: []identity.Role{client, operator}}
	ofCell := right{Cell: ofInstance}
	return map[string]right{
		bbsv1.BBSService_DesireLRP_FullMethodName:        desire,
		bbsv1.BBSService_UpdateDesiredLRP_FullMethodName: desire,
		bbsv1.BBSService_RemoveDesiredLRP_FullMethodName: desire,
		bbsv1.BBSService_BatchDesireLRPs_FullMethodName:  desire,
		bbsv1.BBSService_RetireActualLRP_FullMethodName:  desire,
		bbsv1.BBSService_UpsertDomain_FullMethodName:     desire,
		bbsv1.BBSService_DesiredLRPs_FullMethodName:      desire,

		bbsv1.BBSService_DesiredLRPByProcessGuid_FullMethodName: {
			Roles: []identity.Role{client, operator}, AnyCell: true,
		},
		bbsv1.BBSService_DesiredLRPSchedulingInfos_FullMethodName: {Roles: []identity.Role{client, operator, auctioneer}},
		bbsv1.BBSService_DesiredLRPSchedulingInfoByProcessGuid_FullMethodName: {
			Roles: []identity.Role{client, operator, auctioneer},
		},
		bbsv1.BBSService_DesiredLRPRoutingInfos_FullMethodName: {Roles: []identity.Role{client, operator, route}},
		bbsv1.BBSService_Domains_FullMethodName:                {Roles: []identity.Role{client, operator, auctioneer, route}},
		bbsv1.BBSService_Cells_FullMethodName:                  {Roles: []identity.Role{client, operator, auctioneer, route}},

		bbsv1.BBSService_ActualLRPs_FullMethodName: {
			Roles: []identity.Role{client, operator, auctioneer, route},
			Cell:  ofRequest,
		},
		bbsv1.BBSService_ActualLRPsByProcessGuids_FullMethodName: {Roles: []identity.Role{client, operator, auctioneer, route}},
		bbsv1.BBSService_Watch_FullMethodName: {
			Roles: []identity.Role{client, operator, auctioneer, route},
			Cell:  ofRequest,
		},

		bbsv1.BBSService_FailActualLRP_FullMethodName: {Roles: []identity.Role{auctioneer}},

		bbsv1.BBSService_ClaimActualLRP_FullMethodName:           ofCell,
		bbsv1.BBSService_StartActualLRP_FullMethodName:           ofCell,
		bbsv1.BBSService_CrashActualLRP_FullMethodName:           ofCell,
		bbsv1.BBSService_EvacuateClaimedActualLRP_FullMethodName: ofCell,
		bbsv1.BBSService_EvacuateRunningActualLRP_FullMethodName: ofCell,
		bbsv1.BBSService_EvacuateStoppedActualLRP_FullMethodName: ofCell,
		bbsv1.BBSService_EvacuateCrashedActualLRP_FullMethodName: ofCell,
		// An operator may clear the record of an instance whose cell is gone for good.
		bbsv1.BBSService_RemoveActualLRP_FullMethodName:           {Roles: []identity.Role{operator}, Cell: ofInstance},
		bbsv1.BBSService_RemoveEvacuatingActualLRP_FullMethodName: {Roles: []identity.Role{operator}, Cell: ofInstance},
		bbsv1.BBSService_Heartbeat_FullMethodName: {
			Cell: func(r any) string { return r.(*bbsv1.HeartbeatRequest).GetPresence().GetCellId() },
		},
		bbsv1.BBSService_Ping_FullMethodName: {Roles: identity.Roles, AnyCell: true},

		bbsv1.BBSService_DesireTask_FullMethodName:    desire,
		bbsv1.BBSService_CancelTask_FullMethodName:    desire,
		bbsv1.BBSService_ResolvingTask_FullMethodName: desire,
		bbsv1.BBSService_DeleteTask_FullMethodName:    desire,
		bbsv1.BBSService_Tasks_FullMethodName:         {Roles: []identity.Role{client, operator, auctioneer}, Cell: ofRequest},
		bbsv1.BBSService_TaskByGuid_FullMethodName: {
			Roles: []identity.Role{client, operator, auctioneer}, AnyCell: true,
		},
		bbsv1.BBSService_StartTask_FullMethodName:    {Cell: ofRequest},
		bbsv1.BBSService_CompleteTask_FullMethodName: {Cell: ofRequest},
		bbsv1.BBSService_FailTask_FullMethodName:     {Roles: []identity.Role{operator, auctioneer}},
		// The request names no cell: the server takes that of the certificate, and the record decides
		// whether it may.
		bbsv1.BBSService_RejectTask_FullMethodName: {Roles: []identity.Role{auctioneer}, AnyCell: true},
	}
}

// ofInstance is the cell of the instance that a request speaks for.
func ofInstance(req any) string {
	return req.(interface {
		GetActualLrpInstanceKey() *bbsv1.ActualLRPInstanceKey
	}).GetActualLrpInstanceKey().GetCellId()
}

// ofRequest is the cell that a request names.
func ofRequest(req any) string { return req.(interface{ GetCellId() string }).GetCellId() }

// authorize answers whether the caller may make a request, which must be readable to tell.
func (s *Server) authorize(ctx context.Context, method string, req any) error {
	id, err := s.caller(ctx)
	if err != nil {
		return err
	}
	if err := readable(req); err != nil {
		return err
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
	case r.AnyCell:
		return nil
	case r.Cell == nil:
		return status.Errorf(codes.PermissionDenied, "a cell may not call %s", method)
	}
	if cell := r.Cell(req); cell != id.Cell {
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

// mayReadTask tells whether a cell may read a task, which may be nil: it may when it runs it, or when
// the task is still to be placed.
func mayReadTask(id identity.ID, t *task.Task) bool {
	return t != nil && (t.State == task.Pending || string(t.Cell) == id.Cell)
}
