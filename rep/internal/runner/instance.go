package runner

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/cells/container"
	"muster/cells/engine"
	"muster/rep/align"
	"muster/rep/recipe"
)

// instance is the runner of one instance, or of one task. Its fields below "loop" are used by its goroutine only; what
// takes long runs beside it and posts its outcome. At most one call of the BBS and one operation of
// the engine, signals excepted, are under way for an instance.
type instance struct {
	cell *Cell
	guid lrp.InstanceGUID
	log  *slog.Logger
	// isTask, taskKey and slot say what it is for, as rec does, and never change.
	isTask  bool
	taskKey cells.TaskKey
	slot    lrp.Slot
	// trace is the request id of what made the instance necessary; empty after an adoption.
	trace string

	inbox chan func()

	// ctx ends with the instance or the rep; making also when the container is no longer wanted;
	// process also when the process ended.
	ctx          context.Context
	cancel       context.CancelFunc
	making       context.Context
	abandon      context.CancelFunc
	process      context.Context
	processEnded context.CancelFunc

	begun  bool             // under cell.mu
	public container.Record // under cell.mu: rec as others see it

	// loop
	rec        container.Record
	known      align.Known
	plan       recipe.Plan
	transfers  []*lrp.Action // of the program, by number; nil after an adoption
	unwritten  []engine.Line // for the log of a container that could not be made
	accepted   time.Time
	launchedAt time.Time
	doomedAt   time.Time // zero: no check has failed for good
	heard      time.Time // of the last answer of the BBS
	failures   int       // of calls of the BBS in a row
	calling    bool      // a call of the BBS is under way
	working    bool      // an operation of the engine is under way
	unanswered bool      // an attempt to start the task was not answered
	programmed bool      // the setup of the program is over
	ready      bool      // the program says that all is started and healthy
	checking   bool      // health checks were begun
	healthy    bool      // startup checks passed, or there are none
	stopping   bool      // signals were begun
	moved      bool      // rec or known changed since the last decision
	gone       bool      // the container was destroyed
}

// run is the loop: something happens, then everything that follows from it is begun.
func (i *instance) run() {
	defer i.cancel()
	if i.rec.Launched { // adopted
		i.watchProcess()
		i.watchProgram()
	}
	i.advance()
	for !i.gone {
		select {
		case <-i.ctx.Done():
			return
		case happened := <-i.inbox:
			happened()
			i.advance()
		}
	}
	i.cell.forget(i)
	i.log.Info("instance gone")
}

// post hands something that happened to the loop.
func (i *instance) post(happened func()) {
	select {
	case i.inbox <- happened:
	case <-i.ctx.Done():
	}
}

// beside runs work next to the loop.
func (i *instance) beside(work func()) { i.cell.wg.Go(work) }

// apply feeds an event into the record. One that comes too late, a check's result for a container that
// completed meanwhile, is dropped.
func (i *instance) apply(ev container.Event) {
	after, err := container.Apply(i.rec, ev)
	if err != nil {
		i.log.Debug("late event dropped", "event", ev.Name, "reason", err.Error())
		return
	}
	before := i.rec
	i.rec, i.moved = after, true
	i.cell.publish(i)
	if before.State != after.State {
		i.entered(before.State)
	}
}

// entered tells that the container came into its state.
func (i *instance) entered(from container.State) {
	i.log.Info("container moved", "from", from, "to", i.rec.State, "reason", i.rec.Result.Reason, "took", time.Since(i.accepted))
	switch i.rec.State {
	case container.Running:
		i.cell.metrics.step("total", i.accepted)
	case container.Completed:
		i.abandon()
		i.processEnded()
		i.cell.metrics.completed(i.rec.Result)
	}
}

// advance begins whatever is to be done, until nothing changes by that.
func (i *instance) advance() {
	for i.moved = true; i.moved; {
		i.moved = false
		for _, m := range align.Next(i.rec, i.known, i.report()) {
			i.begin(m)
		}
		if i.rec.Ending() && !i.stopping && !i.working {
			i.stopping = true
			i.endProcess()
		}
		if i.checksDue() {
			i.checking = true
			i.watchHealth()
		}
		if i.runs() {
			i.apply(container.Event{Name: container.Run, Routable: len(i.plan.Readiness) == 0})
			i.watchRunning(i.rec.Routable)
		}
	}
}

// begin begins a move, unless something under way has to end first.
func (i *instance) begin(m align.Move) {
	switch m {
	case align.Make:
		i.apply(container.Event{Name: container.Initialize})
		i.makeContainer()
	case align.Launch:
		if !i.working {
			i.apply(container.Event{Name: container.Launch})
			i.startProcess()
		}
	case align.Resume:
		i.checking, i.healthy = true, true
		i.apply(container.Event{Name: container.Run, Routable: i.known.Report.Routable || len(i.plan.Readiness) == 0})
		i.watchRunning(i.rec.Routable)
	case align.Stop:
		i.apply(container.Event{Name: container.Stop})
	case align.Destroy:
		if !i.working {
			i.destroyContainer()
		}
	default:
		if !i.calling {
			i.call(m)
		}
	}
}

// report returns what a Start says now.
func (i *instance) report() align.Report {
	return align.Report{
		NetInfo: i.rec.NetInfo, InternalRoutes: i.plan.InternalRoutes, MetricTags: i.plan.MetricTags,
		Routable: i.rec.Routable, AvailabilityZone: i.cell.Presence.Zone,
	}
}

func (i *instance) key() lrp.InstanceKey {
	return lrp.InstanceKey{Instance: i.guid, Cell: i.cell.Presence.Cell}
}

// call makes one call of the BBS.
func (i *instance) call(m align.Move) {
	if i.rec.IsTask() {
		i.callTask(m)
		return
	}
	ev := lrp.Event{Name: lrp.EventName(m), Key: i.rec.Key, By: i.key()}
	report := i.report()
	switch m {
	case align.Start:
		ev.NetInfo, ev.InternalRoutes, ev.MetricTags = report.NetInfo, report.InternalRoutes, report.MetricTags
		ev.Routable, ev.AvailabilityZone = report.Routable, report.AvailabilityZone
	case align.Crash:
		ev.Reason = i.rec.Result.Reason
	}
	begin := time.Now()
	i.ask(m, func(ctx context.Context) (func(), error) {
		return func() { i.granted(m, report, begin) }, i.cell.bbs.Apply(ctx, ev)
	})
}

// ask makes a call of the BBS beside the loop; granted is done when it was granted.
func (i *instance) ask(m align.Move, call func(context.Context) (granted func(), err error)) {
	i.calling = true
	i.beside(func() {
		ctx, cancel := context.WithTimeout(i.ctx, callTimeout)
		defer cancel()
		if i.trace != "" {
			ctx = bbsclient.WithTraceID(ctx, i.trace)
		}
		granted, err := call(ctx)
		i.post(func() {
			i.cell.metrics.call(m, err)
			i.answered(m, granted, err)
		})
	})
}

// refused tells whether an error is a refusal by the rules, of an instance or a task.
func refused(err error) bool {
	var ofLRP *lrp.Refusal
	var ofTask *task.Refusal
	return errors.As(err, &ofLRP) || errors.As(err, &ofTask)
}

// answered takes the answer of the BBS to a move.
func (i *instance) answered(m align.Move, granted func(), err error) {
	switch {
	case err == nil:
		i.calling, i.failures, i.heard = false, 0, time.Now()
		granted()
	case refused(err):
		i.calling, i.failures, i.heard = false, 0, time.Now()
		i.log.Info("report refused", "event", m, "reason", err.Error())
		i.known = align.Known{Standing: align.Lost}
	default:
		wait := retryAfter(i.failures)
		if notable(i.failures) {
			i.log.Warn("report not answered", "event", m, "error", err, "failures", i.failures+1, "again_in", wait)
		}
		i.failures++
		i.unanswered = i.unanswered || m == align.Claim
		i.beside(func() {
			if pause(i.ctx, wait) {
				i.post(func() { i.calling = false })
			}
		})
	}
}

func (i *instance) granted(m align.Move, report align.Report, begin time.Time) {
	switch m {
	case align.Claim:
		i.cell.metrics.step("claim", begin)
		i.known = align.Known{Standing: align.Holds, State: lrp.Claimed, Retiring: i.known.Retiring}
	case align.Start:
		i.cell.metrics.step("report", begin)
		i.known = align.Known{Standing: align.Holds, State: lrp.Running, Report: report, Retiring: i.known.Retiring}
	default:
		i.known = align.Known{Standing: align.Told}
	}
}
