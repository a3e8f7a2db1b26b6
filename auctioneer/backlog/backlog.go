package backlog

import (
	"time"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// Limits are the waits of the backlog.
type Limits struct {
	// Settle is how long the first auction waits for the states of the cells that are present, so
	// that not everything goes to the cells that answered first: from the newest first state of a cell, up to
	// maxSettle times as long in all. When every cell has answered, nothing waits.
	Settle time.Duration
	// BlindWait is how long work waits for a state while cells are present and none of them answers. Then it is
	// refused.
	BlindWait time.Duration
	// PerformTimeout bounds the call that orders work from a cell.
	PerformTimeout time.Duration
	// ClaimWait is how long a cell may take from accepting work, or from a call of which nobody
	// knows whether it arrived, until the BBS shows the claim. Then the work is placed anew.
	ClaimWait time.Duration
	// HeldWait is the same for work that a cell has accepted, as long as the cell is heard of.
	HeldWait time.Duration
	// RetryPause is the shortest time between two tries of work that was refused, when the cells
	// change all the time. It grows with the amount of such work, up to maxRetryPause.
	RetryPause time.Duration
	// RetryInterval is the longest time between two tries: the safety net. An explanation is renewed,
	// and a task rejected again, no sooner.
	RetryInterval time.Duration
}

// DefaultLimits returns the limits that the auctioneer uses.
func DefaultLimits() Limits {
	return Limits{
		Settle: time.Second, BlindWait: 5 * time.Second, PerformTimeout: 5 * time.Second, ClaimWait: 5 * time.Second, HeldWait: 2 * time.Minute,
		RetryPause: 50 * time.Millisecond, RetryInterval: 30 * time.Second,
	}
}

const (
	// maxSettle bounds the wait of the first auction, as a multiple of Limits.Settle.
	maxSettle = 10
	// retryCost is added to the pause between two tries for each piece of work that fits nowhere: about
	// five times what trying it takes.
	retryCost = 5 * time.Microsecond
	// maxRetryPause bounds that pause, so that room that appears is used within a second.
	maxRetryPause = 500 * time.Millisecond
	// maxRenewals is how many explanations are renewed in one RetryInterval: a renewal is a write that
	// changes nothing about the slot.
	maxRenewals = 256
)

// How long a cell that refused work is left alone with it: not at all after the first time (then
// only a new state counts), later doubling from minRefusalWait to maxRefusalWait.
const (
	minRefusalWait = 100 * time.Millisecond
	maxRefusalWait = 30 * time.Second
)

// Backlog is the state of an auctioneer.
type Backlog struct {
	limits Limits
	fleet  *auction.Fleet

	processes map[lrp.ProcessGUID]lrp.SchedulingInfo
	all       map[name]*work // ordinary instances in any state, and tasks that wait or are on their way

	fresh  map[*work]struct{} // waits, and takes part in the next auction
	failed map[*work]struct{} // waits, and fitted nowhere when it was tried last
	stale  bool               // something of failed might fit now
	coming int                // how much is on its way
	alarms alarms

	cells map[lrp.CellID]*cell
	dirty map[lrp.CellID]struct{} // cells of which the fleet knows something old

	attempts   uint64
	loaded     bool
	settledAt  time.Time // when the first auction is held at the latest, unless more cells answer
	settleEnd  time.Time // when it is held whatever happens
	settled    bool
	answering  int       // cells of which the state is known
	blindUntil time.Time // how long work waits when there is none
	retriedAt  time.Time // when all of failed was tried last
	renewals   int       // of explanations, in the interval that renewsAt ends
	renewsAt   time.Time
}

// New returns an empty backlog, which does nothing before the first Load.
func New(l Limits, w auction.Weights) *Backlog {
	return &Backlog{
		limits: l, fleet: auction.New(w),
		processes: map[lrp.ProcessGUID]lrp.SchedulingInfo{}, all: map[name]*work{},
		fresh: map[*work]struct{}{}, failed: map[*work]struct{}{},
		cells: map[lrp.CellID]*cell{}, dirty: map[lrp.CellID]struct{}{},
	}
}

// name identifies work: a slot with its domain, or a task.
type name struct {
	lrp.Key
	task cells.TaskGUID // of a task
}

func taskName(guid task.GUID) name { return name{task: cells.TaskGUID(guid)} }

// work is what is known about the ordinary instance of a slot, or about a task.
type work struct {
	name
	task *cells.Task // nil: an instance

	tag   lrp.ModificationTag // of an instance
	open  bool                // it waits for a cell, by what the BBS says
	since time.Time
	trace string // request id of the last change; empty when it came with a list

	placementError string           // as the BBS has it
	explanation    *lrp.Explanation // the same
	reported       string           // as it was sent last
	reportAt       time.Time        // no rejection, and no new explanation, before that

	retryAt  time.Time // while it is in failed: when it is tried again whatever happens
	order    *order
	adopted  bool // taken for ordered because a cell showed it, once since it waits
	refusals map[lrp.CellID]*refusal
	lastWord string // what the cell said that refused it last
}

// order is work on its way to a cell.
type order struct {
	cell    lrp.CellID
	attempt uint64
	work    auction.Work
	until   time.Time // when somebody looks at it again
	last    time.Time // until when it may stay with a cell that has accepted it
	held    bool      // the cell has accepted it, and was heard of ever since
	answer  time.Time // when the cell said so; zero: it did not
	shown   bool      // the cell's state has it
	claimed bool      // the BBS showed a claim
}

// refusal is a cell that refused work.
type refusal struct {
	state uint64 // number of the state that was known then
	times int
	until time.Time
}

// World is what the BBS lists.
type World struct {
	Processes []lrp.SchedulingInfo
	Actuals   []lrp.Actual
	Tasks     []task.Task
	Cells     []lrp.CellID
}

// Load replaces what is known from the BBS by what it lists. What is on its way is remembered.
func (b *Backlog) Load(w World, now time.Time) {
	b.processes = make(map[lrp.ProcessGUID]lrp.SchedulingInfo, len(w.Processes))
	for _, p := range w.Processes {
		b.processes[p.Process] = p
	}
	listed := make(map[name]bool, len(w.Actuals)+len(w.Tasks))
	for i := range w.Actuals {
		if a := &w.Actuals[i]; a.Presence == lrp.Ordinary {
			listed[name{Key: a.Key}] = true
			b.setActual(a)
		}
	}
	for i := range w.Tasks {
		listed[taskName(w.Tasks[i].GUID)] = true
		b.setTask(&w.Tasks[i])
	}
	for n, s := range b.all {
		if !listed[n] {
			b.drop(s)
		}
	}
	present := make(map[lrp.CellID]bool, len(w.Cells))
	for _, id := range w.Cells {
		present[id] = true
		b.CellPresent(id, now)
	}
	for id := range b.cells {
		if !present[id] {
			b.CellGone(id)
		}
	}
	if !b.loaded {
		b.loaded, b.settledAt, b.settleEnd = true, now.Add(b.limits.Settle), now.Add(maxSettle*b.limits.Settle)
	}
}

// SetProcess records what a process wants.
func (b *Backlog) SetProcess(p lrp.SchedulingInfo) { b.processes[p.Process] = p }

// RemoveProcess forgets a process; its slots are left alone from now on.
func (b *Backlog) RemoveProcess(guid lrp.ProcessGUID) { delete(b.processes, guid) }

// Change records what happened to an instance. Changes that are older than what is known, as they
// come after a list, are ignored. trace is the request id of what caused it, for logs.
func (b *Backlog) Change(c lrp.Change, trace string) {
	if c.After != nil && c.After.Presence == lrp.Ordinary {
		n := name{Key: c.After.Key}
		if s := b.all[n]; s == nil || s.tag.SucceededBy(c.After.Tag) {
			b.setActual(c.After)
			b.all[n].trace = trace
		}
		return
	}
	if c.Before == nil || c.Before.Presence != lrp.Ordinary {
		return
	}
	s := b.all[name{Key: c.Before.Key}]
	if s != nil && (s.tag == c.Before.Tag || s.tag.Epoch == c.Before.Tag.Epoch && s.tag.SucceededBy(c.Before.Tag)) {
		b.drop(s)
	}
}

// ChangeTask is Change for tasks. The record of a task has no version: a change that is older than the list
// is undone by the ones that follow it.
func (b *Backlog) ChangeTask(c task.Change, trace string) {
	switch {
	case c.After != nil:
		b.setTask(c.After)
		if s := b.all[taskName(c.After.GUID)]; s != nil {
			s.trace = trace
		}
	case c.Before != nil:
		if s := b.all[taskName(c.Before.GUID)]; s != nil {
			b.drop(s)
		}
	}
}

func (b *Backlog) setActual(a *lrp.Actual) {
	s := b.known(name{Key: a.Key})
	s.tag, s.since, s.placementError, s.explanation = a.Tag, a.Since, a.PlacementError, a.Explanation
	b.set(s, a.State == lrp.Unclaimed, a.Cell)
}

func (b *Backlog) setTask(t *task.Task) {
	n := taskName(t.GUID)
	if t.State != task.Pending && b.all[n] == nil {
		return // tasks that run or are over are nobody's work
	}
	s := b.known(n)
	if s.task == nil { // its definition never changes
		s.task = &cells.Task{
			Key: cells.TaskKey{GUID: n.task, Domain: t.Domain}, Resources: cells.Resources{MemoryMB: t.Definition.MemoryMB, DiskMB: t.Definition.DiskMB, Containers: 1},
			MaxPids: t.Definition.MaxPids, RootFS: t.Definition.RootFS, PlacementTags: t.Definition.PlacementTags,
			VolumeDrivers: lrp.Drivers(t.Definition.VolumeMounts),
		}
	}
	s.since = t.UpdatedAt
	b.set(s, t.State == task.Pending, t.Cell)
	if t.State != task.Pending && s.order == nil {
		b.drop(s)
	}
}

// known returns the work of a name.
func (b *Backlog) known(n name) *work {
	s := b.all[n]
	if s == nil {
		s = &work{name: n}
		b.all[n] = s
	}
	return s
}

// set records whether work waits for a cell, and otherwise which one has it.
func (b *Backlog) set(s *work, open bool, has lrp.CellID) {
	was := s.open
	s.open = open
	if !open {
		delete(b.fresh, s)
		delete(b.failed, s)
		s.reported, s.refusals, s.lastWord = "", nil, ""
		if o := s.order; o != nil {
			o.claimed = true
			if o.shown || has != o.cell {
				b.clear(s)
			}
		}
		return
	}
	if s.order != nil && s.order.claimed { // it was claimed and is free again
		b.clear(s)
	}
	if !was {
		s.adopted, s.reported, s.retryAt = false, "", time.Time{}
		b.retry(s)
	}
}

// retry lets work take part in the next auction, unless it is on its way.
func (b *Backlog) retry(s *work) {
	if s.open && s.order == nil {
		delete(b.failed, s)
		b.fresh[s] = struct{}{}
	}
}

func (b *Backlog) drop(s *work) {
	b.clear(s)
	s.open = false
	delete(b.all, s.name)
	delete(b.fresh, s)
	delete(b.failed, s)
}

// clear ends what is on its way: what was kept for it is free.
func (b *Backlog) clear(s *work) {
	o := s.order
	if o == nil {
		return
	}
	s.order = nil
	b.coming--
	if c := b.cells[o.cell]; c != nil {
		delete(c.coming, s)
		if !o.shown {
			b.changed(o.cell)
		}
	}
}

// again lets work that was on its way be placed anew at once.
func (b *Backlog) again(s *work) {
	b.clear(s)
	b.retry(s)
	b.moreRoom()
}

// send puts work on its way.
func (b *Backlog) send(s *work, o order) {
	s.order, s.retryAt = &o, time.Time{}
	b.coming++
	delete(b.fresh, s)
	delete(b.failed, s)
	b.cells[o.cell].coming[s] = struct{}{}
	b.alarms.set(s, o.until)
}

// moreRoom notes that work which fitted nowhere may fit now.
func (b *Backlog) moreRoom() { b.stale = b.stale || len(b.failed) > 0 }
