package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
	"muster/cells/step"
	"muster/rep/align"
	"muster/rep/internal/probe"
	"muster/rep/recipe"
)

func (i *instance) id() engine.ID { return engine.ID(i.guid) }

// makeContainer reads what is desired and makes the container; the claim goes on beside it.
func (i *instance) makeContainer() {
	i.working = true
	key := i.rec.Key
	i.beside(func() {
		var d draft
		made, plan, transfers, err := i.make(key, &d)
		if err == nil {
			d.note(plan.LogSource, at(time.Now(), "Cell %s successfully created container for instance %s", i.cell.Presence.Cell, i.guid))
			i.write(d.lines)
		}
		i.post(func() {
			i.working = false
			i.plan, i.transfers = plan, transfers
			if err != nil {
				i.unmade(err, &d)
				return
			}
			i.apply(container.Event{Name: container.Create, NetInfo: i.cell.netInfo(made)})
		})
	})
}

func (i *instance) make(key lrp.Key, d *draft) (engine.Container, recipe.Plan, []*lrp.Action, error) {
	begin := time.Now()
	spec, plan, needs, err := i.recipe(key)
	if err != nil {
		return engine.Container{}, plan, nil, err
	}
	i.cell.metrics.step("desired", begin)
	if err := i.prepare(&spec, plan, needs, d); err != nil {
		return engine.Container{}, plan, nil, err
	}
	select {
	case i.cell.creating <- struct{}{}:
		defer func() { <-i.cell.creating }()
	case <-i.making.Done():
		return engine.Container{}, plan, nil, i.making.Err()
	}
	ctx, cancel := context.WithTimeout(i.making, i.cell.CreateTimeout)
	defer cancel()
	begin = time.Now()
	d.note(plan.LogSource, at(begin, "Cell %s creating container for instance %s", i.cell.Presence.Cell, i.guid))
	made, err := i.cell.engine.Create(ctx, spec)
	if err == nil {
		i.cell.metrics.step("create", begin)
	}
	return made, plan, spec.Program.Transfers(), err
}

// recipe returns what to make, from what is desired now.
func (i *instance) recipe(key lrp.Key) (spec engine.Spec, plan recipe.Plan, needs recipe.Needs, err error) {
	if i.isTask {
		return i.taskRecipe()
	}
	d, err := read(i, func(ctx context.Context) (lrp.Desired, error) { return i.cell.bbs.Desired(ctx, key.Process) })
	if err != nil {
		return spec, plan, needs, fmt.Errorf("read desired LRP %s: %w", key.Process, err)
	}
	if err := recipe.Supported(d); err != nil {
		return spec, plan, needs, err
	}
	if needs, err = recipe.NeedsOf(d); err != nil {
		return spec, plan, needs, err
	}
	ports, err := i.cell.takePorts(i.guid, len(recipe.Ports(d)))
	if err != nil {
		return spec, plan, needs, err
	}
	spec, plan, err = recipe.Build(d, recipe.Subject{Key: key, Instance: i.guid, HostPorts: ports}, i.cell.Recipe)
	return spec, plan, needs, err
}

// read reads from the BBS what is desired, for as long as it takes to answer.
func read[T any](i *instance, call func(context.Context) (T, error)) (found T, err error) {
	persist(i.making, i.log, "what is desired was not read", func() error {
		ctx, cancel := context.WithTimeout(i.making, callTimeout)
		defer cancel()
		if found, err = call(ctx); bbsclient.IsUnavailable(err) {
			return err
		}
		return nil
	})
	return found, err
}

// netInfo says where a container is reached.
func (c *Cell) netInfo(made engine.Container) lrp.NetInfo {
	n := lrp.NetInfo{Address: c.Recipe.Address, InstanceAddress: made.Address, Preferred: lrp.PreferHost}
	if c.PreferInstance {
		n.Preferred = lrp.PreferInstance
	}
	for _, p := range made.Ports {
		n.Ports = append(n.Ports, lrp.PortMapping{ContainerPort: uint32(p.Container), HostPort: uint32(p.Host)})
	}
	return n
}

// startProcess starts the process of a claimed container.
func (i *instance) startProcess() {
	i.working = true
	i.launchedAt = time.Now()
	i.beside(func() {
		err := i.cell.engine.Start(i.ctx, i.id())
		i.post(func() {
			i.working = false
			if err != nil {
				i.spoiled(err, err.Error())
				return
			}
			i.cell.metrics.step("start", i.launchedAt)
			i.watchProcess()
			i.watchProgram()
		})
	})
}

// spoiled takes that the container could not be made or started. It counts as a crash, with that reason,
// unless the engine was away: then the slot is given back, to be placed anew, here or elsewhere.
func (i *instance) spoiled(err error, reason string) {
	if errors.Is(err, engine.ErrAway) {
		i.cell.EngineAway(err) // before the slot is free: it must not be placed here at once
		i.log.Warn("slot given back because the container engine is away", "error", err)
		i.apply(container.Event{Name: container.Stop})
		if i.rec.State == container.Completed {
			return
		}
	}
	i.apply(container.Event{Name: container.Fail, Reason: reason})
}

// watchProcess posts how the process ended, once it has. An error of the engine is not an end.
func (i *instance) watchProcess() {
	i.beside(func() {
		persist(i.process, i.log, "process not waited for", func() error {
			exit, err := i.cell.engine.Wait(i.process, i.id())
			switch {
			case err == nil:
				i.post(func() { i.exited(exit) })
			case errors.Is(err, engine.ErrNotFound):
				i.post(func() { i.apply(container.Event{Name: container.Vanish}) })
			default:
				return err
			}
			return nil
		})
	})
}

// exited takes how the program ended. One that was killed with all the container says nothing itself.
func (i *instance) exited(exit engine.Exit) {
	ev := container.Event{Name: container.Exit, ByItself: exit.At.Before(i.doomedAt)} // of which the engine may tell late
	switch r := exit.Result; {
	case r == nil:
		ev.Reason = step.Exited(i.plan.LogSource, step.Exit{Code: exit.Code, OutOfMemory: exit.OOMKilled})
	case r.Failed:
		ev.Reason = r.Reason
	default:
		ev.Output = r.Output
	}
	i.apply(ev)
}

// programWait is how much longer than the graceful interval a program may take to end, which kills its
// processes by itself.
const programWait = 3 * time.Second

// endProcess ends the program gracefully: SIGTERM, some time, SIGKILL.
func (i *instance) endProcess() {
	i.log.Info("stopping instance", "stopped", i.rec.Result.Stopped, "reason", i.rec.Result.Reason)
	plan := i.plan
	i.beside(func() {
		i.note(plan.LogSource, at(time.Now(), "Cell %s stopping instance %s", i.cell.Presence.Cell, i.guid))
		i.signal(syscall.SIGTERM)
		if !pause(i.process, plan.Graceful+programWait) {
			return
		}
		i.log.Warn("the program did not end its processes in time", "interval", plan.Graceful)
		i.signal(syscall.SIGKILL)
		if pause(i.process, killWait) {
			i.post(func() { i.apply(container.Event{Name: container.Fail, Reason: container.DidNotExit}) })
		}
	})
}

// signal signals the process, for as long as it takes the engine to answer.
func (i *instance) signal(s syscall.Signal) {
	persist(i.process, i.log.With("signal", s.String()), "process not signalled", func() error {
		err := i.cell.engine.Kill(i.process, i.id(), s)
		if errors.Is(err, engine.ErrNotFound) {
			return nil
		}
		return err
	})
}

// destroyContainer removes the container, for as long as that takes: until then its resources are held.
// What was written by a process that ended by itself, or about a container that could not be made, is kept for a
// while.
func (i *instance) destroyContainer() {
	i.working = true
	rec := i.rec
	if lines := i.unwritten; lines != nil && !rec.Result.Stopped {
		i.unwritten = nil
		i.cell.past.keep(ended{record: rec, at: time.Now(), log: lines})
	}
	i.beside(func() {
		if rec.Launched && !rec.Result.Stopped {
			if err := i.cell.remember(i.ctx, rec); err != nil && !errors.Is(err, engine.ErrNotFound) {
				i.log.Warn("output not kept", "error", err)
			}
		}
		if i.cell.destroy(i.ctx, i.id(), i.log) {
			i.post(func() { i.gone = true })
		}
	})
}

// destroy removes a container, for as long as that takes; it tells whether ctx lived long enough.
func (c *Cell) destroy(ctx context.Context, id engine.ID, log *slog.Logger) bool {
	return persist(ctx, log, "container not destroyed", func() error {
		err := c.tryDestroy(ctx, id)
		if err != nil && ctx.Err() == nil {
			c.metrics.DestroyFailures.Inc()
		}
		return err
	})
}

func (c *Cell) tryDestroy(ctx context.Context, id engine.ID) error {
	select {
	case c.deleting <- struct{}{}:
		defer func() { <-c.deleting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, destroyTimeout)
	defer cancel()
	begin := time.Now()
	if err := c.engine.Destroy(ctx, id); err != nil {
		return err
	}
	c.metrics.Destroy.Observe(time.Since(begin).Seconds())
	return c.Belongings.Release(ctx, id)
}

// checksDue tells whether the startup checks have to begin: the setup is over and the BBS calls the
// instance CLAIMED. (One that it calls RUNNING passed them in an earlier life of the rep.)
func (i *instance) checksDue() bool {
	return i.rec.State == container.Created && i.rec.Launched && i.programmed && !i.checking && !i.rec.Ending() &&
		i.known.Standing == align.Holds && i.known.State == lrp.Claimed
}

// runs tells whether the instance has just come to run: the program says so, and the startup checks do.
func (i *instance) runs() bool {
	return i.rec.State == container.Created && i.ready && i.healthy && !i.rec.Ending()
}

func (i *instance) schedule() probe.Schedule {
	return probe.Schedule{Settings: i.cell.Probe, Address: i.rec.NetInfo.InstanceAddress}
}

// watchHealth makes the startup checks.
func (i *instance) watchHealth() {
	if len(i.plan.Startup) == 0 {
		i.healthy = true
		return
	}
	s, plan, begin := i.schedule(), i.plan, time.Now()
	i.beside(func() {
		i.note(plan.LogSource, at(begin, "Starting health monitoring of container"))
		err := s.Startup(i.process, plan.Startup, plan.StartTimeout)
		var failed probe.Errors
		switch {
		case err == nil:
			i.note(plan.LogSource, at(time.Now(), "Container became healthy"))
			i.post(func() {
				i.cell.metrics.step("health", begin)
				i.healthy = true
			})
		case errors.As(err, &failed):
			elapsed := time.Since(begin)
			i.complain(plan, err, step.StartupFailed(elapsed))
			i.doom(step.NeverHealthy(elapsed, err.Error()))
		}
	})
}

// watchRunning makes the liveness and readiness checks until the process ends.
func (i *instance) watchRunning(ready bool) {
	s, plan := i.schedule(), i.plan
	if len(plan.Startup) > 0 {
		i.beside(func() {
			var failed probe.Errors
			if err := s.Liveness(i.process, plan.Startup); errors.As(err, &failed) {
				i.complain(plan, err, step.LivenessFailed)
				i.doom(step.Unhealthy(err.Error()))
			}
		})
	}
	if len(plan.Readiness) > 0 {
		i.beside(func() {
			i.note(plan.CheckSource, at(time.Now(), "Starting readiness health monitoring of container"))
			s.Readiness(i.process, plan.Readiness, ready, func(ready bool) {
				name, text := container.Unready, notReady
				if ready {
					name, text = container.Ready, isReady
				}
				i.note(plan.CheckSource, at(time.Now(), "%s", text))
				i.post(func() { i.apply(container.Event{Name: name}) })
			})
		})
	}
}

func (i *instance) doom(reason string) {
	at := time.Now()
	i.post(func() {
		i.doomedAt = at
		i.apply(container.Event{Name: container.Doom, Reason: reason})
	})
}
