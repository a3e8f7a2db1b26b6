package runner

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
	"muster/cells/step"
	"muster/rep/internal/belongings"
	"muster/rep/recipe"
)

// draft is what the log of a container will begin with, once there is a container to have one.
type draft struct {
	mu    sync.Mutex
	lines []engine.Line
}

// note adds lines of a source.
func (d *draft) note(source string, lines ...engine.Line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range lines {
		l.Source = cmp.Or(source, step.DefaultSource)
		d.lines = append(d.lines, l)
	}
}

// prepare has the belongings of a container made ready, and adds them to what is to be made. It waits for no other
// container, so that slow downloads of some keep nobody else from being made.
func (i *instance) prepare(spec *engine.Spec, plan recipe.Plan, needs recipe.Needs, d *draft) error {
	ctx, cancel := context.WithTimeout(i.making, i.cell.CreateTimeout)
	defer cancel()
	begin := time.Now()
	grant, err := i.cell.Belongings.Prepare(ctx, belongings.Container{
		ID: spec.ID, Plan: plan, Needs: needs, Note: func(l engine.Line) { d.note(l.Source, l) },
	})
	if err != nil {
		return err
	}
	i.cell.metrics.step("belongings", begin)
	spec.Mounts = append(spec.Mounts, grant.Mounts...)
	spec.Program.Env = slices.Concat(spec.Program.Env, grant.Env)
	maps.Copy(spec.Labels, grant.Labels)
	return nil
}

// unmade takes that the container could not be made.
func (i *instance) unmade(err error, d *draft) {
	reason := container.CreateFailed(err)
	var known *belongings.Error
	if errors.As(err, &known) {
		reason = known.Reason
		i.log.Warn("belongings of the container not prepared", "reason", reason, "error", known.Err)
	}
	failed := at(time.Now(), "Cell %s failed to create container for instance %s: %v", i.cell.Presence.Cell, i.guid, err)
	failed.Stream = step.Stderr
	d.note(i.plan.LogSource, failed)
	i.unwritten = d.lines
	i.spoiled(err, reason)
}

// keepBelongings takes over the belongings of containers of earlier reps. What cannot be kept is no reason to end a
// container that runs with it.
func (c *Cell) keepBelongings(ctx context.Context, found []engine.Container) {
	for _, f := range found {
		if err := c.Belongings.Keep(ctx, f); err != nil {
			c.log.Warn("belongings of a container not kept", "container", f.ID, "error", err)
		}
	}
}

// sweepBelongings takes back what containers have that are gone; found are those that the engine has.
func (c *Cell) sweepBelongings(ctx context.Context, found []engine.Container) error {
	gone, err := c.Belongings.Sweep(ctx, func(id engine.ID) bool {
		return c.find(lrp.InstanceGUID(id)) != nil || slices.ContainsFunc(found, func(f engine.Container) bool { return f.ID == id })
	})
	if len(gone) > 0 {
		c.log.Info("belongings of containers that are gone taken back", "containers", gone)
	}
	return err
}
