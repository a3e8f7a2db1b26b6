package server

import (
	"context"
	"fmt"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// maxBatch is how many records one call creates at most.
const maxBatch = 1_000

// DesireLRP creates a DesiredLRP.
func (s *Server) DesireLRP(ctx context.Context, r *bbsv1.DesireLRPRequest) (*bbsv1.DesiredLRPLifecycleResponse, error) {
	d := wire.DecodeDesired(r.GetDesiredLrp())
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if err := s.store().Desire(ctx, d, creation(ctx, r)); err != nil {
		return nil, err
	}
	return &bbsv1.DesiredLRPLifecycleResponse{}, nil
}

// BatchDesireLRPs creates many DesiredLRPs, each for itself.
func (s *Server) BatchDesireLRPs(ctx context.Context, r *bbsv1.BatchDesireLRPsRequest) (*bbsv1.BatchDesireLRPsResponse, error) {
	n := len(r.GetDesiredLrps())
	if n == 0 {
		return nil, missing("desired_lrps", "name one record at least")
	}
	if err := atMost("desired_lrps", n, maxBatch); err != nil {
		return nil, err
	}
	answers := make([]error, n)
	var valid []lrp.Desired
	var places []int // of the valid ones
	for i, m := range r.GetDesiredLrps() {
		d := wire.DecodeDesired(m)
		if answers[i] = d.Validate(); answers[i] == nil {
			valid, places = append(valid, d), append(places, i)
		}
	}
	for i, err := range s.store().DesireAll(ctx, valid, creation(ctx, r)) {
		answers[places[i]] = err
	}
	method, _ := grpc.Method(ctx)
	res := &bbsv1.BatchDesireLRPsResponse{Results: make([]*spb.Status, n)}
	for i, err := range answers {
		res.Results[i] = status.Convert(s.status(ctx, method, err)).Proto()
		if res.Results[i] == nil { // no error
			res.Results[i] = &spb.Status{}
		}
	}
	return res, nil
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
	c := call(ctx)
	c.ValidateOnly = r.GetValidateOnly()
	if err := s.store().Update(ctx, lrp.ProcessGUID(r.GetProcessGuid()), u, c); err != nil {
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

func desiredFilter(r *bbsv1.DesiredLRPsRequest) (store.DesiredFilter, error) {
	f := store.DesiredFilter{Domain: lrp.Domain(r.GetDomain()), Prefixes: r.GetAppGuids()}
	if err := atMost("app_guids", len(r.GetAppGuids()), maxPrefixes); err != nil {
		return f, err
	}
	for i, prefix := range r.GetAppGuids() {
		if prefix == "" {
			return f, missing(fmt.Sprintf("app_guids[%d]", i), "an empty one would match everything")
		}
	}
	if err := atMost("process_guids", len(r.GetProcessGuids()), maxGUIDs); err != nil {
		return f, err
	}
	f.Processes = processes(r.GetProcessGuids())
	return f, nil
}

func processes(guids []string) []lrp.ProcessGUID {
	var list []lrp.ProcessGUID
	for _, g := range guids {
		list = append(list, lrp.ProcessGUID(g))
	}
	return list
}

func desiredKey(d lrp.Desired) string           { return string(d.Process) }
func schedulingKey(i lrp.SchedulingInfo) string { return string(i.Process) }

// DesiredLRPs lists whole DesiredLRPs. Image passwords are for cells only.
func (s *Server) DesiredLRPs(ctx context.Context, r *bbsv1.DesiredLRPsRequest) (*bbsv1.DesiredLRPsResponse, error) {
	f, err := desiredFilter(r)
	if err != nil {
		return nil, err
	}
	a, err := list(ctx, r, listing[lrp.Desired, *bbsv1.DesiredLRP]{
		most: maxWholePage, key: desiredKey,
		read: func(p store.Page) ([]lrp.Desired, store.Mark, error) { return s.store().Desired(ctx, f, p) },
		encode: func(d lrp.Desired) *bbsv1.DesiredLRP {
			d.RunInfo.ImagePassword = ""
			return wire.EncodeDesired(d)
		},
	})
	if err != nil {
		return nil, err
	}
	return &bbsv1.DesiredLRPsResponse{DesiredLrps: a.records, Revision: a.revision, NextPageToken: a.next}, nil
}

// DesiredLRPByProcessGuid returns one whole DesiredLRP. The image password is for cells only.
func (s *Server) DesiredLRPByProcessGuid(ctx context.Context, r *bbsv1.DesiredLRPByProcessGuidRequest) (*bbsv1.DesiredLRPResponse, error) {
	p := lrp.ProcessGUID(r.GetProcessGuid())
	if p == "" {
		return nil, missing("process_guid", "name the process")
	}
	id, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	d, actuals, err := s.store().DesiredWithActuals(ctx, p)
	switch {
	case err != nil:
		return nil, err
	case id.Role == identity.Rep && !mayRead(id, actuals):
		// Also when there is no such process: a cell learns nothing about others.
		return nil, status.Errorf(codes.PermissionDenied, "process %s has no instance for cell %q", p, id.Cell)
	case d == nil:
		return nil, notThere(p)
	case id.Role != identity.Rep:
		d.RunInfo.ImagePassword = ""
	}
	return &bbsv1.DesiredLRPResponse{DesiredLrp: wire.EncodeDesired(*d)}, nil
}

// eventGet names what is refused to readers of records that are not there.
const eventGet = "get"

func notThere(p lrp.ProcessGUID) error {
	return &lrp.Refusal{Slot: lrp.Slot{Process: p}, Event: eventGet, Why: lrp.NotFound}
}

// DesiredLRPSchedulingInfos lists what placement needs.
func (s *Server) DesiredLRPSchedulingInfos(ctx context.Context, r *bbsv1.DesiredLRPsRequest) (*bbsv1.DesiredLRPSchedulingInfosResponse, error) {
	a, err := scheduling(ctx, s, r, wire.EncodeSchedulingInfo)
	if err != nil {
		return nil, err
	}
	return &bbsv1.DesiredLRPSchedulingInfosResponse{DesiredLrpSchedulingInfos: a.records, Revision: a.revision, NextPageToken: a.next}, nil
}

// DesiredLRPSchedulingInfoByProcessGuid returns what placement needs of one DesiredLRP.
func (s *Server) DesiredLRPSchedulingInfoByProcessGuid(
	ctx context.Context, r *bbsv1.DesiredLRPByProcessGuidRequest,
) (*bbsv1.DesiredLRPSchedulingInfoByProcessGuidResponse, error) {
	p := lrp.ProcessGUID(r.GetProcessGuid())
	if p == "" {
		return nil, missing("process_guid", "name the process")
	}
	list, _, err := s.store().Scheduling(ctx, store.DesiredFilter{Processes: []lrp.ProcessGUID{p}}, store.Page{})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, notThere(p)
	}
	return &bbsv1.DesiredLRPSchedulingInfoByProcessGuidResponse{DesiredLrpSchedulingInfo: wire.EncodeSchedulingInfo(list[0])}, nil
}

// DesiredLRPRoutingInfos lists what routing needs.
func (s *Server) DesiredLRPRoutingInfos(ctx context.Context, r *bbsv1.DesiredLRPsRequest) (*bbsv1.DesiredLRPsResponse, error) {
	a, err := scheduling(ctx, s, r, func(i lrp.SchedulingInfo) *bbsv1.DesiredLRP {
		return wire.EncodeSummary(lrp.SchedulingInfo{
			Process: i.Process, Domain: i.Domain, LogGUID: i.LogGUID, Instances: i.Instances,
			Routes: i.Routes, MetricTags: i.MetricTags, Tag: i.Tag,
		})
	})
	if err != nil {
		return nil, err
	}
	return &bbsv1.DesiredLRPsResponse{DesiredLrps: a.records, Revision: a.revision, NextPageToken: a.next}, nil
}

// scheduling lists DesiredLRPs without their recipes.
func scheduling[M proto.Message](ctx context.Context, s *Server, r *bbsv1.DesiredLRPsRequest, encode func(lrp.SchedulingInfo) M) (answer[M], error) {
	f, err := desiredFilter(r)
	if err != nil {
		return answer[M]{}, err
	}
	return list(ctx, r, listing[lrp.SchedulingInfo, M]{
		most: maxWholePage, key: schedulingKey, encode: encode,
		read: func(p store.Page) ([]lrp.SchedulingInfo, store.Mark, error) { return s.store().Scheduling(ctx, f, p) },
	})
}
