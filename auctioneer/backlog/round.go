package backlog

import (
	"slices"
	"strings"
	"time"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// maxOrder is how many pieces of work are ordered from a cell with one call; a cell takes no more.
const maxOrder = 1024

// Order is work for one cell, most important first.
type Order struct {
	Cell      lrp.CellID
	Attempt   uint64 // to be given back with the answer
	Instances []cells.Instance
	Tasks     []cells.Task
	// Since tells for each piece since when it has been waiting.
	Since []time.Time
}

// Round is what one auction leads to.
type Round struct {
	Work    int // pieces that took part
	Orders  []Order
	Refused []auction.Refusal
	// Failures are the events to report: placement errors and explanations that the BBS does not have yet.
	Failures []lrp.Event
	// Rejections are the same of tasks.
	Rejections []task.Event
}

// Round holds an auction over everything that is due; often nothing is.
func (b *Backlog) Round(now time.Time) Round {
	for s := b.alarms.take(now); s != nil; s = b.alarms.take(now) {
		switch o := s.order; {
		case o == nil:
			b.retry(s)
		case o.held && now.Before(o.last):
			b.wait(s, now)
		default:
			b.again(s) // nobody claimed it
		}
	}
	if !b.ready(now) || b.blind(now) {
		return Round{}
	}
	due := b.due(now)
	if len(due) == 0 {
		return Round{}
	}
	b.refresh()
	placed, refused := b.fleet.Place(due)
	round := Round{Work: len(due), Refused: refused}
	b.attempts++
	b.order(&round, placed, now)
	b.refuse(&round, now)
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

// due returns the work of the next auction.
func (b *Backlog) due(now time.Time) []auction.Work {
	if b.stale && !now.Before(b.retryStale()) {
		b.stale, b.retriedAt = false, now
		for s := range b.failed {
			b.retry(s)
		}
	}
	if len(b.fresh) == 0 {
		return nil
	}
	due := make([]auction.Work, 0, len(b.fresh))
	for s := range b.fresh {
		if w, wanted := b.workOf(s); wanted {
			w.Avoid = b.avoid(s, now)
			due = append(due, w)
		}
	}
	return due
}

// retryStale is when work that fitted nowhere may be tried again because there may be more room.
func (b *Backlog) retryStale() time.Time {
	pause := b.limits.RetryPause + time.Duration(len(b.failed))*retryCost
	return b.retriedAt.Add(max(b.limits.RetryPause, min(pause, maxRetryPause)))
}

// workOf returns what a cell is asked to take on; false when nobody wants it.
func (b *Backlog) workOf(s *work) (auction.Work, bool) {
	if s.task != nil {
		t := *s.task
		t.TraceID = s.trace
		return auction.Work{Task: &t}, true
	}
	p, ok := b.processes[s.Process]
	if !ok || p.Domain != s.Domain {
		return auction.Work{}, false
	}
	return auction.Work{Instance: cells.Instance{
		Key: s.Key, TraceID: s.trace, Resources: cells.Resources{MemoryMB: p.MemoryMB, DiskMB: p.DiskMB, Containers: 1},
		MaxPids: p.MaxPids, RootFS: p.RootFS, PlacementTags: p.PlacementTags, VolumeDrivers: p.VolumeDrivers,
	}}, true
}

// avoid returns the cells that refused work and are not to be asked again yet.
func (b *Backlog) avoid(s *work, now time.Time) []lrp.CellID {
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

// nameOf returns the name of work.
func nameOf(w *auction.Work) name {
	if w.Task != nil {
		return name{task: w.Task.Key.GUID}
	}
	return name{Key: w.Key}
}

// order sends what was placed, one order for each cell.
func (b *Backlog) order(round *Round, placed []auction.Placement, now time.Time) {
	at := map[lrp.CellID]int{}
	for _, p := range placed {
		s := b.all[nameOf(p.Work)]
		b.send(s, order{cell: p.Cell, attempt: b.attempts, work: *p.Work, until: now.Add(b.limits.PerformTimeout + b.limits.ClaimWait), last: now.Add(b.limits.HeldWait)})
		i, known := at[p.Cell]
		if !known || len(round.Orders[i].Since) == maxOrder {
			i = len(round.Orders)
			at[p.Cell], round.Orders = i, append(round.Orders, Order{Cell: p.Cell, Attempt: b.attempts})
		}
		o := &round.Orders[i]
		if p.Work.Task != nil {
			o.Tasks = append(o.Tasks, *p.Work.Task)
		} else {
			o.Instances = append(o.Instances, p.Work.Instance)
		}
		o.Since = append(o.Since, s.since)
	}
}

// refuse notes what was not placed, and what of that is to be reported.
func (b *Backlog) refuse(round *Round, now time.Time) {
	if len(b.failed) == 0 {
		b.retriedAt = now
	}
	explanations := map[*auction.Explanation]*lrp.Explanation{} // many share one
	for i := range round.Refused {
		r := &round.Refused[i]
		s := b.all[nameOf(r.Work)]
		delete(b.fresh, s)
		b.failed[s] = struct{}{}
		b.awaitRetry(s, r.Seen.Avoided > 0, now)
		if r.Seen.Avoided > 0 && s.lastWord != "" {
			r.Reason = s.lastWord
		}
		if s.task != nil {
			b.reject(round, s, r, now)
			continue
		}
		why, known := explanations[r.Explanation]
		if !known {
			why = r.Explanation.Record()
			explanations[r.Explanation] = why
		}
		if b.news(s, r.Reason, why, now) {
			s.reported, s.reportAt = r.Reason, now.Add(b.limits.RetryInterval)
			round.Failures = append(round.Failures, lrp.Event{Name: lrp.Fail, Key: s.Key, Reason: r.Reason, Explanation: why})
		}
	}
}

// awaitRetry sets the alarm for the next try of work that fitted nowhere, unless it is set: the end of the
// shortest wait for a cell that refused it, or the safety net.
func (b *Backlog) awaitRetry(s *work, refused bool, now time.Time) {
	at := s.retryAt
	if !at.After(now) {
		at = now.Add(b.limits.RetryInterval)
	}
	if refused {
		for _, f := range s.refusals {
			if f.until.After(now) && f.until.Before(at) {
				at = f.until
			}
		}
	}
	if !at.Equal(s.retryAt) {
		s.retryAt = at
		b.alarms.set(s, at)
	}
}

// news tells whether the BBS is to be told of a placement error: it does not have it, or an explanation of it
// that is old.
func (b *Backlog) news(s *work, reason string, why *lrp.Explanation, now time.Time) bool {
	switch {
	case s.reported != reason && !sameStored(s.placementError, reason):
		return true
	case s.explanation != nil && *s.explanation == *why, now.Before(s.reportAt):
		return false
	}
	if !now.Before(b.renewsAt) {
		b.renewals, b.renewsAt = 0, now.Add(b.limits.RetryInterval)
	}
	b.renewals++
	return b.renewals <= maxRenewals
}

// sameStored tells whether stored is what the BBS keeps of a reason: long ones are cut.
func sameStored(stored, reason string) bool {
	return stored == reason || stored != "" && len(reason) > lrp.MaxReasonBytes && strings.HasPrefix(reason, stored)
}

// reject reports a task that was not placed, now and then. That others are starting is not its fault.
func (b *Backlog) reject(round *Round, s *work, r *auction.Refusal, now time.Time) {
	if r.MaxStarting > 0 || now.Before(s.reportAt) {
		return
	}
	s.reportAt = now.Add(b.limits.RetryInterval)
	round.Rejections = append(round.Rejections, task.Event{Name: task.Reject, GUID: task.GUID(s.task.Key.GUID), Reason: r.Reason})
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
	reasons := map[name]string{}
	for _, r := range refused {
		n := name{Key: r.Instance.Key}
		if r.Task != nil {
			n = name{task: r.Task.Key.GUID}
		}
		reasons[n] = r.Reason
	}
	answered := func(n name) {
		s := b.all[n]
		if s == nil || s.order == nil || s.order.attempt != o.Attempt {
			return
		}
		reason, no := reasons[n]
		if no || fate == Undone {
			b.refusedBy(s, o.Cell, reason, now)
			return
		}
		if fate == Delivered {
			s.order.held, s.order.answer = true, now
		}
		b.wait(s, now)
	}
	for i := range o.Instances {
		answered(name{Key: o.Instances[i].Key})
	}
	for i := range o.Tasks {
		answered(name{task: o.Tasks[i].Key.GUID})
	}
}

// wait lets work that is on its way be claimed.
func (b *Backlog) wait(s *work, now time.Time) {
	s.order.until = now.Add(b.limits.ClaimWait)
	b.alarms.set(s, s.order.until)
}

func (b *Backlog) refusedBy(s *work, id lrp.CellID, reason string, now time.Time) {
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
	if s := b.all[name{Key: key}]; s != nil {
		s.reported, s.reportAt = "", time.Time{}
	}
}

// NotRejected is NotReported for tasks.
func (b *Backlog) NotRejected(guid task.GUID) {
	if s := b.all[taskName(guid)]; s != nil {
		s.reportAt = time.Time{}
	}
}

// Next returns when Round is to be called even if nothing happens. ok is false when nothing is to come.
func (b *Backlog) Next(now time.Time) (at time.Time, ok bool) {
	if b.loaded && !b.settled {
		return b.settledAt, true
	}
	at, ok = b.alarms.next()
	sooner := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	switch {
	case b.blind(now): // then nothing is tried, whatever else is due
		if len(b.fresh)+len(b.failed) > 0 {
			sooner(b.blindUntil)
		}
	case b.stale:
		sooner(b.retryStale())
	}
	return at, ok
}

// Counts tells how much work waits for a cell without one being tried, how much is on its way, and how many
// cells take part.
func (b *Backlog) Counts() (waiting, coming, present int) {
	for _, c := range b.cells {
		if c.state != nil {
			present++
		}
	}
	return len(b.fresh) + len(b.failed), b.coming, present
}
