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
// succeed later. Whether the failed call had an effect is unknown. A message that is too large will be
// too large again.
func IsUnavailable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return true
	case codes.ResourceExhausted:
		_, later := RetryDelay(err)
		return later
	}
	return false
}

// RetryDelay returns how long the BBS asks to wait before the next attempt; false: it says nothing.
func RetryDelay(err error) (time.Duration, bool) { return refusal.RetryDelay(err) }

// Ping asks whether the BBS answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.rpc.Ping(ctx, &bbsv1.PingRequest{})
	return refusal.FromStatus(err)
}

// CallOption changes how a record is created or changed.
type CallOption func(*callOptions)

type callOptions struct {
	requestID    string
	validateOnly bool
}

// RequestID makes a creating call safe to repeat for an hour: the same call with the same id succeeds
// without effect, a different one is an *lrp.Invalid. Up to 255 bytes; a UUID is good.
func RequestID(id string) CallOption { return func(o *callOptions) { o.requestID = id } }

// ValidateOnly asks for the answer without the effect.
func ValidateOnly() CallOption { return func(o *callOptions) { o.validateOnly = true } }

func options(opts []CallOption) (o callOptions) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Desire creates a DesiredLRP and the slots for its instances.
func (c *Client) Desire(ctx context.Context, d lrp.Desired, opts ...CallOption) error {
	o := options(opts)
	_, err := c.rpc.DesireLRP(ctx, &bbsv1.DesireLRPRequest{
		DesiredLrp: wire.EncodeDesired(d), RequestId: o.requestID, ValidateOnly: o.validateOnly,
	})
	return refusal.FromStatus(err)
}

// Update changes a DesiredLRP and scales it. Repeating it is safe without a request id.
func (c *Client) Update(ctx context.Context, p lrp.ProcessGUID, u lrp.Update, opts ...CallOption) error {
	_, err := c.rpc.UpdateDesiredLRP(ctx, &bbsv1.UpdateDesiredLRPRequest{
		ProcessGuid: string(p), Update: wire.EncodeUpdate(u), ValidateOnly: options(opts).validateOnly,
	})
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

// Apply reports an event: a claim, start, crash, fail, remove, retire or remove_evacuating. The epoch is
// the server's. The others of an evacuation have an answer: Evacuate.
func (c *Client) Apply(ctx context.Context, ev lrp.Event) error {
	var err error
	switch ev.Name {
	case lrp.Claim:
		_, err = c.rpc.ClaimActualLRP(ctx, wire.EncodeClaim(ev))
	case lrp.Start:
		_, err = c.rpc.StartActualLRP(ctx, wire.RawStart(ev))
	case lrp.Crash:
		_, err = c.rpc.CrashActualLRP(ctx, wire.EncodeCrash(ev))
	case lrp.Fail:
		_, err = c.rpc.FailActualLRP(ctx, wire.EncodeFail(ev))
	case lrp.Remove:
		_, err = c.rpc.RemoveActualLRP(ctx, wire.EncodeRemove(ev))
	case lrp.Retire:
		_, err = c.rpc.RetireActualLRP(ctx, wire.EncodeRetire(ev))
	case lrp.RemoveEvacuating:
		_, err = c.rpc.RemoveEvacuatingActualLRP(ctx, wire.EncodeRemoveEvacuating(ev))
	default:
		return fmt.Errorf("report event %q of %v: only the BBS itself makes such events", ev.Name, ev.Key.Slot)
	}
	return refusal.FromStatus(err)
}

// UpsertDomain declares a domain fresh for ttl, counted in whole seconds and rounded up; 0: for ever.
func (c *Client) UpsertDomain(ctx context.Context, d lrp.Domain, ttl time.Duration) error {
	seconds := (max(ttl, 0) + time.Second - 1) / time.Second
	_, err := c.rpc.UpsertDomain(ctx, &bbsv1.UpsertDomainRequest{Domain: string(d), Ttl: uint32(min(seconds, 1<<32-1))})
	return refusal.FromStatus(err)
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
