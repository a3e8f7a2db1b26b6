package bbs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster/bbs/converge"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/bbs/task"
)

// take takes steps. It fails when some could not be taken for want of the database or of the lease. A
// refusal is no failure: the world has moved on since the step was planned. Nor is a row that cannot be read:
// it is kept as it is, and its keys have to come first.
func (c *converger) take(ctx context.Context, steps []converge.Step) error {
	if len(steps) == 0 {
		return nil
	}
	events := make([]lrp.Event, len(steps))
	for i, s := range steps {
		events[i] = s.Event
	}
	taken := make([]store.Repaired, len(steps))
	for i, err := range c.store.ApplyAll(ctx, events, c.call) {
		taken[i] = store.Repaired{Step: steps[i], Err: err}
	}
	return c.took(ctx, taken)
}

// took counts and logs what became of steps, and fails as take does.
func (c *converger) took(ctx context.Context, taken []store.Repaired) error {
	if len(taken) == 0 {
		return nil
	}
	o := c.outcome(ctx, len(taken))
	for i := range taken {
		t := &taken[i]
		ev := &t.Event
		var refusal *lrp.Refusal
		o.note(string(ev.Name), t.Err, t.Err != nil && errors.As(t.Err, &refusal),
			slog.String("process_guid", string(ev.Key.Process)), slog.Int("index", int(ev.Key.Index)),
			slog.String("instance_guid", string(ev.By.Instance)), slog.String("cell_id", string(ev.By.Cell)), slog.String("reason", t.Why))
	}
	return o.end()
}

// takeTasks is take for tasks.
func (c *converger) takeTasks(ctx context.Context, steps []task.Step) error {
	if len(steps) == 0 {
		return nil
	}
	events := make([]task.Event, len(steps))
	for i, s := range steps {
		events[i] = s.Event
	}
	o := c.outcome(ctx, len(steps))
	for i, err := range c.store.ApplyTasks(ctx, events, c.call) {
		var refusal *task.Refusal
		o.note("task "+string(events[i].Name), err, errors.As(err, &refusal),
			slog.String("task_guid", string(events[i].GUID)), slog.String("reason", steps[i].Why))
	}
	return o.end()
}

// outcome is what became of some steps.
type outcome struct {
	ctx     context.Context
	c       *converger
	each    bool // log each step
	taken   map[string]int
	failed  int
	failure error
}

func (c *converger) outcome(ctx context.Context, steps int) *outcome {
	return &outcome{ctx: ctx, c: c, each: c.lines.take(steps, time.Now()), taken: map[string]int{}}
}

// lineBudget bounds how many steps are logged one by one: stepLines in each stepTime. Many small plans, of cells
// that are lost one after the other, are as many lines as a large one. It is safe for concurrent use.
type lineBudget struct {
	mu    sync.Mutex
	since time.Time
	used  int
}

// take reports whether so many lines may be written, and counts them if they may.
func (l *lineBudget) take(n int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= stepTime {
		l.since, l.used = now, 0
	}
	if l.used+n > stepLines {
		return false
	}
	l.used += n
	return true
}

func (o *outcome) note(event string, err error, refused bool, about ...slog.Attr) {
	var row *store.Unreadable
	switch {
	case err == nil:
		o.taken[event]++
		if o.each {
			o.c.log.LogAttrs(o.ctx, slog.LevelInfo, "convergence step", append(about, slog.String("event", event))...)
		}
	case refused, errors.As(err, &row):
		o.c.metrics.convergeRefused.WithLabelValues(event).Inc()
		o.c.log.Debug("convergence step refused", "error", err)
	default:
		o.failed++
		if o.failure == nil || errors.Is(err, store.ErrFenced) {
			o.failure = err
		}
	}
}

// end counts and logs, a line for all steps of a kind that have none of their own, and returns the failure.
func (o *outcome) end() error {
	for event, n := range o.taken {
		o.c.metrics.convergeSteps.WithLabelValues(event).Add(float64(n))
		if !o.each {
			o.c.log.Info("convergence steps", "event", event, "steps", n)
		}
	}
	if o.failure == nil {
		return nil
	}
	return fmt.Errorf("take %d convergence steps: %w", o.failed, o.failure)
}
