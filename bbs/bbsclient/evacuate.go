package bbsclient

import (
	"context"
	"fmt"

	"muster/bbs/internal/refusal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// Evacuate reports what a drained cell has: evacuate_claimed, _running, _stopped or _crashed. keep
// tells it to let the container run on and to ask again; it has a meaning with an error, too.
func (c *Client) Evacuate(ctx context.Context, ev lrp.Event) (keep bool, err error) {
	var res *bbsv1.EvacuationResponse
	switch ev.Name {
	case lrp.EvacuateClaimed:
		res, err = c.rpc.EvacuateClaimedActualLRP(ctx, wire.EncodeEvacuateClaimed(ev))
	case lrp.EvacuateRunning:
		res, err = c.rpc.EvacuateRunningActualLRP(ctx, wire.EncodeEvacuateRunning(ev))
	case lrp.EvacuateStopped:
		res, err = c.rpc.EvacuateStoppedActualLRP(ctx, wire.EncodeEvacuateStopped(ev))
	case lrp.EvacuateCrashed:
		res, err = c.rpc.EvacuateCrashedActualLRP(ctx, wire.EncodeEvacuateCrashed(ev))
	default:
		return true, fmt.Errorf("evacuate %v with event %q: it is none of an evacuation", ev.Key.Slot, ev.Name)
	}
	if err == nil {
		return res.GetKeepContainer(), nil
	}
	if decided, ok := refusal.KeepOf(err); ok {
		return decided, refusal.FromStatus(err)
	}
	return ev.Name.KeepUndecided(), refusal.FromStatus(err)
}
