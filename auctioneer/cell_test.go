package auctioneer_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/internal/daemon"
	"muster/internal/identity"
	repv1 "muster/proto/rep/v1"
)

// testCell is a rep without containers: it accepts or refuses work, claims and starts it in the BBS,
// and streams its state, over the real connections.
type testCell struct {
	repv1.UnimplementedRepServiceServer
	t        *testing.T
	id       lrp.CellID
	bbs      *bbsclient.Client
	presence cells.Presence
	zone     string

	// watched is told each time that somebody begins to watch the state.
	watched chan struct{}
	// performed is told each accepted instance, at the moment of its arrival.
	performed chan arrival

	mu       sync.Mutex
	free     int32 // MiB
	has      map[string]*repv1.LRP
	tasks    map[string]*repv1.Task
	mute     bool // its state cannot be watched
	starting int32
	die      func()        // ends it, and keeps its presence
	refuse   string        // why everything is refused; empty: it is not
	claims   chan struct{} // claims wait until it is closed
	asked    map[string]int
	changed  chan struct{} // closed and replaced by every change
}

type arrival struct {
	slot string
	cell lrp.CellID
	at   time.Time
}

// cell starts a cell and makes it present.
func (w *world) cell(id string, memoryMB int32) *testCell {
	w.t.Helper()
	files, err := w.ca.Issue(identity.ID{Role: identity.Rep, Cell: id})
	must(w.t, err)
	server, err := files.Server(identity.Auctioneer)
	must(w.t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	open := make(chan struct{})
	close(open)
	c := &testCell{
		t: w.t, id: lrp.CellID(id), bbs: w.client(identity.ID{Role: identity.Rep, Cell: id}), performed: w.performed, watched: make(chan struct{}, 100),
		free: memoryMB, has: map[string]*repv1.LRP{}, tasks: map[string]*repv1.Task{}, asked: map[string]int{}, claims: open, changed: make(chan struct{}),
		presence: presence(id, "https://"+l.Addr().String()),
	}
	s := daemon.NewGRPCServer(server)
	repv1.RegisterRepServiceServer(s, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := daemon.ServeGRPC(ctx, l, s); err != nil {
			w.t.Error(err)
		}
	}()
	c.die = sync.OnceFunc(func() { cancel(); s.Stop(); <-done })
	w.t.Cleanup(c.die)
	c.appear()
	return c
}

func presence(id, url string) cells.Presence {
	return cells.Presence{
		Cell: lrp.CellID(id), RepURL: url, Zone: "z", Capacity: cells.Resources{MemoryMB: 1000, DiskMB: 1000, Containers: 100},
		RootFSProviders: map[string]cells.Provider{"docker": {}},
	}
}

// appear makes the cell present for the time of a test.
func (c *testCell) appear() {
	c.t.Helper()
	must(c.t, c.bbs.Heartbeat(context.Background(), c.presence, time.Minute))
}

// set changes the cell and tells its watchers.
func (c *testCell) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *testCell) state() (*repv1.StateResponse, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &repv1.StateResponse{
		CellId: string(c.id), Zone: "z", StartingContainerCount: c.starting, RootfsProviders: map[string]*repv1.RootFSProvider{"docker": {}},
		Available: &repv1.Resources{MemoryMb: c.free, DiskMb: 1000, Containers: 100},
		Total:     &repv1.Resources{MemoryMb: 1000, DiskMb: 1000, Containers: 100},
	}
	for _, i := range c.has {
		m.Lrps = append(m.Lrps, i)
	}
	for _, i := range c.tasks {
		m.Tasks = append(m.Tasks, i)
	}
	return m, c.changed
}

func (c *testCell) State(context.Context, *repv1.StateRequest) (*repv1.StateResponse, error) {
	m, _ := c.state()
	return m, nil
}

func (c *testCell) WatchState(_ *repv1.StateRequest, stream repv1.RepService_WatchStateServer) error {
	c.watched <- struct{}{}
	c.mu.Lock()
	mute := c.mute
	c.mu.Unlock()
	if mute {
		return status.Error(codes.Unimplemented, "not by this one")
	}
	for {
		m, changed := c.state()
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

func (c *testCell) Perform(_ context.Context, req *repv1.PerformRequest) (*repv1.PerformResponse, error) {
	at := time.Now()
	resp := &repv1.PerformResponse{}
	c.set(func() {
		for _, i := range req.GetLrps() {
			slot := fmt.Sprintf("%s/%d", i.GetProcessGuid(), i.GetIndex())
			c.asked[slot]++
			why := c.refuse
			if why == "" && i.GetMemoryMb() > c.free {
				why = "insufficient resources: memory"
			}
			if why != "" {
				resp.Refused = append(resp.Refused, &repv1.Refusal{Lrp: i, Reason: why})
				continue
			}
			c.free -= i.GetMemoryMb()
			i.InstanceGuid, i.State = slot+"@"+string(c.id), "CLAIMED"
			c.has[slot] = i
			c.performed <- arrival{slot, c.id, at}
			go c.claim(i, c.claims)
		}
		for _, i := range req.GetTasks() {
			c.asked[i.GetTaskGuid()]++
			if c.refuse != "" {
				resp.Refused = append(resp.Refused, &repv1.Refusal{Task: i, Reason: c.refuse})
				continue
			}
			c.free -= i.GetMemoryMb()
			c.tasks[i.GetTaskGuid()] = i
			c.performed <- arrival{i.GetTaskGuid(), c.id, at}
			go c.startTask(task.GUID(i.GetTaskGuid()), c.claims)
		}
	})
	return resp, nil
}

func (c *testCell) startTask(guid task.GUID, wait <-chan struct{}) {
	<-wait
	if _, err := c.bbs.ApplyTask(context.Background(), task.Event{Name: task.Start, GUID: guid, Cell: c.id}); err != nil && !bbsclient.IsUnavailable(err) {
		c.t.Logf("start: %v", err)
	}
}

func (c *testCell) claim(i *repv1.LRP, wait <-chan struct{}) {
	<-wait
	ev := lrp.Event{
		Name: lrp.Claim,
		Key:  lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(i.GetProcessGuid()), Index: i.GetIndex()}, Domain: lrp.Domain(i.GetDomain())},
		By:   lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprintf("i-%d-%s", i.GetIndex(), c.id)), Cell: c.id},
	}
	if err := c.bbs.Apply(context.Background(), ev); err != nil && !bbsclient.IsUnavailable(err) {
		c.t.Logf("claim: %v", err)
	}
}

// times returns how often the cell was asked for a slot.
func (c *testCell) times(slot string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[slot]
}

// slots returns what the cell has.
func (c *testCell) slots() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var slots []string
	for s := range c.has {
		slots = append(slots, s)
	}
	slices.Sort(slots)
	return slots
}
