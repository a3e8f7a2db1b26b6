// Package runner carries out what the cores decide: a Cell holds all instances of this cell with the
// books of what they hold, and one runner per instance makes, starts, watches, reports, stops and
// destroys its container, one thing after another.
//
// Everything is level-triggered. A runner asks rep/align what to do next whenever anything happened
// to its container or was heard about its record, and repeats what failed until it is answered: while
// the BBS is away, containers go on and reports wait. When the rep itself ends, runners are simply
// dropped; Adopt of the next rep finds their containers.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/container"
	"muster/cells/engine"
	"muster/cells/fetch"
	"muster/rep/align"
	"muster/rep/internal/belongings"
	"muster/rep/internal/probe"
	"muster/rep/ledger"
	"muster/rep/recipe"
)

// Limits of a cell.
const (
	// createPool and deletePool bound how many containers are made and destroyed at once, each
	// for itself, so that neither starves the other.
	createPool = 32
	deletePool = 32
	// maxTraceBytes is how much of a request id is kept.
	maxTraceBytes = 128
	// callTimeout bounds one call of the BBS.
	callTimeout = 10 * time.Second
	// destroyTimeout bounds one attempt to destroy a container, listTimeout one list of them.
	destroyTimeout = 2 * time.Minute
	listTimeout    = 30 * time.Second
	// killWait is how long the end of a killed process may take to be seen.
	killWait = time.Second
	// inboxSize bounds what waits for one runner; senders wait for room.
	inboxSize = 16
)

// Config says what a cell is and how it treats its instances.
type Config struct {
	Presence       cells.Presence
	Index          int32 // for bin packing
	Recipe         recipe.Cell
	PreferInstance bool // routers should use the address of the container
	FirstPort      uint16
	LastPort       uint16
	CreateTimeout  time.Duration // of making one container
	ReapEvery      time.Duration // between comparisons with the engine
	Probe          probe.Settings
	Files          *fetch.Fetcher // moves what programs want
	Belongings     belongings.Set // what containers need besides the engine
	VolumeDrivers  []string       // by which they can ask for volumes
}

// Cell is all that runs on a cell. All methods may be called concurrently.
type Cell struct {
	Config
	engine  engine.Engine
	bbs     *bbsclient.Client
	metrics *Metrics
	log     *slog.Logger

	creating, deleting chan struct{}
	// life ends with Run; every goroutine of the cell is counted in wg.
	life context.Context
	end  context.CancelFunc
	wg   sync.WaitGroup

	past past

	mu        sync.Mutex
	closed    bool
	unhealthy string
	books     *ledger.Ledger
	ports     *ledger.Ports
	instances map[lrp.InstanceGUID]*instance
	orphans   map[lrp.InstanceGUID]bool // records being removed, those of tasks by their GUID
	strays    map[engine.ID]bool        // containers being destroyed that no instance owns
	changed   chan struct{}             // closed and replaced with every change
}

// New returns a cell without instances. Host ports are handed out from a random one of the range on: the
// quarantine of freed ports does not outlive the rep, and a successor must not reuse just those.
func New(cfg Config, e engine.Engine, bbs *bbsclient.Client, m *Metrics, log *slog.Logger) *Cell {
	life, end := context.WithCancel(context.Background()) // Run ends it
	return &Cell{
		Config: cfg, engine: e, bbs: bbs, metrics: m, log: log,
		creating: make(chan struct{}, createPool), deleting: make(chan struct{}, deletePool),
		life: life, end: end,
		books: ledger.New(cfg.Presence.Capacity), ports: ledger.NewPorts(cfg.FirstPort, cfg.LastPort, cfg.FirstPort+uint16(rand.IntN(int(cfg.LastPort-cfg.FirstPort)+1))),
		instances: map[lrp.InstanceGUID]*instance{}, orphans: map[lrp.InstanceGUID]bool{}, strays: map[engine.ID]bool{},
		changed: make(chan struct{}),
	}
}

// Run runs the instances until ctx ends. It leaves their containers as they are. It is called once.
func (c *Cell) Run(ctx context.Context) error {
	c.wg.Go(c.reapLoop)
	c.mu.Lock()
	for _, i := range c.instances { // the adopted ones
		c.begin(i)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.wg.Wait()
	return ctx.Err()
}

// begin starts the runner of an instance once. c.mu is held.
func (c *Cell) begin(i *instance) {
	if !i.begun && !c.closed {
		i.begun = true
		c.wg.Go(i.run)
	}
}

// Perform takes on work, most important first, and returns what it refuses. The resources of the rest
// are reserved. Work for a slot that the cell already works on is accepted and changes nothing.
func (c *Cell) Perform(work []cells.Instance, tasks []cells.Task) []cells.Refusal {
	var refused []cells.Refusal
	for _, w := range work {
		if err := c.acceptInstance(w); err != nil {
			refused = append(refused, cells.Refusal{Instance: w, Reason: err.Error()})
			c.metrics.Refused.Inc()
			c.log.Info("work refused", "process_guid", w.Key.Process, "index", w.Key.Index, "reason", err.Error())
		}
	}
	for _, t := range tasks {
		if err := c.acceptTask(t); err != nil {
			refused = append(refused, cells.Refusal{Task: &t, Reason: err.Error()})
			c.metrics.Refused.Inc()
			c.log.Info("work refused", "task_guid", t.Key.GUID, "reason", err.Error())
		}
	}
	return refused
}

func (c *Cell) acceptInstance(w cells.Instance) error {
	if w.Key.Process == "" {
		return errors.New("process_guid is empty")
	}
	if w.Key.Index < 0 {
		return fmt.Errorf("index is %d: want 0 or more", w.Key.Index)
	}
	return c.accept(container.Record{
		Key: w.Key, Resources: w.Resources, MaxPids: w.MaxPids, RootFS: w.RootFS, PlacementTags: w.PlacementTags,
	}, w.VolumeDrivers, w.TraceID, func(r container.Record) bool { return !r.IsTask() && r.Key.Slot == w.Key.Slot && !r.Ending() })
}

func (c *Cell) acceptTask(t cells.Task) error {
	if t.Key.GUID == "" {
		return errors.New("task_guid is empty")
	}
	return c.accept(container.Record{
		Task: t.Key, Resources: t.Resources, MaxPids: t.MaxPids, RootFS: t.RootFS, PlacementTags: t.PlacementTags,
	}, t.VolumeDrivers, t.TraceID, func(r container.Record) bool { return r.Task.GUID == t.Key.GUID })
}

// accept takes on work, unless the cell is at it already; same tells which containers that are not completed
// are the same work.
func (c *Cell) accept(r container.Record, volumeDrivers []string, trace string, same func(container.Record) bool) error {
	if err := c.suits(r.RootFS, volumeDrivers); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return errors.New("the rep is stopping")
	case c.unhealthy != "":
		return errors.New(c.unhealthy)
	}
	for _, i := range c.instances {
		if i.public.State != container.Completed && same(i.public) {
			return nil
		}
	}
	r.Instance, r.State, r.Resources.Containers = lrp.InstanceGUID(uuid.NewString()), container.Reserved, 1
	if err := c.books.Reserve(r.Instance, r.Resources); err != nil {
		return err
	}
	i := c.newInstance(r, trace[:min(len(trace), maxTraceBytes)])
	c.begin(i)
	c.broadcast()
	c.metrics.Accepted.Inc()
	i.log.Info("work accepted", "memory_mb", r.Resources.MemoryMB, "disk_mb", r.Resources.DiskMB)
	return nil
}

// suits checks what can be said about work without knowing what else runs.
func (c *Cell) suits(rootFS string, volumeDrivers []string) error {
	missing := slices.DeleteFunc(slices.Clone(volumeDrivers), func(d string) bool { return slices.Contains(c.VolumeDrivers, d) })
	if len(missing) > 0 {
		return fmt.Errorf("volume drivers %s are not on this cell", strings.Join(missing, ", "))
	}
	scheme, name, _ := strings.Cut(rootFS, ":")
	p, ok := c.Presence.RootFSProviders[scheme]
	if !ok || len(p.Names) > 0 && !slices.Contains(p.Names, name) {
		return fmt.Errorf("root file system %q cannot be run on this cell", rootFS)
	}
	return nil
}

// newInstance registers an instance; trace is the request id of what made it necessary. c.mu is held.
func (c *Cell) newInstance(r container.Record, trace string) *instance {
	i := &instance{
		cell: c, guid: r.Instance, isTask: r.IsTask(), taskKey: r.Task, slot: r.Key.Slot, rec: r, public: r, known: align.Known{Standing: align.Unheard},
		inbox: make(chan func(), inboxSize), accepted: time.Now(),
		log: c.log.With("process_guid", r.Key.Process, "index", r.Key.Index, "instance_guid", r.Instance),
	}
	if i.isTask {
		i.log = c.log.With("task_guid", r.Task.GUID, "instance_guid", r.Instance)
	}
	if trace != "" {
		i.trace, i.log = trace, i.log.With("trace_id", trace)
	}
	i.ctx, i.cancel = context.WithCancel(c.life)
	i.making, i.abandon = context.WithCancel(i.ctx)
	i.process, i.processEnded = context.WithCancel(i.ctx)
	c.instances[r.Instance] = i
	return i
}

// publish makes the state of an instance visible.
func (c *Cell) publish(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i.public = i.rec
	c.broadcast()
}

// forget drops an instance whose container is gone, and gives back what it held.
func (c *Cell) forget(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.books.Release(i.guid)
	c.ports.Free(i.guid, time.Now())
	delete(c.instances, i.guid)
	c.broadcast()
}

// broadcast wakes everybody who waits for a change. c.mu is held.
func (c *Cell) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Cell) takePorts(id lrp.InstanceGUID, n int) ([]uint16, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ports.Take(id, n, time.Now())
}

// find returns an instance, or nil.
func (c *Cell) find(id lrp.InstanceGUID) *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.instances[id]
}

// all returns all instances and tasks.
func (c *Cell) all() []*instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*instance, 0, len(c.instances))
	for _, i := range c.instances {
		all = append(all, i)
	}
	return all
}

// State returns the state of the cell, and a channel that is closed with the next change of it.
func (c *Cell) State() (cells.State, <-chan struct{}) {
	records, changed := c.Records()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := cells.State{Presence: c.Presence, Index: c.Index, Available: c.books.Available(), VolumeDrivers: c.VolumeDrivers, UnhealthyReason: c.unhealthy}
	for _, r := range records {
		if r.Starting() {
			s.StartingContainers++
		}
		if r.IsTask() {
			s.Tasks = append(s.Tasks, cells.Task{
				Key: r.Task, Resources: r.Resources, MaxPids: r.MaxPids, RootFS: r.RootFS, PlacementTags: r.PlacementTags,
			})
			continue
		}
		s.Instances = append(s.Instances, cells.Instance{
			Key: r.Key, InstanceGUID: r.Instance, State: r.InstanceState(), Resources: r.Resources,
			MaxPids: r.MaxPids, RootFS: r.RootFS, PlacementTags: r.PlacementTags,
		})
	}
	return s, changed
}

// Records returns what is on the cell, by slot and instance, and a channel that is closed with the next
// change of it.
func (c *Cell) Records() ([]container.Record, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	records := make([]container.Record, 0, len(c.instances))
	for _, i := range c.instances {
		records = append(records, i.public)
	}
	slices.SortFunc(records, func(a, b container.Record) int {
		if o := strings.Compare(string(a.Key.Process), string(b.Key.Process)); o != 0 {
			return o
		}
		if o := int(a.Key.Index) - int(b.Key.Index); o != 0 {
			return o
		}
		return strings.Compare(string(a.Instance), string(b.Instance))
	})
	return records, c.changed
}

// EngineAway says that the container engine does not answer, so that the cell takes no work;
// EngineAnswers ends that.
func (c *Cell) EngineAway(err error) {
	c.setUnhealthy(fmt.Sprintf("the container engine does not answer: %v", err))
}

// EngineAnswers says that the container engine answers.
func (c *Cell) EngineAnswers() { c.setUnhealthy("") }

// setUnhealthy says why the cell takes no work; empty means that it does.
func (c *Cell) setUnhealthy(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unhealthy != reason {
		c.unhealthy = reason
		c.broadcast()
	}
}
