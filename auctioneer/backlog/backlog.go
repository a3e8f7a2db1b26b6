package backlog

import (
	"maps"
	"slices"
	"time"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

// Limits are the waits of the backlog.
type Limits struct {
	// Settle is how long the first auction waits for the states of the cells that are present, so
	// that not everything goes to the cell that answered first.
	Settle time.Duration
	// PerformTimeout bounds the call that orders work from a cell.
	PerformTimeout time.Duration
	// ClaimWait is how long a cell may take from accepting work, or from a call of which nobody
	// knows whether it arrived, until the BBS shows the claim. Then the slot is placed anew.
	ClaimWait time.Duration
	// RetryPause is the shortest time between two tries of work that was refused, when the cells
	// change all the time.
	RetryPause time.Duration
	// RetryInterval is the longest time between two tries: the safety net.
	RetryInterval time.Duration
}

// DefaultLimits returns the limits that the auctioneer uses.
func DefaultLimits() Limits {
	return Limits{
		Settle: time.Second, PerformTimeout: 5 * time.Second, ClaimWait: 5 * time.Second,
		RetryPause: 50 * time.Millisecond, RetryInterval: 30 * time.Second,
	}
}

// How long a cell that refused a slot is left alone with it: not at all after the first time (then
// only a new state counts), later doubling from minRefusalWait to maxRefusalWait.
const (
	minRefusalWait = 100 * time.Millisecond
	maxRefusalWait = 30 * time.Second
)

// Backlog is the state of an auctioneer.
type Backlog struct {
	limits  Limits
	weights auction.Weights

	processes map[lrp.ProcessGUID]lrp.SchedulingInfo
	slots     map[lrp.Key]*slot // ordinary instances in any state
	waiting   map[lrp.Key]*slot // those that are UNCLAIMED
	coming    map[lrp.Key]*slot // those on their way to a cell
	cells     map[lrp.CellID]*cell

	generation uint64 // of the cells: grows when work that was refused might fit
	attempts   uint64
	loaded     bool
	settledAt  time.Time // when the first auction is held at the latest
	settled    bool
	retriedAt  time.Time
}

// New returns an empty backlog, which does nothing before the first Load.
func New(l Limits, w auction.Weights) *Backlog {
	return &Backlog{
		limits: l, weights: w,
		processes: map[lrp.ProcessGUID]lrp.SchedulingInfo{},
		slots:     map[lrp.Key]*slot{}, waiting: map[lrp.Key]*slot{}, coming: map[lrp.Key]*slot{},
		cells: map[lrp.CellID]*cell{},
	}
}

// slot is what is known about the ordinary instance of a slot.
type slot struct {
	key            lrp.Key
	tag            lrp.ModificationTag
	unclaimed      bool
	since          time.Time
	placementError string // as the BBS has it
	reported       string // as it was sent last

	trace string // request id of the last change; empty when it came with a list

	tried     bool   // refused by the last auction it took part in
	triedWith uint64 // generation of that auction
	retryAt   time.Time
	order     *order
	adopted   bool // taken for ordered because a cell showed it, once since it is UNCLAIMED
	refusals  map[lrp.CellID]*refusal
	lastWord  string // what the cell said that refused it last
}

// order is a slot on its way to a cell.
type order struct {
	cell     lrp.CellID
	attempt  uint64
	instance cells.Instance
	until    time.Time
	shown    bool // the cell's state has it
	claimed  bool // the BBS showed a claim
}

// refusal is a cell that refused a slot.
type refusal struct {
	state uint64 // number of the state that was known then
	times int
	until time.Time
}

// cell is a cell that is present.
type cell struct {
	state  *cells.State // nil: not known
	number uint64       // of states received
	heard  bool         // answered, or failed to, since it appeared
	// refused: it refused work on this state, so that the next one is worth a try even if it looks
	// the same.
	refused bool
}

// World is what the BBS lists.
type World struct {
	Processes []lrp.SchedulingInfo
	Actuals   []lrp.Actual
	Cells     []lrp.CellID
}

// Load replaces what is known from the BBS by what it lists. What is on its way is remembered.
func (b *Backlog) Load(w World, now time.Time) {
	b.processes = make(map[lrp.ProcessGUID]lrp.SchedulingInfo, len(w.Processes))
	for _, p := range w.Processes {
		b.processes[p.Process] = p
	}
	listed := make(map[lrp.Key]bool, len(w.Actuals))
	for i := range w.Actuals {
		if w.Actuals[i].Presence == lrp.Ordinary {
			listed[w.Actuals[i].Key] = true
			b.set(&w.Actuals[i])
		}
	}
	for key, s := range b.slots {
		if !listed[key] {
			b.drop(s)
		}
	}
	present := make(map[lrp.CellID]bool, len(w.Cells))
	for _, id := range w.Cells {
		present[id] = true
		b.CellPresent(id)
	}
	for id := range b.cells {
		if !present[id] {
			b.CellGone(id)
		}
	}
	if !b.loaded {
		b.loaded, b.settledAt = true, now.Add(b.limits.Settle)
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
		if s := b.slots[c.After.Key]; s == nil || s.tag.SucceededBy(c.After.Tag) {
			b.set(c.After)
			b.slots[c.After.Key].trace = trace
		}
		return
	}
	if c.Before == nil || c.Before.Presence != lrp.Ordinary {
		return
	}
	s := b.slots[c.Before.Key]
	if s != nil && (s.tag == c.Before.Tag || s.tag.Epoch == c.Before.Tag.Epoch && s.tag.SucceededBy(c.Before.Tag)) {
		b.drop(s)
	}
}

func (b *Backlog) set(a *lrp.Actual) {
	s := b.slots[a.Key]
	if s == nil {
		s = &slot{key: a.Key}
		b.slots[a.Key] = s
	}
	was := s.unclaimed
	s.tag, s.since, s.placementError = a.Tag, a.Since, a.PlacementError
	s.unclaimed = a.State == lrp.Unclaimed
	if s.unclaimed {
		b.waiting[a.Key] = s
		if !was {
			s.tried, s.adopted, s.reported = false, false, ""
		}
		if s.order != nil && s.order.claimed { // it was claimed and is free again
			b.clear(s)
		}
		return
	}
	delete(b.waiting, a.Key)
	s.reported, s.refusals, s.lastWord = "", nil, ""
	if o := s.order; o != nil {
		o.claimed = true
		if o.shown || a.Cell != o.cell {
			b.clear(s)
		}
	}
}

func (b *Backlog) drop(s *slot) {
	b.clear(s)
	delete(b.slots, s.key)
	delete(b.waiting, s.key)
}

// clear ends what is on its way.
func (b *Backlog) clear(s *slot) {
	s.order = nil
	delete(b.coming, s.key)
}

// again lets a slot that was on its way be placed anew at once.
func (b *Backlog) again(s *slot) {
	b.clear(s)
	s.tried = false
	b.generation++ // what was kept for it is free
}

// CellPresent records that a cell is there; nothing is placed on it before its state is known.
func (b *Backlog) CellPresent(id lrp.CellID) {
	if b.cells[id] == nil {
		b.cells[id] = &cell{}
	}
}

// CellGone records that a cell is not there any more. What was on its way to it is placed anew.
func (b *Backlog) CellGone(id lrp.CellID) {
	delete(b.cells, id)
	for _, s := range b.coming {
		if s.order.cell == id {
			b.again(s)
		}
	}
}

// CellSilent records that a cell's state cannot be had now: it takes no part until it can.
func (b *Backlog) CellSilent(id lrp.CellID) {
	if c := b.cells[id]; c != nil {
		c.state, c.heard = nil, true
	}
}

// CellState records the state of a cell. It returns false, and knows nothing of the cell, when the
// state is that of another cell.
func (b *Backlog) CellState(id lrp.CellID, st cells.State, now time.Time) bool {
	c := b.cells[id]
	if c == nil {
		return true // gone in the meantime
	}
	if st.Cell != "" && st.Cell != id {
		b.CellSilent(id)
		return false
	}
	st.Cell = id
	if c.refused || mayFitMore(c.state, st) {
		b.generation++
	}
	c.refused = false
	c.state, c.heard = &st, true
	c.number++
	b.reconcile(id, st, now)
	return true
}

// mayFitMore tells whether work that was refused before might fit now.
func mayFitMore(old *cells.State, st cells.State) bool {
	return old == nil ||
		st.Available.MemoryMB > old.Available.MemoryMB || st.Available.DiskMB > old.Available.DiskMB ||
		st.Available.Containers > old.Available.Containers || st.StartingContainers < old.StartingContainers ||
		old.Evacuating && !st.Evacuating || old.UnhealthyReason != "" && st.UnhealthyReason == "" ||
		!sameOffers(old, st)
}

func sameOffers(old *cells.State, st cells.State) bool {
	sameNames := func(a, b cells.Provider) bool { return slices.Equal(a.Names, b.Names) }
	return old.Capacity == st.Capacity && old.Zone == st.Zone && old.ProxyMemoryAllocationMB == st.ProxyMemoryAllocationMB &&
		maps.EqualFunc(old.RootFSProviders, st.RootFSProviders, sameNames) &&
		slices.Equal(old.PlacementTags, st.PlacementTags) &&
		slices.Equal(old.OptionalPlacementTags, st.OptionalPlacementTags) &&
		slices.Equal(old.VolumeDrivers, st.VolumeDrivers)
}

// reconcile compares what is on its way to a cell with what the cell says it has.
func (b *Backlog) reconcile(id lrp.CellID, st cells.State, now time.Time) {
	has := make(map[lrp.Key]bool, len(st.Instances))
	for _, i := range st.Instances {
		if i.State != cells.InstanceClaimed && i.State != cells.InstanceRunning {
			continue
		}
		has[i.Key] = true
		// Ordered by an auctioneer before this one: the claim is about to come.
		if s := b.waiting[i.Key]; s != nil && s.order == nil && !s.adopted {
			s.adopted = true
			s.order = &order{cell: id, instance: i, until: now.Add(b.limits.ClaimWait), shown: true}
			b.coming[i.Key] = s
		}
	}
	for key, s := range b.coming {
		o := s.order
		switch {
		case o.cell != id:
		case has[key] && o.claimed:
			b.clear(s)
		case has[key]:
			o.shown = true
		case o.shown: // it had it and has it no more, without a claim
			b.again(s)
		}
	}
}
