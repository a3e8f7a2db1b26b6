// Package bbsclient is how everybody else talks to the BBS: in the words of bbs/lrp and cells, over
// gRPC. It turns statuses back into the errors of the domain, so that errors.As finds an
// *lrp.Refusal or an *lrp.Invalid here just as it does inside the BBS.
//
// Follow is the level-triggered loop that every consumer needs: list, watch from there, go on after
// errors, and list again every so often.
package bbsclient

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"muster/bbs/event"
	"muster/bbs/internal/refusal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// What a Watch reports.
type (
	// Event is one committed change.
	Event = event.Event
	// DesiredChange is a change of a DesiredLRP, without its recipe.
	DesiredChange = event.DesiredChange
	// CellChange is a change of a cell's presence.
	CellChange = event.CellChange
)

// TraceIDKey is the gRPC metadata that carries the id of a request into events and logs.
const TraceIDKey = "x-vcap-request-id"

// WithTraceID returns a context whose calls carry a request id.
func WithTraceID(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, TraceIDKey, id)
}

// Client calls the BBS. It is safe for concurrent use.
//
// Calls that the rules do not allow return an *lrp.Refusal, malformed ones an *lrp.Invalid, both
// found with errors.As. IsUnavailable tells whether trying again later makes sense.
type Client struct {
	rpc bbsv1.BBSServiceClient
}

// New returns a client on a connection, which stays the caller's.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{rpc: bbsv1.NewBBSServiceClient(conn)}
}

// IsUnavailable tells whether the BBS, or the way to it, is out of order for now: the same call may
// succeed later. Whether the failed call had an effect is unknown.
func IsUnavailable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return true
	}
	return false
}

// Desire creates a DesiredLRP and the slots for its instances.
func (c *Client) Desire(ctx context.Context, d lrp.Desired) error {
	_, err := c.rpc.DesireLRP(ctx, &bbsv1.DesireLRPRequest{DesiredLrp: wire.EncodeDesired(d)})
	return refusal.FromStatus(err)
}

// Update changes a DesiredLRP and scales it.
func (c *Client) Update(ctx context.Context, p lrp.ProcessGUID, u lrp.Update) error {
	_, err := c.rpc.UpdateDesiredLRP(ctx, &bbsv1.UpdateDesiredLRPRequest{ProcessGuid: string(p), Update: wire.EncodeUpdate(u)})
	return refusal.FromStatus(err)
}

// RemoveDesired removes a DesiredLRP and stops its instances.
func (c *Client) RemoveDesired(ctx context.Context, p lrp.ProcessGUID) error {
	_, err := c.rpc.RemoveDesiredLRP(ctx, &bbsv1.RemoveDesiredLRPRequest{ProcessGuid: string(p)})
	return refusal.FromStatus(err)
}

// Desired returns one whole DesiredLRP. Image passwords are empty for callers that are not cells.
func (c *Client) Desired(ctx context.Context, p lrp.ProcessGUID) (lrp.Desired, error) {
	res, err := c.rpc.DesiredLRPByProcessGuid(ctx, &bbsv1.DesiredLRPByProcessGuidRequest{ProcessGuid: string(p)})
	if err != nil {
		return lrp.Desired{}, refusal.FromStatus(err)
	}
	return wire.DecodeDesired(res.GetDesiredLrp()), nil
}

// DesiredFilter chooses DesiredLRPs; zero members choose all.
type DesiredFilter struct {
	Domain    lrp.Domain
	Processes []lrp.ProcessGUID
}

func (f DesiredFilter) request() *bbsv1.DesiredLRPsRequest {
	m := &bbsv1.DesiredLRPsRequest{Domain: string(f.Domain)}
	for _, p := range f.Processes {
		m.ProcessGuids = append(m.ProcessGuids, string(p))
	}
	return m
}

// DesiredList lists whole DesiredLRPs, and says which revision the list shows.
func (c *Client) DesiredList(ctx context.Context, f DesiredFilter) ([]lrp.Desired, uint64, error) {
	res, err := c.rpc.DesiredLRPs(ctx, f.request())
	if err != nil {
		return nil, 0, refusal.FromStatus(err)
	}
	return decodeList(res.GetDesiredLrps(), wire.DecodeDesired), res.GetRevision(), nil
}

// SchedulingInfos lists what placement needs; the metric tags are not part of it.
func (c *Client) SchedulingInfos(ctx context.Context, f DesiredFilter) ([]lrp.SchedulingInfo, uint64, error) {
	res, err := c.rpc.DesiredLRPSchedulingInfos(ctx, f.request())
	if err != nil {
		return nil, 0, refusal.FromStatus(err)
	}
	return decodeList(res.GetDesiredLrpSchedulingInfos(), wire.DecodeSchedulingInfo), res.GetRevision(), nil
}

// RoutingInfos lists what routing needs: identity, instances, routes, metric tags and version; all
// else is empty.
func (c *Client) RoutingInfos(ctx context.Context, f DesiredFilter) ([]lrp.SchedulingInfo, uint64, error) {
	res, err := c.rpc.DesiredLRPRoutingInfos(ctx, f.request())
	if err != nil {
		return nil, 0, refusal.FromStatus(err)
	}
	return decodeList(res.GetDesiredLrps(), wire.DecodeSummary), res.GetRevision(), nil
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
	res, err := c.rpc.ActualLRPs(ctx, &bbsv1.ActualLRPsRequest{
		Domain: string(f.Domain), CellId: string(f.Cell), ProcessGuid: string(f.Process), Index: f.Index,
	})
	if err != nil {
		return nil, 0, refusal.FromStatus(err)
	}
	return decodeList(res.GetActualLrps(), wire.DecodeActual), res.GetRevision(), nil
}

// Apply reports an event: a claim, start, crash, fail, remove or retire. The epoch is the server's.
func (c *Client) Apply(ctx context.Context, ev lrp.Event) error {
	var err error
	switch ev.Name {
	case lrp.Claim:
		_, err = c.rpc.ClaimActualLRP(ctx, wire.EncodeClaim(ev))
	case lrp.Start:
		_, err = c.rpc.StartActualLRP(ctx, wire.EncodeStart(ev))
	case lrp.Crash:
		_, err = c.rpc.CrashActualLRP(ctx, wire.EncodeCrash(ev))
	case lrp.Fail:
		_, err = c.rpc.FailActualLRP(ctx, wire.EncodeFail(ev))
	case lrp.Remove:
		_, err = c.rpc.RemoveActualLRP(ctx, wire.EncodeRemove(ev))
	case lrp.Retire:
		_, err = c.rpc.RetireActualLRP(ctx, wire.EncodeRetire(ev))
	default:
		return fmt.Errorf("report event %q of %v: only the BBS itself makes such events", ev.Name, ev.Key.Slot)
	}
	return refusal.FromStatus(err)
}

// Domains lists the fresh domains.
func (c *Client) Domains(ctx context.Context) ([]lrp.Domain, uint64, error) {
	res, err := c.rpc.Domains(ctx, &bbsv1.DomainsRequest{})
	if err != nil {
		return nil, 0, refusal.FromStatus(err)
	}
	return decodeList(res.GetDomains(), func(s string) lrp.Domain { return lrp.Domain(s) }), res.GetRevision(), nil
}

// UpsertDomain declares a domain fresh for ttl, counted in whole seconds and rounded up; 0: for ever.
func (c *Client) UpsertDomain(ctx context.Context, d lrp.Domain, ttl time.Duration) error {
	seconds := (max(ttl, 0) + time.Second - 1) / time.Second
	_, err := c.rpc.UpsertDomain(ctx, &bbsv1.UpsertDomainRequest{Domain: string(d), Ttl: uint32(min(seconds, 1<<32-1))})
	return refusal.FromStatus(err)
}

// Cells lists the cells that are present.
func (c *Client) Cells(ctx context.Context) ([]cells.Presence, uint64, error) {
	res, err := c.rpc.Cells(ctx, &bbsv1.CellsRequest{})
	if err != nil {
		return nil, 0, refusal.FromStatus(err)
	}
	return decodeList(res.GetCells(), wire.DecodePresence), res.GetRevision(), nil
}

// Heartbeat says that a cell is alive, good for ttl (1 s to 1 min).
func (c *Client) Heartbeat(ctx context.Context, p cells.Presence, ttl time.Duration) error {
	_, err := c.rpc.Heartbeat(ctx, &bbsv1.HeartbeatRequest{Presence: wire.EncodePresence(p), TtlMs: ttl.Milliseconds()})
	return refusal.FromStatus(err)
}

func decodeList[M, T any](in []M, decode func(M) T) []T {
	out := make([]T, len(in))
	for i, m := range in {
		out[i] = decode(m)
	}
	return out
}
