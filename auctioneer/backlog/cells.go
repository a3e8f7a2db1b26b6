package backlog

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

// cell is a cell that is present.
type cell struct {
	state  *cells.State // nil: not known
	number uint64       // of states received
	heard  bool         // answered, or failed to, since it appeared
	// refused: it refused work on this state, so that the next one is worth a try even if it looks
	// the same.
	refused   bool
	coming    map[*work]struct{} // on its way to it
	complaint string             // about its state, as it was said last
}

// CellPresent records that a cell is there; nothing is placed on it before its state is known.
func (b *Backlog) CellPresent(id lrp.CellID, now time.Time) {
	if b.cells[id] != nil {
		return
	}
	if len(b.cells) == 0 {
		b.blindUntil = now.Add(b.limits.BlindWait)
	}
	b.cells[id] = &cell{coming: map[*work]struct{}{}}
}

// blind tells whether cells are present and none of them is heard of, for so short a time that they are most
// likely about to be: they were started or upgraded a moment ago, with this auctioneer perhaps.
func (b *Backlog) blind(now time.Time) bool {
	return b.answering == 0 && len(b.cells) > 0 && now.Before(b.blindUntil)
}

// CellGone records that a cell is not there any more. What was on its way to it is placed anew.
func (b *Backlog) CellGone(id lrp.CellID) {
	c := b.cells[id]
	if c == nil {
		return
	}
	delete(b.cells, id)
	if c.state != nil {
		b.answering--
	}
	b.changed(id)
	for s := range c.coming {
		b.again(s)
	}
}

// CellSilent records that a cell's state cannot be had now: it takes no part until it can.
func (b *Backlog) CellSilent(id lrp.CellID, now time.Time) {
	c := b.cells[id]
	if c == nil {
		return
	}
	if c.state != nil {
		if b.answering--; b.answering == 0 {
			b.blindUntil = now.Add(b.limits.BlindWait)
		}
	}
	c.state, c.heard = nil, true
	b.changed(id)
	for s := range c.coming {
		s.order.held = false
	}
}

// CellState records the state of a cell. The error says what is wrong with it, once. A state of another
// cell is not taken, and nothing is known of the cell then.
func (b *Backlog) CellState(id lrp.CellID, st cells.State, now time.Time) error {
	c := b.cells[id]
	if c == nil {
		return nil // it left in the meantime
	}
	if st.Cell != "" && st.Cell != id {
		b.CellSilent(id, now)
		return c.complain(fmt.Errorf("cell %s answers as %s: two cells may have one address, or one id", id, st.Cell))
	}
	st.Cell = id
	if c.refused || mayFitMore(c.state, st) {
		b.moreRoom()
	}
	if !c.heard && b.loaded && !b.settled {
		b.settledAt = earlier(now.Add(b.limits.Settle), b.settleEnd)
	}
	if c.state == nil {
		b.answering++
	}
	c.refused = false
	c.state, c.heard = &st, true
	c.number++
	b.changed(id)
	b.reconcile(id, c, now)
	return c.complain(auction.CheckState(st))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// complain returns an error unless it was returned before.
func (c *cell) complain(err error) error {
	if err == nil {
		c.complaint = ""
		return nil
	}
	if c.complaint == err.Error() {
		return nil
	}
	c.complaint = err.Error()
	return err
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
func (b *Backlog) reconcile(id lrp.CellID, c *cell, now time.Time) {
	if len(c.coming)+len(b.fresh)+len(b.failed) == 0 {
		return // nothing is on its way, and nothing waits that the cell could have
	}
	has := make(map[name]bool, len(c.state.Instances)+len(c.state.Tasks))
	for _, i := range c.state.Instances {
		if i.State == cells.InstanceClaimed || i.State == cells.InstanceRunning {
			has[name{Key: i.Key}] = true
			b.adopt(id, name{Key: i.Key}, auction.Work{Instance: i}, now)
		}
	}
	for i := range c.state.Tasks {
		t := c.state.Tasks[i]
		has[name{task: t.Key.GUID}] = true
		b.adopt(id, name{task: t.Key.GUID}, auction.Work{Task: &t}, now)
	}
	for s := range c.coming {
		switch o := s.order; {
		case has[s.name] && o.claimed:
			b.clear(s)
		case has[s.name]:
			o.shown, o.held = true, true
		case o.shown: // it had it and has it no more, without a claim
			b.again(s)
		case o.held && !now.Before(o.answer.Add(b.limits.ClaimWait)): // no state is that late
			b.again(s)
		}
	}
}

// adopt takes work that waits for ordered when a cell has it: an auctioneer before this one ordered it, and
// the claim is about to come.
func (b *Backlog) adopt(id lrp.CellID, n name, w auction.Work, now time.Time) {
	s := b.all[n]
	if s == nil || !s.open || s.order != nil || s.adopted {
		return
	}
	s.adopted = true
	b.send(s, order{cell: id, work: w, until: now.Add(b.limits.ClaimWait), last: now.Add(b.limits.HeldWait), held: true, shown: true})
}

// changed notes that the fleet knows something old of a cell.
func (b *Backlog) changed(id lrp.CellID) { b.dirty[id] = struct{}{} }

// refresh tells the fleet what has changed: the cells as they will be when everything on its way has
// arrived.
func (b *Backlog) refresh() {
	for id := range b.dirty {
		if c := b.cells[id]; c == nil || c.state == nil {
			b.fleet.Remove(id)
		} else {
			_ = b.fleet.Set(c.expected()) // CellState has complained about what came
		}
	}
	clear(b.dirty)
}

// expected returns the state of a cell with what is on its way to it.
func (c *cell) expected() cells.State {
	st := *c.state
	st.Instances, st.Tasks = slices.Clip(st.Instances), slices.Clip(st.Tasks)
	for s := range c.coming {
		if s.order.shown {
			continue
		}
		st.StartingContainers++
		if t := s.order.work.Task; t != nil {
			st.Available = st.Available.Sub(t.Resources)
			st.Tasks = append(st.Tasks, *t)
			continue
		}
		st.Available = st.Available.Sub(s.order.work.Resources)
		st.Available.MemoryMB -= st.ProxyMemoryAllocationMB
		st.Instances = append(st.Instances, s.order.work.Instance)
	}
	return st
}
