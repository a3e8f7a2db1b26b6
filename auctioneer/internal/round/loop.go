package round

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/auctioneer/backlog"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// Limits of the loop.
const (
	// inputQueue bounds what may wait for the loop; more makes the senders wait.
	inputQueue = 1024
	// maxPerforms bounds the calls to cells under way.
	maxPerforms = 256
	// maxReports bounds the reports to the BBS under way.
	maxReports = 16
	// reportTimeout bounds one report.
	reportTimeout = 5 * time.Second
)

// Loop is one auctioneer. Make one with New, then call Run and Follow; it gives out work only during Work.
type Loop struct {
	Options
	in       chan func(context.Context)
	performs chan struct{}
	reports  chan struct{}
	wg       sync.WaitGroup
	watches  map[lrp.CellID]*watch // owned by the loop
	term     context.Context       // of Work; nil: none. Owned by the loop
}

// Options are what a loop works with; all are needed.
type Options struct {
	BBS     *bbsclient.Client
	Dial    Dial
	Backlog *backlog.Backlog
	// PerformTimeout bounds a call that orders work.
	PerformTimeout time.Duration
	// Relist is the time between full lists.
	Relist  time.Duration
	Metrics *Metrics
	Log     *slog.Logger
}

// New returns a loop that does nothing yet.
func New(o Options) *Loop {
	return &Loop{
		Options: o, in: make(chan func(context.Context), inputQueue),
		performs: make(chan struct{}, maxPerforms), reports: make(chan struct{}, maxReports),
		watches: map[lrp.CellID]*watch{},
	}
}

// tell hands something that happened to the loop, which runs it alone and with its own context.
func (l *Loop) tell(ctx context.Context, what func(context.Context)) {
	select {
	case l.in <- what:
	case <-ctx.Done():
	}
}

// Run decides round after round until ctx ends, and returns after everything it started has ended.
func (l *Loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer l.wg.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case what := <-l.in:
			what(ctx)
		case <-timer.C:
		}
		l.drain(ctx)
		l.round(ctx)
		timer.Stop()
		if at, ok := l.Backlog.Next(time.Now()); ok && l.working() {
			timer.Reset(max(time.Until(at), time.Millisecond))
		}
	}
}

// Work lets the loop give out work until ctx ends. Without it the loop knows all that it has to know, and decides
// nothing. What was ordered before the end is the cells' and the BBS's matter.
func (l *Loop) Work(ctx context.Context) error {
	l.tell(ctx, func(context.Context) { l.term = ctx })
	<-ctx.Done()
	return ctx.Err()
}

// working tells whether work may be given out; asked by the loop.
func (l *Loop) working() bool { return l.term != nil && l.term.Err() == nil }

// drain takes in what has arrived, so that one round decides about all of it.
func (l *Loop) drain(ctx context.Context) {
	for range inputQueue {
		select {
		case what := <-l.in:
			what(ctx)
		default:
			return
		}
	}
}

func (l *Loop) round(ctx context.Context) {
	if !l.working() {
		return
	}
	term, began := l.term, time.Now()
	r := l.Backlog.Round(began)
	l.Metrics.world(l.Backlog.Counts())
	if r.Work == 0 {
		return
	}
	l.Metrics.round(r, time.Since(began))
	level := slog.LevelInfo
	if len(r.Orders)+len(r.Failures)+len(r.Rejections) == 0 {
		level = slog.LevelDebug // tried again, and nothing is new: on full cells that is many times a second
	}
	l.Log.Log(ctx, level, "auction", "work", r.Work, "orders", len(r.Orders), "refused", len(r.Refused), "took", time.Since(began))
	for _, o := range r.Orders {
		w := l.watches[o.Cell]
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.perform(ctx, term, w, o)
		}()
	}
	if len(r.Failures)+len(r.Rejections) > 0 {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.report(ctx, term, r)
		}()
	}
}

// perform orders work from a cell, unless the term is over, and tells the loop how that ended.
func (l *Loop) perform(ctx, term context.Context, w *watch, o backlog.Order) {
	select {
	case l.performs <- struct{}{}:
		defer func() { <-l.performs }()
	case <-ctx.Done():
		return
	}
	began := time.Now()
	for _, since := range o.Since {
		l.Metrics.waited(began.Sub(since))
	}
	var refused []cells.Refusal
	fate, err := backlog.Undone, errCellGone
	if w != nil {
		pctx, cancel := context.WithTimeout(term, l.PerformTimeout)
		refused, err = w.rep.Perform(pctx, o.Cell, o.Instances, o.Tasks)
		cancel()
		fate = fateOf(err)
	}
	l.Metrics.performed(o, refused, err, time.Since(began))
	log := l.Log.With("cell_id", o.Cell, "instances", len(o.Instances), "tasks", len(o.Tasks), "trace_ids", traces(o), "took", time.Since(began))
	if err != nil {
		log.Warn("order ended without an answer", "error", err, "undone", fate == backlog.Undone)
	} else {
		log.Info("ordered", "refused", len(refused))
	}
	for _, r := range refused {
		log := l.Log.With("process_guid", r.Instance.Key.Process, "index", r.Instance.Key.Index)
		if r.Task != nil {
			log = l.Log.With("task_guid", r.Task.Key.GUID)
		}
		log.Info("cell refused work", "cell_id", o.Cell, "why", r.Reason)
	}
	l.tell(ctx, func(context.Context) { l.Backlog.Answered(o, refused, fate, time.Now()) })
}

// maxLoggedTraces is how many request ids the line about an order names.
const maxLoggedTraces = 8

// traces returns the request ids that made work necessary, once each.
func traces(o backlog.Order) []string {
	ids := []string{}
	add := func(id string) {
		if id != "" && len(ids) < maxLoggedTraces && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for i := range o.Instances {
		add(o.Instances[i].TraceID)
	}
	for i := range o.Tasks {
		add(o.Tasks[i].TraceID)
	}
	return ids
}

// fateOf tells what an error of an order says about the work. Only answers that a cell gives before
// it does anything prove that nothing was done.
func fateOf(err error) backlog.Fate {
	switch status.Code(err) {
	case codes.OK:
		return backlog.Delivered
	case codes.FailedPrecondition, codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return backlog.Undone
	}
	return backlog.Unknown
}

// report tells the BBS why work could not be placed, several pieces at a time, unless the term is over.
func (l *Loop) report(ctx, term context.Context, r backlog.Round) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, ev := range r.Failures {
		l.say(ctx, &wg, func() { l.reportFailure(ctx, term, ev) })
	}
	for _, ev := range r.Rejections {
		l.say(ctx, &wg, func() { l.reportRejection(ctx, term, ev) })
	}
}

// say runs one report beside others, as soon as there are not too many.
func (l *Loop) say(ctx context.Context, wg *sync.WaitGroup, report func()) {
	select {
	case l.reports <- struct{}{}:
	case <-ctx.Done():
		return
	}
	wg.Go(func() {
		defer func() { <-l.reports }()
		report()
	})
}

func (l *Loop) reportFailure(ctx, term context.Context, ev lrp.Event) {
	rctx, cancel := context.WithTimeout(term, reportTimeout)
	defer cancel()
	log := l.Log.With("process_guid", ev.Key.Process, "index", ev.Key.Index, "why", ev.Reason, "remedy", ev.Explanation.Remedy)
	if err := l.BBS.Apply(rctx, ev); err != nil {
		log.Warn("placement error not recorded", "error", err)
		l.tell(ctx, func(context.Context) { l.Backlog.NotReported(ev.Key) })
		return
	}
	log.Info("not placed")
}

func (l *Loop) reportRejection(ctx, term context.Context, ev task.Event) {
	rctx, cancel := context.WithTimeout(term, reportTimeout)
	defer cancel()
	log := l.Log.With("task_guid", ev.GUID, "why", ev.Reason)
	if _, err := l.BBS.ApplyTask(rctx, ev); err != nil {
		log.Warn("rejection not recorded", "error", err)
		l.tell(ctx, func(context.Context) { l.Backlog.NotRejected(ev.GUID) })
		return
	}
	log.Info("not placed")
}
