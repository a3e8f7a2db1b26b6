package bbs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/bbs/converge"
	"muster/bbs/internal/callback"
	"muster/bbs/internal/hub"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

const (
	// convergeRetry is the wait before a comparison that failed is tried again.
	convergeRetry = time.Second
	// convergeTrace is the trace id of what convergence does.
	convergeTrace = "converger"
	// convergeLease is the lease under which it is done.
	convergeLease = "bbs"
	// domainsEvery is how often it is looked whether a domain became fresh.
	domainsEvery = time.Second
	// earlyPause is the least time between full comparisons that are made before their time, because
	// a domain became fresh.
	earlyPause = 5 * time.Second
	// fullShare: every so many intervals everything is compared, even if the log says that nothing
	// changed.
	fullShare = 20
	// compareTime bounds the reading of what is compared, which takes some seconds for a million instances: a
	// network that swallows what is sent must not end convergence for good.
	compareTime = time.Minute
	// stepLines is how many steps are logged one by one in stepTime, plans as a whole; of others, only how
	// many.
	stepLines = 50
	stepTime  = 10 * time.Second
)

// Witness asks somebody else than the database which cells are there; not known when there is no
// answer. What cannot be had back is destroyed only when both agree that a cell is gone.
type Witness func(context.Context) (present map[lrp.CellID]bool, known bool)

// converger repairs what is not as it should be, in one term of leadership.
//
//	log of changes ── follow ──┬─ completed tasks ── callbacks ────────────────────────┐
//	                           ├─ cells that fell silent or came back ── repairCells ──┤
//	                           └─ crashed instances ── restarts ──┐                    ├── store
//	clock ── ticks ── everything, or a glance that nothing changed ┴───────────────────┘
type converger struct {
	log     *slog.Logger
	store   *store.Store
	hub     *hub.Hub
	metrics *metrics
	options ConvergeOptions
	call    store.Call // carries the fence

	restart   *restarts
	changed   *changedCells
	repairing sync.Mutex // held while cells that came or went are dealt with
	callbacks *callback.Pool
	early     chan struct{} // capacity 1: compare everything soon
	lines     lineBudget
	seen      seen
	// left is set when something that was due was not done: the next tick compares everything, though
	// nothing in the log tells of it.
	left atomic.Bool
	// Which cells were listed when they were last looked at, and since when none vanished from there.
	listed        map[lrp.CellID]cells.Sight
	completeSince time.Time
}

// ConvergeOptions are what a converger needs to know beside its store.
type ConvergeOptions struct {
	Interval time.Duration // between full comparisons
	Grace    time.Duration // how long a cell must have been lost before what cannot be had back goes
	Tasks    task.Policy
	Witness  Witness // nil: there is none
	// Heard returns since when heartbeats can be stored without interruption; zero: they cannot.
	Heard func() time.Time
	// TLS is how receivers of callbacks are met, CallbackWorkers how many at a time, and CallbackTimeout
	// bounds one request to them; zero: as callback.Options has it.
	TLS             *tls.Config
	CallbackWorkers int
	CallbackTimeout time.Duration
}

// seen is what the last full comparison saw.
type seen struct {
	revision uint64
	fresh    map[lrp.Domain]bool
	due      time.Time // when something becomes due if nothing changes; zero: never
	at       time.Time // zero: nothing was compared yet
}

func newConverger(log *slog.Logger, st *store.Store, h *hub.Hub, m *metrics, o ConvergeOptions, f store.Fence) *converger {
	c := &converger{
		log: log, store: st, hub: h, metrics: m, options: o, call: store.Call{TraceID: convergeTrace, Fence: f},
		restart: newRestarts(), changed: newChangedCells(), early: make(chan struct{}, 1),
	}
	c.callbacks = callback.New(callback.Options{
		Store: st, Log: log, Fence: f, TLS: o.TLS, Kick: o.Tasks.Kick, Timeout: o.CallbackTimeout, Workers: o.CallbackWorkers, Done: c.calledBack,
		Dropped: func() {
			m.callbacksDropped.Inc()
			c.left.Store(true)
		},
	})
	return c
}

// calledBack notes how a callback ended. One that was put off left no trace in the log, perhaps.
func (c *converger) calledBack(o callback.Outcome, took time.Duration) {
	c.metrics.calledBack(o, took)
	if o == callback.Later {
		c.left.Store(true)
	}
}

// run repairs until ctx ends, or until somebody else is found to have the lease.
func (c *converger) run(ctx context.Context) error {
	c.metrics.leading.Set(1)
	c.metrics.callbacks.Store(c.callbacks)
	defer func() {
		c.metrics.callbacks.Store(nil)
		c.metrics.reset()
	}()
	// Before anything is read: what happens from here on is seen.
	revision := c.hub.Newest()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.follow(ctx, revision) })
	g.Go(func() error { return c.repairCells(ctx) })
	g.Go(func() error { return c.ticks(ctx) })
	g.Go(func() error { return c.callbacks.Run(ctx) })
	return g.Wait()
}

// ticks does what time brings about.
func (c *converger) ticks(ctx context.Context) error {
	full := time.NewTimer(0)
	defer full.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	domains := time.NewTicker(domainsEvery)
	defer domains.Stop()
	for {
		if at, ok := c.restart.next(); ok {
			due.Reset(time.Until(at))
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.early:
			full.Reset(0)
		case <-c.restart.sooner:
		case <-domains.C:
			c.lookAtDomains(ctx)
		case <-due.C:
			if err = c.restartDue(ctx, time.Now()); err != nil {
				full.Reset(convergeRetry)
			}
		case <-full.C:
			var wait time.Duration
			wait, err = c.tick(ctx)
			full.Reset(wait)
		}
		if errors.Is(err, store.ErrFenced) {
			return err
		}
	}
}

// restartDue restarts what is due. If that fails, the next tick finds it again.
func (c *converger) restartDue(ctx context.Context, now time.Time) error {
	err := c.take(ctx, c.restart.take(now))
	if err != nil {
		c.left.Store(true)
	}
	return err
}

// tick compares everything, unless nothing can have changed. It returns when the next one is due.
func (c *converger) tick(ctx context.Context) (time.Duration, error) {
	if c.options.Heard().IsZero() {
		return convergeRetry, nil // the database does not answer; why was said when it began
	}
	start := time.Now()
	quiet, err := c.quiet(ctx, start)
	if err == nil && quiet {
		c.metrics.converged(quietTick, time.Since(start))
		return c.untilNext(time.Now()), nil
	}
	steps := 0
	if err == nil {
		steps, err = c.compare(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return convergeRetry, ctx.Err()
	case err != nil:
		c.log.Warn("compare everything", "error", err)
		return convergeRetry, err
	}
	took := time.Since(start)
	c.metrics.converged(fullPass, took)
	c.log.Info("converged", "revision", c.seen.revision, "steps", steps, "took", took)
	if steps >= converge.MaxSteps {
		return 0, nil // there is more to do
	}
	return c.untilNext(time.Now()), nil
}

// quiet tells whether a full comparison would find what the last one found: nothing to do.
func (c *converger) quiet(ctx context.Context, now time.Time) (bool, error) {
	if c.left.Load() || c.seen.at.IsZero() || now.Sub(c.seen.at) > fullShare*c.options.Interval {
		return false, nil
	}
	g, err := c.glance(ctx)
	if err != nil {
		return false, err
	}
	due := !c.seen.due.IsZero() && !now.Before(c.seen.due)
	return g.Revision == c.seen.revision && !due && !c.newlyFresh(g.Fresh), nil
}

func (c *converger) glance(ctx context.Context) (store.Glance, error) {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	return c.store.Glance(ctx)
}

func (c *converger) newlyFresh(domains []lrp.Domain) bool {
	for _, d := range domains {
		if !c.seen.fresh[d] {
			return true
		}
	}
	return false
}

// untilNext returns the wait until the next tick: the interval, or less when something is due sooner.
func (c *converger) untilNext(now time.Time) time.Duration {
	wait := c.options.Interval
	if due := c.seen.due; !due.IsZero() && due.After(now) {
		wait = min(wait, due.Sub(now))
	}
	return wait
}

// lookAtDomains compares soon what a domain that became fresh may no longer want.
func (c *converger) lookAtDomains(ctx context.Context) {
	if c.seen.at.IsZero() || time.Since(c.seen.at) < earlyPause {
		return
	}
	g, err := c.glance(ctx)
	if err == nil && c.newlyFresh(g.Fresh) { // what fails here fails in the next tick too, and says so
		c.soon()
	}
}

// soon makes ticks compare everything now.
func (c *converger) soon() {
	select {
	case c.early <- struct{}{}:
	default: // it is going to
	}
}

// compare is one full comparison: it reads, plans and takes the steps, and returns how many there were.
func (c *converger) compare(ctx context.Context) (int, error) {
	c.repairing.Lock()
	c.repairing.Unlock() // what is noted from now on is dealt with at the same time
	done := false
	c.left.Store(false) // set again by whoever leaves something from now on
	defer func() {
		if !done {
			c.left.Store(true)
		}
	}()
	reading, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	found, err := c.store.Compare(reading, c.options.Grace)
	if err != nil {
		return 0, err
	}
	c.doubt(ctx, &found.Cells)
	now := found.At // and not later: what became due since then is not among what was found
	for _, a := range found.Crashed {
		c.restart.add(a, now)
	}
	steps := converge.Plan(found.Snapshot, now)
	taskWorld := task.Snapshot{Tasks: found.Tasks, Cells: found.Cells, Grace: c.options.Grace, Policy: c.options.Tasks}
	taskSteps := task.Plan(taskWorld, now)
	c.metrics.counted(found, steps, taskSteps)
	if err := c.take(ctx, steps); err != nil {
		return len(steps), err
	}
	if err := c.takeTasks(ctx, taskSteps); err != nil {
		return len(steps), err
	}
	for _, t := range task.Callbacks(taskWorld, now) {
		c.callbacks.Submit(t, convergeTrace)
	}
	c.seen = seen{revision: found.Revision, fresh: map[lrp.Domain]bool{}, at: now}
	for _, d := range found.Fresh {
		c.seen.fresh[d] = true
	}
	c.seen.dueAt(converge.Next(found.Snapshot, now))
	taskWorld.Tasks = append(taskWorld.Tasks, found.Waiting...)
	c.seen.dueAt(task.Next(taskWorld, now))
	// The second witness changes its mind without any entry in the log.
	c.seen.dueAt(now.Add(c.options.Interval), anyDoubted(found.Cells))
	done = true
	return max(len(steps), len(taskSteps)), nil
}

func anyDoubted(p cells.Presences) bool {
	for _, sight := range p.Cells {
		if sight.Doubted {
			return true
		}
	}
	return false
}

// dueAt notes that something becomes due.
func (s *seen) dueAt(at time.Time, ok bool) {
	if ok && (s.due.IsZero() || at.Before(s.due)) {
		s.due = at
	}
}

// doubt adds what else is known of the cells: since when the records of them are complete, and what the
// second witness says.
func (c *converger) doubt(ctx context.Context, p *cells.Presences) {
	p.Since = c.complete(p.Cells, time.Now())
	if c.options.Witness == nil {
		return
	}
	present, known := c.options.Witness(ctx)
	if !known {
		p.Since = time.Time{} // a cell that nobody lists may be there
	}
	for id, sight := range p.Cells {
		sight.Doubted = !sight.LostAt.IsZero() && (!known || present[id])
		p.Cells[id] = sight
	}
	if !known || p.Since.IsZero() {
		return
	}
	for id := range present {
		if _, listed := p.Cells[id]; !listed {
			p.Cells[id] = cells.Sight{LostAt: p.Since.Add(cells.Settle), Doubted: true}
		}
	}
}

// complete returns since when every cell that can be heard of is among those listed: since heartbeats can
// be stored, since this term began to look, and since a record of a cell vanished, as all do when the
// table is wiped. Zero: nobody can be heard.
func (c *converger) complete(listed map[lrp.CellID]cells.Sight, now time.Time) time.Time {
	wiped := c.listed == nil
	for id := range c.listed {
		if _, still := listed[id]; !still {
			wiped = true
		}
	}
	if wiped {
		c.completeSince = now
	}
	c.listed = maps.Clone(listed)
	heard := c.options.Heard()
	if heard.IsZero() || heard.After(c.completeSince) {
		return heard
	}
	return c.completeSince
}
