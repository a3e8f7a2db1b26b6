package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/integration/bench/rig"
	"muster/internal/daemon"
	"muster/internal/identity"
	repv1 "muster/proto/rep/v1"
)

// What a cell has. Instances of the benches take 1024 MB of memory and of disk each.
const (
	cellMemoryMB   = 256 << 10
	cellDiskMB     = 1 << 20
	cellContainers = 250
	zones          = 3
)

// fleet is all cells.
type fleet struct {
	cells  []*cell
	stop   context.CancelFunc
	failed chan error // capacity 1

	mu      sync.Mutex
	left    int // claims that are expected
	first   time.Time
	last    time.Time
	done    chan struct{} // closed when no claim is left
	doubled atomic.Int64
}

// newFleet starts the reps of cells.
func newFleet(ctx context.Context, r *rig.Rig, b *rig.Replica, n int) (*fleet, error) {
	clients, err := r.Clients(b, rig.CellIDs(n))
	if err != nil {
		return nil, err
	}
	if err := r.Connect(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &fleet{stop: cancel, failed: make(chan error, 1), done: make(chan struct{})}
	for i, id := range rig.CellIDs(n) {
		files, err := r.Files(id)
		if err != nil {
			return nil, err
		}
		tls, err := files.Server(identity.Auctioneer)
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		c := &cell{fleet: f, ctx: ctx, bbs: clients[i], has: map[lrp.Key]cells.Instance{}, changed: make(chan struct{}), presence: cells.Presence{
			Cell: rig.Cell(i), RepURL: "https://" + l.Addr().String(), Zone: fmt.Sprintf("z%d", i%zones+1),
			Capacity:        cells.Resources{MemoryMB: cellMemoryMB, DiskMB: cellDiskMB, Containers: cellContainers},
			RootFSProviders: map[string]cells.Provider{"preloaded": {Names: []string{"cflinuxfs4"}}},
		}}
		server := daemon.NewGRPCServer(tls)
		repv1.RegisterRepServiceServer(server, c)
		go func() {
			if err := daemon.ServeGRPC(ctx, l, server); err != nil {
				f.fail(fmt.Errorf("cell %s: %w", c.presence.Cell, err))
			}
		}()
		f.cells = append(f.cells, c)
	}
	return f, nil
}

// present makes the cells present.
func (f *fleet) present(ctx context.Context) error {
	_, err := rig.Work(ctx, 64, len(f.cells), func(ctx context.Context, _, i int) error {
		return f.cells[i].bbs.Heartbeat(ctx, f.cells[i].presence, ttl)
	})
	return err
}

func (f *fleet) fail(err error) {
	select {
	case f.failed <- err:
	default:
	}
}

// expect says how many claims are to come.
func (f *fleet) expect(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.first, f.last, f.done = n, time.Time{}, time.Time{}, make(chan struct{})
}

// claimed waits until the claims that are expected were made.
func (f *fleet) claimed(ctx context.Context) error {
	f.mu.Lock()
	done := f.done
	f.mu.Unlock()
	for began := time.Now(); ; {
		select {
		case <-done:
			return nil
		case err := <-f.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Second):
			f.mu.Lock()
			logf("%d instances wait after %v", f.left, time.Since(began).Round(time.Second))
			f.mu.Unlock()
			if err := f.present(ctx); err != nil {
				return err
			}
		}
	}
}

// times returns when the first order came, and when the last claim was made.
func (f *fleet) times() (first, last time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first, f.last
}

// twice returns how many claims were refused: of instances that two cells were to take.
func (f *fleet) twice() int { return int(f.doubled.Load()) }

func (f *fleet) ordered() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first.IsZero() {
		f.first = time.Now()
	}
}

func (f *fleet) counted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = time.Now()
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// cell is a cell in memory.
type cell struct {
	repv1.UnimplementedRepServiceServer
	fleet    *fleet
	ctx      context.Context
	bbs      *bbsclient.Client
	presence cells.Presence

	mu       sync.Mutex
	has      map[lrp.Key]cells.Instance
	starting int32         // not claimed yet
	changed  chan struct{} // closed and replaced by every change
}

// tell tells those who watch. The lock is held.
func (c *cell) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// state returns what has changed since so many instances were told; all at first.
func (c *cell) state(told map[lrp.Key]bool) (*repv1.StateResponse, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.presence
	m := &repv1.StateResponse{
		Changes: len(told) > 0,
		CellId:  string(p.Cell), Zone: p.Zone, StartingContainerCount: c.starting,
		RootfsProviders: map[string]*repv1.RootFSProvider{"preloaded": {Names: []string{"cflinuxfs4"}}},
		Total:           &repv1.Resources{MemoryMb: cellMemoryMB, DiskMb: cellDiskMB, Containers: cellContainers},
		Available:       &repv1.Resources{MemoryMb: cellMemoryMB, DiskMb: cellDiskMB, Containers: cellContainers},
	}
	for _, i := range c.has {
		m.Available.MemoryMb -= i.Resources.MemoryMB
		m.Available.DiskMb -= i.Resources.DiskMB
		m.Available.Containers--
		if told[i.Key] {
			continue
		}
		told[i.Key] = true
		m.Lrps = append(m.Lrps, &repv1.LRP{
			ProcessGuid: string(i.Key.Process), Index: i.Key.Index, Domain: string(i.Key.Domain), InstanceGuid: string(i.InstanceGUID),
			State: string(cells.InstanceClaimed), MemoryMb: i.Resources.MemoryMB, DiskMb: i.Resources.DiskMB, RootFs: i.RootFS,
		})
	}
	for key := range told {
		if _, there := c.has[key]; !there {
			delete(told, key)
			m.GoneInstanceGuids = append(m.GoneInstanceGuids, string(rig.Claim(key.Slot, p.Cell).By.Instance))
		}
	}
	return m, c.changed
}

// WatchState is as that of the rep.
func (c *cell) WatchState(_ *repv1.StateRequest, stream repv1.RepService_WatchStateServer) error {
	told := map[lrp.Key]bool{}
	for {
		m, changed := c.state(told)
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// Perform takes everything on that fits, and claims it.
func (c *cell) Perform(_ context.Context, req *repv1.PerformRequest) (*repv1.PerformResponse, error) {
	c.fleet.ordered()
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &repv1.PerformResponse{}
	for _, m := range req.GetLrps() {
		slot := lrp.Slot{Process: lrp.ProcessGUID(m.GetProcessGuid()), Index: m.GetIndex()}
		ev := rig.Claim(slot, c.presence.Cell)
		if _, known := c.has[ev.Key]; known {
			continue
		}
		if len(c.has) == cellContainers {
			resp.Refused = append(resp.Refused, &repv1.Refusal{Lrp: m, Reason: "insufficient resources: containers"})
			continue
		}
		c.has[ev.Key] = cells.Instance{
			Key: ev.Key, InstanceGUID: ev.By.Instance, RootFS: m.GetRootFs(),
			Resources: cells.Resources{MemoryMB: m.GetMemoryMb(), DiskMB: m.GetDiskMb(), Containers: 1},
		}
		c.starting++
		go c.claim(ev)
	}
	c.tell()
	return resp, nil
}

func (c *cell) claim(ev lrp.Event) {
	err := c.bbs.Apply(c.ctx, ev)
	c.mu.Lock()
	c.starting--
	if err != nil {
		delete(c.has, ev.Key)
	}
	c.tell()
	c.mu.Unlock()
	var refusal *lrp.Refusal
	switch {
	case err == nil:
		c.fleet.counted()
	case errors.As(err, &refusal):
		c.fleet.doubled.Add(1)
	case c.ctx.Err() == nil:
		c.fleet.fail(fmt.Errorf("claim on %s: %w", c.presence.Cell, err))
	}
}
