package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"muster/bbs/lrp"
)

// settleTime is how long a rep is left alone before its memory is read.
const settleTime = 5 * time.Second

// idle measures what containers cost that only run, and what it takes to adopt them.
func (b *bench) idle(ctx context.Context, res *result) error {
	if err := b.restart(ctx, 0); err != nil { // so that no earlier start counts
		return err
	}
	if err := pause(ctx, settleTime); err != nil {
		return err
	}
	empty, err := residentMB(b.rep.PID())
	if err != nil {
		return err
	}
	n := b.o.containers
	work, err := b.desire(ctx, n)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := b.perform(ctx, work); err != nil {
		return err
	}
	running, err := b.allRunning(ctx, work[0].Key.Process, n)
	if err != nil {
		return err
	}
	logf("%d containers run after %v", n, time.Since(begin).Round(time.Millisecond))
	if err := pause(ctx, settleTime); err != nil {
		return err
	}
	if res.IdleCPU, err = b.watchCPU(ctx); err != nil {
		return err
	}
	full, err := residentMB(b.rep.PID())
	if err != nil {
		return err
	}
	per100 := 100 / float64(n)
	res.IdleCPU, res.RSS = rounded(res.IdleCPU*per100), rounded((full-empty)*per100)
	logf("memory of the rep: %.1f MB without containers, %.1f MB with %d", empty, full, n)
	if err := b.adopt(ctx, running, res); err != nil {
		return err
	}
	return b.undesire(ctx, work[0].Key.Process)
}

// watchCPU returns the processor time that everything of ours takes, in ms a second.
func (b *bench) watchCPU(ctx context.Context) (float64, error) {
	before, err := b.processes()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := pause(ctx, b.o.idle); err != nil {
		return 0, err
	}
	after, err := b.processes()
	if err != nil {
		return 0, err
	}
	seconds, byKind, total := time.Since(begin).Seconds(), map[kind]float64{}, 0.0
	for pid, p := range after {
		spent := (p.cpu - before[pid].cpu).Seconds() * 1000 / seconds
		byKind[p.kind] += spent
		if p.kind != app {
			total += spent
		}
	}
	logf("idle for %v, ms of processor time a second: rep %.2f, containerd %.2f, shims %.2f, inits %.2f; applications %.2f",
		b.o.idle, byKind[repDaemon], byKind[containerDaemon], byKind[shim], byKind[guestInit], byKind[app])
	return total, nil
}

// adopt kills the rep and has the next one take over.
func (b *bench) adopt(ctx context.Context, running []lrp.Actual, res *result) error {
	before, err := b.processes()
	if err != nil {
		return err
	}
	if err := b.rep.Kill(); err != nil {
		return err
	}
	begin := time.Now()
	if err := b.rep.Start(); err != nil {
		return err
	}
	s, err := b.cell.State(ctx)
	if err != nil {
		return err
	}
	logf("from the start of the new rep's process until it told of %d containers: %v", len(s.Instances), time.Since(begin).Round(100*time.Microsecond))
	if err := b.compared(ctx, 1); err != nil {
		return err
	}
	if err := b.unchanged(ctx, running); err != nil {
		return err
	}
	m, err := b.rep.Metrics(ctx, "rep_containers_adopted_total", "rep_adopt_seconds", `rep_containers{state="running"}`)
	if err != nil {
		return err
	}
	if n := float64(len(running)); m[0] != n || m[2] != n {
		return fmt.Errorf("the rep adopted %v containers, and %v run: want %v; its log:\n%s", m[0], m[2], n, b.rep.Log())
	}
	res.Adopt = rounded(m[1] * 1000)
	after, err := b.processes()
	if err != nil {
		return err
	}
	res.Restarts = restarts(before, after)
	return nil
}

// restart replaces the rep, and waits until it has compared what it has with the BBS.
func (b *bench) restart(ctx context.Context, n int) error {
	if err := b.rep.Kill(); err != nil {
		return err
	}
	if err := b.rep.Start(); err != nil {
		return err
	}
	return b.compared(ctx, 1)
}

// compared waits until the rep has made so many comparisons with the BBS.
func (b *bench) compared(ctx context.Context, n float64) error {
	return until(ctx, "a comparison with the BBS", 20*lookEvery, func() (bool, error) {
		m, err := b.rep.Metrics(ctx, "rep_compare_seconds_count")
		return err == nil && m[0] >= n, nil // its listener may not be there yet
	})
}

// unchanged checks that every record is what it was.
func (b *bench) unchanged(ctx context.Context, before []lrp.Actual) error {
	now, err := b.allRunning(ctx, before[0].Process, len(before))
	if err != nil {
		return err
	}
	instances := map[lrp.InstanceKey]bool{}
	for _, a := range before {
		instances[a.InstanceKey] = true
	}
	for _, a := range now {
		if !instances[a.InstanceKey] {
			return fmt.Errorf("slot %v has instance %s now, which was not there before the rep was killed", a.Slot, a.Instance)
		}
	}
	return nil
}

// residentMB returns how much memory of a process is resident.
func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("memory of process %d: %q", pid, text)
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20), err
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
