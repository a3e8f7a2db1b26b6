package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	bbsv1 "muster/proto/bbs/v1"
)

// entry is one change of the log, and what it can be selected by.
type entry struct {
	revision uint64
	round    int // in which round it was committed
	process  string
	domain   string
	cells    [2]string // before and after
}

// concerns tells whether a filter selects the entry: the rule, said once more, without the hub.
func (e entry) concerns(f *bbsv1.WatchRequest, process string) bool {
	return (f.GetCellId() == "" || e.cells[0] == f.GetCellId() || e.cells[1] == f.GetCellId()) &&
		(f.GetProcessGuid() == "" || e.process == process) &&
		(f.GetDomain() == "" || e.domain == f.GetDomain())
}

// log reads what was committed in the rounds with watchers, with one watch of everything.
func (c *crowd) log(ctx context.Context) ([]entry, error) {
	var all []entry
	for round, s := range c.rounds {
		entries, err := c.read(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("read the log of round %d: %w", round+1, err)
		}
		for i := range entries {
			entries[i].round = round
		}
		all = append(all, entries...)
	}
	return all, nil
}

func (c *crowd) read(ctx context.Context, s span) (entries []entry, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := bbsv1.NewBBSServiceClient(c.everyone.conns[1]).Watch(ctx, &bbsv1.WatchRequest{AfterRevision: s.after})
	if err != nil {
		return nil, err
	}
	for at := s.after; at < s.upTo; {
		m, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("after revision %d: %w", at, err)
		}
		for _, ev := range m.GetEvents() {
			if at++; ev.GetRevision() != at {
				return nil, fmt.Errorf("the log has revision %d where %d was due", ev.GetRevision(), at)
			}
			if at <= s.upTo {
				entries = append(entries, newEntry(ev))
			}
		}
		at = m.GetRevision()
	}
	return entries, nil
}

func newEntry(ev *bbsv1.Event) entry {
	e := entry{revision: ev.GetRevision()}
	switch {
	case ev.GetActualLrp() != nil:
		for i, a := range []*bbsv1.ActualLRP{ev.GetActualLrp().GetBefore(), ev.GetActualLrp().GetAfter()} {
			if a != nil {
				e.process, e.domain = a.GetActualLrpKey().GetProcessGuid(), a.GetActualLrpKey().GetDomain()
				e.cells[i] = a.GetActualLrpInstanceKey().GetCellId()
			}
		}
	case ev.GetDesiredLrp() != nil:
		d := ev.GetDesiredLrp().GetAfter()
		if d == nil {
			d = ev.GetDesiredLrp().GetBefore()
		}
		e.process, e.domain = d.GetProcessGuid(), d.GetDomain()
	}
	return e
}

// Name is that of the encoding on the wire.
func (codec) Name() string { return "proto" }

// Marshal encodes a request.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal reads what message wants to know.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	return v.(*message).decode(b.ReadOnlyData())
}
