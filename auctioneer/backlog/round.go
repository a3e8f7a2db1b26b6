package backlog

import (
	"slices"
	"strings"
	"time"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

// Order is work for one cell, most important first.
type Order struct {
	Cell      lrp.CellID
	Attempt   uint64 // to be given back with the answer
	Instances []cells.Instance
	// Since tells for each instance since when its slot has been waiting.
	Since []time.Time
}

// Round is what one auction leads to.
type Round struct {
	Work    int // pieces that took part
	Orders  []Order
	Refused []auction.Refusal
	// Failures are the events to report: placement errors that the BBS does not have yet.
	Failures []lrp.Event
}

// Round holds an auction over everything that is due; often nothing is.
func (b *Backlog) Round(now time.Time) Round {
	b.expire(now)
	if !b.ready(now) {
		return Round{}
	}
	due := b.due(now)
	if len(due) == 0 {
		return Round{}
	}
	res := auction.Run(due, b.states(), b.weights)
	round := Round{Work: len(due)}
	b.attempts++
	for _, p := range res.Placed {
		b.place(&round, p, now)
	}
	for _, r := range res.Refused {
		b.refuse(&round, r, now)
	}
	return round
}

// ready tells whether the states of all cells are known, or have been waited for long enough.
func (b *Backlog) ready(now time.Time) bool {
	if b.settled || !b.loaded {
		return b.settled
	}
	b.settled = !now.Before(b.settledAt)
	if !b.settled && len(b.cells) > 0 {
		b.settled = true
		for _, c := range b.cells {
			b.settled = b.settled && c.heard
		}
	}
	return b.settled
}

// expire frees the slots whose claim has been waited for long enough.
func (b *Backlog) expire(now time.Time) {
	for _, s := range b.coming {
		if !now.Before(s.order.until) {
			b.again(s)
		}
	}
}

// due returns the work of the next auction.
func (b *Backlog) due(now time.Time) []auction.Work {
	var work []auction.Work
	retry := !now.Before(b.retriedAt.Add(b.limits.RetryPause))
	retried := false
	for _, s := range b.waiting {
		p, ok := b.wanted(s)
		if !ok || s.order != nil {
			continue
		}
		if s.tried {
			changed := s.triedWith != b.generation && retry
			if !changed && now.Before(s.retryAt) {
				continue
			}
			retried = true
		}
		work = append(work, auction.Work{Instance: s.instance(p), Avoid: b.avoid(s, now)})
	}
	if retried {
		b.retriedAt = now
	}
	return work
}

// wanted returns what the process of a slot wants; false when there is no such process.
func (b *Backlog) wanted(s *slot) (lrp.SchedulingInfo, bool) {
	p, ok := b.processes[s.key.Process]
	return p, ok && p.Domain == s.key.Domain
}

// instance is what a cell is asked to take on.
func (s *slot) instance(p lrp.SchedulingInfo) cells.Instance {
	return cells.Instance{
		Key: s.key, TraceID: s.trace, Resources: cells.Resources{MemoryMB: p.MemoryMB, DiskMB: p.DiskMB, Containers: 1},
		MaxPids: p.MaxPids, RootFS: p.RootFS, PlacementTags: p.PlacementTags, VolumeDrivers: p.VolumeDrivers,
	}
}

// avoid returns the cells that refused a slot and are not to be asked again yet.
func (b *Backlog) avoid(s *slot, now time.Time) []lrp.CellID {
	var ids []lrp.CellID
	for id, r := range s.refusals {
		c := b.cells[id]
		if c == nil {
			delete(s.refusals, id)
		} else if c.number == r.state || now.Before(r.until) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// states returns the cells as they will be when everything on its way has arrived.
func (b *Backlog) states() []cells.State {
	coming := map[lrp.CellID][]cells.Instance{}
	for _, s := range b.coming {
		if !s.order.shown {
			coming[s.order.cell] = append(coming[s.order.cell], s.order.instance)
		}
	}
	var states []cells.State
	for id, c := range b.cells {
		if c.state == nil {
			continue
		}
		st := *c.state
		for _, i := range coming[id] {
			st.Available = st.Available.Sub(i.Resources)
			st.Available.MemoryMB -= st.ProxyMemoryAllocationMB
			st.StartingContainers++
			st.Instances = append(slices.Clip(st.Instances), i)
		}
		states = append(states, st)
	}
	return states
}

func (b *Backlog) place(round *Round, p auction.Placement, now time.Time) {
	s := b.slots[p.Work.Key]
	s.order = &order{
		cell: p.Cell, attempt: b.attempts, instance: p.Work.Instance,
		until: now.Add(b.limits.PerformTimeout + b.limits.ClaimWait),
	}
	s.tried = false
	b.coming[s.key] = s
	i := slices.IndexFunc(round.Orders, func(o Order) bool { return o.Cell == p.Cell })
	if i < 0 {
		i = len(round.Orders)
		round.Orders = append(round.Orders, Order{Cell: p.Cell, Attempt: b.attempts})
	}
	o := &round.Orders[i]
	o.Instances, o.Since = append(o.Instances, p.Work.Instance), append(o.Since, s.since)
}

func (b *Backlog) refuse(round *Round, r auction.Refusal, now time.Time) {
	s := b.slots[r.Work.Key]
	s.tried, s.triedWith, s.retryAt = true, b.generation, now.Add(b.limits.RetryInterval)
	if r.Seen.Avoided > 0 {
		if s.lastWord != "" {
			r.Reason = s.lastWord
		}
		for _, f := range s.refusals {
			if f.until.After(now) && f.until.Before(s.retryAt) {
				s.retryAt = f.until
			}
		}
	}
	round.Refused = append(round.Refused, r)
	if r.Reason == s.reported || sameStored(s.placementError, r.Reason) {
		return
	}
	s.reported = r.Reason
	round.Failures = append(round.Failures, lrp.Event{Name: lrp.Fail, Key: s.key, Reason: r.Reason})
}

// sameStored tells whether stored is what the BBS keeps of a reason: long ones are cut.
func sameStored(stored, reason string) bool {
	return stored == reason || stored != "" && len(reason) > lrp.MaxReasonBytes && strings.HasPrefix(reason, stored)
}

// Fate is what is known of an order after the call.
type Fate int

// The fates.
const (
	Delivered Fate = iota // the cell answered: what it did not refuse, it took
	Undone                // the cell did nothing
	Unknown               // the call ended without an answer: the work may have arrived
)

// Answered records how the call for an order ended, and what the cell refused.
func (b *Backlog) Answered(o Order, refused []cells.Refusal, fate Fate, now time.Time) {
	reasons := map[lrp.Key]string{}
	for _, r := range refused {
		reasons[r.Instance.Key] = r.Reason
	}
	for _, i := range o.Instances {
		s := b.slots[i.Key]
		if s == nil || s.order == nil || s.order.attempt != o.Attempt {
			continue
		}
		reason, no := reasons[i.Key]
		switch {
		case no || fate == Undone:
			b.refusedBy(s, o.Cell, reason, now)
		default:
			s.order.until = now.Add(b.limits.ClaimWait)
		}
	}
}

func (b *Backlog) refusedBy(s *slot, id lrp.CellID, reason string, now time.Time) {
	b.again(s)
	s.lastWord = reason
	c := b.cells[id]
	if c == nil {
		return
	}
	if s.refusals == nil {
		s.refusals = map[lrp.CellID]*refusal{}
	}
	r := s.refusals[id]
	if r == nil {
		r = &refusal{}
		s.refusals[id] = r
	}
	if r.times > 0 {
		r.until = now.Add(min(minRefusalWait<<min(r.times-1, 16), maxRefusalWait))
	}
	r.times++
	r.state = c.number
	c.refused = true
}

// NotReported records that a failure could not be reported: it is reported again with the next try.
func (b *Backlog) NotReported(key lrp.Key) {
	if s := b.slots[key]; s != nil {
		s.reported = ""
	}
}

// Next returns when Round is to be called even if nothing happens. ok is false when nothing is to come.
func (b *Backlog) Next(now time.Time) (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if b.loaded && !b.settled {
		earliest(b.settledAt)
		return at, ok
	}
	for _, s := range b.coming {
		earliest(s.order.until)
	}
	for _, s := range b.waiting {
		switch _, wanted := b.wanted(s); {
		case !wanted || s.order != nil || !s.tried:
		case s.triedWith != b.generation:
			earliest(b.retriedAt.Add(b.limits.RetryPause))
		default:
			earliest(s.retryAt)
		}
	}
	return at, ok
}

// Counts tells how many slots wait for a cell without one being tried, how many are on their way, and
// how many cells take part.
func (b *Backlog) Counts() (waiting, coming, present int) {
	for _, s := range b.waiting {
		if _, wanted := b.wanted(s); wanted && s.order == nil {
			waiting++
		}
	}
	for _, c := range b.cells {
		if c.state != nil {
			present++
		}
	}
	return waiting, len(b.coming), present
}
