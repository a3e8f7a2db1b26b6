// Package repclient calls the rep of a cell. It speaks domain types and hides the wire; it makes no
// decisions and retries nothing. A Client may be used concurrently.
package repclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"muster/bbs/lrp"
	"muster/cells"
	repv1 "muster/proto/rep/v1"
	"muster/rep/internal/wire"
)

// Client calls one rep over a connection that the caller owns.
type Client struct {
	rpc repv1.RepServiceClient
}

// New returns a client on a connection.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{rpc: repv1.NewRepServiceClient(conn)}
}

// State returns the state of the cell. Its RepURL is empty: the caller knows whom it asked.
func (c *Client) State(ctx context.Context) (cells.State, error) {
	m, err := c.rpc.State(ctx, &repv1.StateRequest{})
	if err != nil {
		return cells.State{}, fmt.Errorf("ask for the state of the cell: %w", err)
	}
	return wire.ToState(m), nil
}

// WatchState calls fn with the whole state of the cell now and after every change, until ctx or the stream
// ends, and returns why. Changes made while fn works are folded into one.
func (c *Client) WatchState(ctx context.Context, fn func(cells.State)) error {
	stream, err := c.rpc.WatchState(ctx, &repv1.StateRequest{})
	if err != nil {
		return fmt.Errorf("watch the state of the cell: %w", err)
	}
	var state cells.State
	for {
		m, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watch the state of the cell: %w", err)
		}
		state = wire.Next(state, m)
		fn(state)
	}
}

// Perform gives work to the cell and returns what it refused. Everything else is reserved when the
// call returns. An error means that nothing is known: the work may or may not have been taken on.
// FAILED_PRECONDITION means that the rep at this address serves another cell.
func (c *Client) Perform(ctx context.Context, cell lrp.CellID, work []cells.Instance, tasks []cells.Task) ([]cells.Refusal, error) {
	req := &repv1.PerformRequest{CellId: string(cell)}
	for _, i := range work {
		req.Lrps = append(req.Lrps, wire.FromInstance(i))
	}
	for _, t := range tasks {
		req.Tasks = append(req.Tasks, wire.FromTask(t))
	}
	resp, err := c.rpc.Perform(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("give %d instances and %d tasks to cell %s: %w", len(work), len(tasks), cell, err)
	}
	var refused []cells.Refusal
	for _, r := range resp.GetRefused() {
		refused = append(refused, wire.ToRefusal(r))
	}
	return refused, nil
}

// LogsRequest says which log lines are wanted.
type LogsRequest struct {
	Process lrp.ProcessGUID
	Index   *int32 // nil: all instances of the process on the cell
	Follow  bool   // go on until ctx ends, also with instances that start later
	Tail    int    // newest lines of each instance that come first; 0: all that are kept
}

// LogLine is one line that an instance wrote.
type LogLine struct {
	Cell     lrp.CellID
	Instance lrp.InstanceGUID
	Index    int32
	Stderr   bool
	Line     []byte // without its end, at most 61,440 bytes
	Source   string // who wrote it: APP/PROC/WEB, HEALTH, ...
	Time     time.Time
}

// Logs calls fn for each line until there are no more, fn or the stream fails, or ctx ends. Without
// Follow, a cell that has no such instance answers NOT_FOUND; with Follow it waits for one.
func (c *Client) Logs(ctx context.Context, req LogsRequest, fn func(LogLine) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Logs(ctx, &repv1.LogsRequest{
		ProcessGuid: string(req.Process), Index: req.Index, Follow: req.Follow, Tail: int32(req.Tail),
	})
	if err != nil {
		return fmt.Errorf("read logs of %s: %w", req.Process, err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read logs of %s: %w", req.Process, err)
		}
		if err := fn(LogLine{
			Cell: lrp.CellID(m.GetCellId()), Instance: lrp.InstanceGUID(m.GetInstanceGuid()),
			Index: m.GetIndex(), Stderr: m.GetStderr(), Line: m.GetLine(),
			Source: m.GetSource(), Time: m.GetTime().AsTime(),
		}); err != nil {
			return err
		}
	}
}
