package bbsclient

import (
	"context"
	"fmt"

	"muster/bbs/internal/refusal"
	"muster/bbs/internal/wire"
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
