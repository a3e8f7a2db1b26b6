package bbsclient

import (
	"context"
	"fmt"

	"muster/bbs/internal/refusal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// DesireTask creates a task: of t, only GUID, Domain and Definition count.
func (c *Client) DesireTask(ctx context.Context, t task.Task, opts ...CallOption) error {
	o, r := options(opts), wire.EncodeDesireTask(t)
	r.RequestId, r.ValidateOnly = o.requestID, o.validateOnly
	_, err := c.rpc.DesireTask(ctx, r)
	return refusal.FromStatus(err)
}

// Task returns one task. Image passwords are empty for callers that are not cells.
func (c *Client) Task(ctx context.Context, guid task.GUID) (task.Task, error) {
	res, err := c.rpc.TaskByGuid(ctx, &bbsv1.TaskByGuidRequest{TaskGuid: string(guid)})
	if err != nil {
		return task.Task{}, refusal.FromStatus(err)
	}
	return wire.DecodeTask(res.GetTask()), nil
}

// ApplyTask reports an event: a start, completion, cancellation, failure, rejection, resolving or
// deletion. shouldStart tells a cell that asked to start the task that it is the one to run it.
func (c *Client) ApplyTask(ctx context.Context, ev task.Event) (shouldStart bool, err error) {
	switch ev.Name {
	case task.Start:
		var res *bbsv1.StartTaskResponse
		res, err = c.rpc.StartTask(ctx, wire.EncodeStartTask(ev))
		shouldStart = res.GetShouldStart()
	case task.Complete:
		_, err = c.rpc.CompleteTask(ctx, wire.EncodeCompleteTask(ev))
	case task.Cancel:
		_, err = c.rpc.CancelTask(ctx, wire.EncodeTaskGUID(ev))
	case task.Fail:
		_, err = c.rpc.FailTask(ctx, wire.EncodeFailTask(ev))
	case task.Reject:
		_, err = c.rpc.RejectTask(ctx, wire.EncodeRejectTask(ev))
	case task.Resolve:
		_, err = c.rpc.ResolvingTask(ctx, wire.EncodeTaskGUID(ev))
	case task.Delete:
		_, err = c.rpc.DeleteTask(ctx, wire.EncodeTaskGUID(ev))
	default:
		return false, fmt.Errorf("report event %q of task %s: only the BBS itself makes such events", ev.Name, ev.GUID)
	}
	return shouldStart, refusal.FromStatus(err)
}

// Evacuate reports what a drained cell has: evacuate_claimed, _running, _stopped or _crashed. keep
// tells it to let the container run on and to ask again; it has a meaning with an error, too.
func (c *Client) Evacuate(ctx context.Context, ev lrp.Event) (keep bool, err error) {
	var res *bbsv1.EvacuationResponse
	// When nobody knows: what is still to be used is kept.
	unknown := false
	switch ev.Name {
	case lrp.EvacuateClaimed:
		unknown = true
		res, err = c.rpc.EvacuateClaimedActualLRP(ctx, wire.EncodeEvacuateClaimed(ev))
	case lrp.EvacuateRunning:
		unknown = true
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
	return unknown, refusal.FromStatus(err)
}
