package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
	"muster/rep/align"
	"muster/rep/recipe"
)

// Adopt takes over the containers of earlier reps of this cell: they are charged, hold their ports,
// and go on as soon as Run runs. What is half-made or cannot be understood is left to the first
// reaping, which destroys it; until then nobody gets its host ports, to which it may be connected. It
// is called once, before Run and before work is accepted.
func (c *Cell) Adopt(ctx context.Context) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	found, err := c.engine.List(ctx)
	if err != nil {
		return fmt.Errorf("adopt containers: %w", err)
	}
	c.keepBelongings(ctx, found)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range found {
		c.holdPorts(f)
		if f.Status == engine.Partial {
			continue
		}
		plan, err := recipe.ParsePlan(f.Labels)
		if err != nil || engine.ID(plan.Instance) != f.ID {
			c.log.Warn("container not adopted", "container", f.ID, "error", err)
			continue
		}
		if err := c.books.Adopt(plan.Instance, plan.Resources()); err != nil {
			return fmt.Errorf("adopt container %s: %w", f.ID, err)
		}
		i := c.newInstance(container.Record{
			Key: plan.Key, Task: plan.Task, Instance: plan.Instance, Resources: plan.Resources(), MaxPids: plan.MaxPids,
			RootFS: plan.RootFS, PlacementTags: plan.PlacementTags,
			State: container.Created, Launched: f.Status != engine.Created, NetInfo: c.netInfo(f),
		}, "")
		i.plan = plan
		c.metrics.Adopted.Inc()
		i.log.Info("container adopted", "status", f.Status, "age", time.Since(f.CreatedAt))
	}
	took := time.Since(begin)
	c.metrics.Adopt.Set(took.Seconds())
	c.log.Info("containers adopted", "count", len(c.instances), "found", len(found), "took", took)
	return nil
}

// holdPorts keeps the host ports of a container from being handed out. c.mu is held.
func (c *Cell) holdPorts(f engine.Container) {
	for _, p := range f.Ports {
		if other := c.ports.Adopt(lrp.InstanceGUID(f.ID), p.Host); other != "" {
			c.log.Warn("two containers have one host port", "port", p.Host, "instance_guid", f.ID, "other", other)
		}
	}
}

// List makes the full comparison with the records of this cell; it is the List of bbsclient.Follow.
func (c *Cell) List(ctx context.Context) (uint64, error) {
	asOf := time.Now()
	records, revision, err := c.bbs.Actuals(ctx, bbsclient.ActualFilter{Cell: c.Presence.Cell})
	if err != nil {
		return 0, fmt.Errorf("list the records of cell %s: %w", c.Presence.Cell, err)
	}
	listed := map[lrp.InstanceGUID]lrp.Actual{}
	for _, a := range records {
		listed[a.Instance] = a
	}
	for _, i := range c.all() {
		if a, ok := listed[i.guid]; !i.isTask {
			i.post(func() { i.listed(asOf, a, ok) })
		}
	}
	for _, a := range align.Orphans(records, func(id lrp.InstanceGUID) bool { return c.find(id) != nil }) {
		c.removeOrphan(a)
	}
	if err := c.compareTasks(ctx); err != nil {
		return 0, err
	}
	c.metrics.Compare.Observe(time.Since(asOf).Seconds())
	return revision, nil
}

// listed takes what a list says. One that is older than the last answer of the BBS says nothing.
func (i *instance) listed(asOf time.Time, a lrp.Actual, ok bool) {
	if i.heard.After(asOf) || i.known.Standing == align.Lost || i.known.Standing == align.Told {
		return
	}
	if ok {
		i.known = align.KnownOf(a)
	} else {
		i.known = align.Known{Standing: align.Absent}
	}
}

// Hear takes changes of records; it is the Apply of bbsclient.Follow.
func (c *Cell) Hear(events []bbsclient.Event) {
	for _, ev := range events {
		if ev.Task != nil {
			c.hearTask(ev.Task.Before, ev.Task.After)
		}
		if ev.Actual == nil {
			continue
		}
		before, after := ev.Actual.Before, ev.Actual.After
		if c.isOurs(after) {
			if i := c.find(after.Instance); i != nil {
				i.post(func() { i.named(*after) })
			} else {
				c.removeOrphan(*after)
			}
		}
		if c.isOurs(before) && (after == nil || after.InstanceKey != before.InstanceKey) {
			if i := c.find(before.Instance); i != nil {
				i.post(i.unnamed)
			}
		}
	}
}

func (c *Cell) isOurs(a *lrp.Actual) bool {
	return a != nil && a.Cell == c.Presence.Cell && a.Instance != ""
}

// named takes a change after which a record names this instance. A change may be older than the last
// answer of the BBS; so, what that said is not replaced, only that it must retire is news for ever.
func (i *instance) named(a lrp.Actual) {
	switch i.known.Standing {
	case align.Unheard, align.Absent:
		i.known = align.KnownOf(a)
	case align.Holds:
		i.known.Retiring = i.known.Retiring || a.Retiring
	}
}

// unnamed takes a change after which no record names this instance.
func (i *instance) unnamed() {
	if i.known.Standing == align.Holds || i.known.Standing == align.Unheard {
		i.known = align.Known{Standing: align.Absent}
	}
}

// removeOrphan reports an instance gone that a record names and the cell does not have.
func (c *Cell) removeOrphan(a lrp.Actual) {
	log := c.log.With("process_guid", a.Process, "index", a.Index, "instance_guid", a.Instance)
	c.orphan(a.Instance, log, "record without container not removed", func(ctx context.Context) error {
		err := c.bbs.Apply(ctx, lrp.Event{Name: lrp.Remove, Key: a.Key, By: a.InstanceKey})
		var refusal *lrp.Refusal
		if err != nil && !errors.As(err, &refusal) {
			return err
		}
		log.Info("record without container removed", "refused", refusal != nil)
		return nil
	})
}

// orphan has the BBS told that something is not here, for as long as that takes.
func (c *Cell) orphan(id lrp.InstanceGUID, log *slog.Logger, complaint string, report func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.orphans[id] {
		return
	}
	c.orphans[id] = true
	c.wg.Go(func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.orphans, id)
		}()
		persist(c.life, log, complaint, func() error {
			ctx, cancel := context.WithTimeout(c.life, callTimeout)
			defer cancel()
			err := report(ctx)
			if err == nil {
				c.metrics.Orphans.Inc()
			}
			return err
		})
	})
}

// removeStray destroys a container that no instance owns.
func (c *Cell) removeStray(f engine.Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := lrp.InstanceGUID(f.ID)
	if c.closed || c.strays[f.ID] || c.instances[id] != nil {
		return
	}
	c.strays[f.ID] = true
	c.holdPorts(f)
	c.wg.Go(func() {
		c.log.Info("destroying a container that belongs to no instance", "container", f.ID, "status", f.Status)
		c.destroy(c.life, f.ID, c.log.With("container", f.ID))
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.strays, f.ID)
		c.ports.Free(id, time.Now())
	})
}

// reapLoop compares the instances with the engine's containers, at once and then every so often.
func (c *Cell) reapLoop() {
	for {
		if err := c.reap(); err != nil && c.life.Err() == nil {
			c.log.Warn("containers not compared with the engine", "error", err)
		}
		c.past.expire(time.Now())
		if !pause(c.life, c.ReapEvery) {
			return
		}
	}
}

// reap destroys containers that no instance owns, and tells instances whose container is gone.
func (c *Cell) reap() error {
	settled := map[lrp.InstanceGUID]bool{} // had a container before the list was made
	records, _ := c.Records()
	for _, r := range records {
		settled[r.Instance] = r.State == container.Created || r.State == container.Running
	}
	ctx, cancel := context.WithTimeout(c.life, listTimeout)
	defer cancel()
	found, err := c.engine.List(ctx)
	if err != nil {
		return err
	}
	for _, f := range found {
		delete(settled, lrp.InstanceGUID(f.ID))
		c.removeStray(f)
	}
	for id, had := range settled {
		if i := c.find(id); had && i != nil {
			i.post(func() { i.apply(container.Event{Name: container.Vanish}) })
		}
	}
	return c.sweepBelongings(ctx, found)
}
