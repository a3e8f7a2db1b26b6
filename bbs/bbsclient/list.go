package bbsclient

import (
	"context"

	"google.golang.org/grpc"

	"muster/bbs/internal/refusal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// Lists come in pages, so that no number of records is too much for a message, and return the revision
// of the first page. What changes between the pages is told by a watch from there; a record that a
// later page showed changed already may come again.

// Sizes of the pages that are asked for. The server may answer less.
const (
	smallRecords = 10_000
	largeRecords = 1_000
)

// page is what all answers of lists have in common.
type page interface {
	GetRevision() uint64
	GetNextPageToken() string
}

// pages reads all pages of a list.
func pages[R any, P page, M, T any](
	ctx context.Context, call func(context.Context, R, ...grpc.CallOption) (P, error), request R, turn func(token string),
	records func(P) []M, decode func(M) T,
) (all []T, revision uint64, err error) {
	for first := true; ; first = false {
		res, err := call(ctx, request)
		if err != nil {
			return nil, 0, refusal.FromStatus(err)
		}
		if first {
			revision = res.GetRevision()
			all = make([]T, 0, len(records(res)))
		}
		for _, m := range records(res) {
			all = append(all, decode(m))
		}
		if res.GetNextPageToken() == "" {
			return all, revision, nil
		}
		turn(res.GetNextPageToken())
	}
}

// DesiredFilter chooses DesiredLRPs; zero members choose all.
type DesiredFilter struct {
	Domain    lrp.Domain
	Processes []lrp.ProcessGUID // at most 10,000
	Prefixes  []string          // of process GUIDs; at most 1,000
}

func (f DesiredFilter) request() (m *bbsv1.DesiredLRPsRequest, turn func(string)) {
	m = &bbsv1.DesiredLRPsRequest{
		Domain: string(f.Domain), ProcessGuids: guids(f.Processes), AppGuids: f.Prefixes, PageSize: largeRecords,
	}
	return m, func(token string) { m.PageToken = token }
}

func guids(processes []lrp.ProcessGUID) []string {
	var list []string
	for _, p := range processes {
		list = append(list, string(p))
	}
	return list
}

// DesiredList lists whole DesiredLRPs, and says which revision the list shows.
func (c *Client) DesiredList(ctx context.Context, f DesiredFilter) ([]lrp.Desired, uint64, error) {
	r, turn := f.request()
	return pages(ctx, c.rpc.DesiredLRPs, r, turn, (*bbsv1.DesiredLRPsResponse).GetDesiredLrps, wire.DecodeDesired)
}

// SchedulingInfos lists what placement needs; the metric tags are not part of it.
func (c *Client) SchedulingInfos(ctx context.Context, f DesiredFilter) ([]lrp.SchedulingInfo, uint64, error) {
	r, turn := f.request()
	return pages(ctx, c.rpc.DesiredLRPSchedulingInfos, r, turn,
		(*bbsv1.DesiredLRPSchedulingInfosResponse).GetDesiredLrpSchedulingInfos, wire.DecodeSchedulingInfo)
}

// SchedulingInfo returns what placement needs of one DesiredLRP.
func (c *Client) SchedulingInfo(ctx context.Context, p lrp.ProcessGUID) (lrp.SchedulingInfo, error) {
	res, err := c.rpc.DesiredLRPSchedulingInfoByProcessGuid(ctx, &bbsv1.DesiredLRPByProcessGuidRequest{ProcessGuid: string(p)})
	if err != nil {
		return lrp.SchedulingInfo{}, refusal.FromStatus(err)
	}
	return wire.DecodeSchedulingInfo(res.GetDesiredLrpSchedulingInfo()), nil
}

// RoutingInfos lists what routing needs: identity, instances, routes, metric tags and version; all
// else is empty.
func (c *Client) RoutingInfos(ctx context.Context, f DesiredFilter) ([]lrp.SchedulingInfo, uint64, error) {
	r, turn := f.request()
	return pages(ctx, c.rpc.DesiredLRPRoutingInfos, r, turn, (*bbsv1.DesiredLRPsResponse).GetDesiredLrps, wire.DecodeSummary)
}

// ActualFilter chooses ActualLRPs; zero members choose all. A cell must name itself.
type ActualFilter struct {
	Domain  lrp.Domain
	Cell    lrp.CellID
	Process lrp.ProcessGUID
	Index   *int32
}

// Actuals lists ActualLRPs, and says which revision the list shows.
func (c *Client) Actuals(ctx context.Context, f ActualFilter) ([]lrp.Actual, uint64, error) {
	r := &bbsv1.ActualLRPsRequest{
		Domain: string(f.Domain), CellId: string(f.Cell), ProcessGuid: string(f.Process), Index: f.Index, PageSize: smallRecords,
	}
	return pages(ctx, c.rpc.ActualLRPs, r, func(token string) { r.PageToken = token },
		(*bbsv1.ActualLRPsResponse).GetActualLrps, wire.DecodeActual)
}

// ActualsOf lists the ActualLRPs of 1 to 10,000 processes.
func (c *Client) ActualsOf(ctx context.Context, processes []lrp.ProcessGUID) ([]lrp.Actual, uint64, error) {
	r := &bbsv1.ActualLRPsByProcessGuidsRequest{ProcessGuids: guids(processes), PageSize: smallRecords}
	return pages(ctx, c.rpc.ActualLRPsByProcessGuids, r, func(token string) { r.PageToken = token },
		(*bbsv1.ActualLRPsByProcessGuidsResponse).GetActualLrps, wire.DecodeActual)
}

// TaskFilter chooses tasks; zero members choose all. A cell must name itself.
type TaskFilter struct {
	Domain lrp.Domain
	Cell   lrp.CellID
}

// Tasks lists tasks, and says which revision the list shows. Image passwords are empty for callers
// that are not cells, and the auctioneer gets summaries.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) ([]task.Task, uint64, error) {
	r := &bbsv1.TasksRequest{Domain: string(f.Domain), CellId: string(f.Cell), PageSize: largeRecords}
	return pages(ctx, c.rpc.Tasks, r, func(token string) { r.PageToken = token }, (*bbsv1.TasksResponse).GetTasks, wire.DecodeTask)
}

// Domains lists the fresh domains.
func (c *Client) Domains(ctx context.Context) ([]lrp.Domain, uint64, error) {
	r := &bbsv1.DomainsRequest{PageSize: smallRecords}
	return pages(ctx, c.rpc.Domains, r, func(token string) { r.PageToken = token },
		(*bbsv1.DomainsResponse).GetDomains, func(s string) lrp.Domain { return lrp.Domain(s) })
}

// Cells lists the cells that are present.
func (c *Client) Cells(ctx context.Context) ([]cells.Presence, uint64, error) {
	r := &bbsv1.CellsRequest{PageSize: smallRecords}
	return pages(ctx, c.rpc.Cells, r, func(token string) { r.PageToken = token }, (*bbsv1.CellsResponse).GetCells, wire.DecodePresence)
}
