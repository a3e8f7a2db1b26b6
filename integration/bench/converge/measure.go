package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/integration/bench/rig"
	"muster/internal/identity"
)

const (
	// shortTTL is the time to live of cells that are about to fall silent.
	shortTTL = time.Second
	// longTTL is that of the others, and beatEvery how often they are heard of: not what is measured.
	longTTL   = time.Minute
	beatEvery = 20 * time.Second
	// heartbeats is how many heartbeats are sent at once.
	heartbeats = 64
	// waitTime bounds the wait for anything.
	waitTime = 3 * time.Minute
	// pollPause is the time between two looks at the metrics or the records.
	pollPause = 20 * time.Millisecond
)

// bench is a BBS with cells.
type bench struct {
	options
	rig     *rig.Rig
	replica *rig.Replica
	db      *pgxpool.Pool // to count, beside the BBS
	client  *bbsclient.Client
	watcher *bbsclient.Client
	reps    []*bbsclient.Client // by cell
	serial  int32               // makes heartbeats that say something new
	next    int                 // the next cell to lose

	mu               sync.Mutex // held while cells are beaten for, so that none comes back by mistake
	silentFrom, upTo int        // these are to be silent
}

func newBench(ctx context.Context, r *rig.Rig, o options) (*bench, error) {
	b := &bench{options: o, rig: r}
	var err error
	if b.replica, err = r.Configured(ctx, map[string]any{"converge_interval": "1s"}); err != nil {
		return nil, err
	}
	if b.db, err = pgxpool.New(ctx, r.URL()); err != nil {
		return nil, err
	}
	ids := append([]identity.ID{{Role: identity.Client}, {Role: identity.Auctioneer}}, rig.CellIDs(o.cells)...)
	all, err := r.Clients(b.replica, ids)
	if err != nil {
		return nil, err
	}
	b.client, b.watcher, b.reps = all[0], all[1], all[2:]
	return b, nil
}

func (b *bench) close() { b.db.Close() }

// seed makes the instances, spread over the cells, and lets the database tidy up as it would by itself
// within a minute or two.
func (b *bench) seed(ctx context.Context) error {
	logf("%d cells appear", b.cells)
	if err := b.beat(ctx, 0, b.cells, longTTL); err != nil {
		return err
	}
	go b.keepAlive(ctx)
	if err := b.client.UpsertDomain(ctx, rig.Domain, 0); err != nil {
		return err
	}
	err := rig.Seed(ctx, rig.SeedOptions{Clients: []*bbsclient.Client{b.client}, Cells: b.reps, To: b.lrps, Progress: logf})
	if err != nil {
		return err
	}
	if _, err := b.db.Exec(ctx, "vacuum (analyze) desired_lrps, actual_lrps, events"); err != nil {
		return fmt.Errorf("vacuum: %w", err)
	}
	return b.expect(ctx, b.lrps, "select count(*) from actual_lrps where state = 'RUNNING' and presence = 'ORDINARY' and net_info is not null")
}

// keepAlive lets the cells be heard of that are not to be silent, until ctx ends.
func (b *bench) keepAlive(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		err := errors.Join(b.beat(ctx, 0, b.silentFrom, longTTL), b.beat(ctx, b.upTo, b.cells, longTTL))
		b.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			logf("heartbeats: %v", err)
		}
	}
}

// silence lets cells be heard of for the last time.
func (b *bench) silence(ctx context.Context, from, to int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.silentFrom, b.upTo = from, to
	return b.beat(ctx, from, to, shortTTL)
}

// expect counts in the database.
func (b *bench) expect(ctx context.Context, want int, query string, args ...any) error {
	var got int
	if err := b.db.QueryRow(ctx, query, args...).Scan(&got); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	if got != want {
		return fmt.Errorf("%s: %d, want %d", query, got, want)
	}
	return nil
}

// beat sends a heartbeat of some cells, from one number up to another.
func (b *bench) beat(ctx context.Context, from, to int, ttl time.Duration) error {
	if from == to {
		return nil
	}
	_, err := rig.Work(ctx, heartbeats, to-from, func(ctx context.Context, _, i int) error {
		p := cells.Presence{Cell: rig.Cell(from + i), RepURL: "https://10.0.16.7:1801", Zone: "z1", Capacity: cells.Resources{MemoryMB: 65536, DiskMB: 1 << 20, Containers: 250}}
		return b.reps[from+i].Heartbeat(ctx, p, ttl)
	})
	return err
}

// until waits for a metric to reach a number.
func (b *bench) until(ctx context.Context, name string, number float64) error {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	for {
		got, err := b.replica.Metrics(ctx, name)
		if err == nil && got[0] >= number {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is %v, want %v: %w", name, got, number, ctx.Err())
		case <-time.After(pollPause):
		}
	}
}

// untilNone waits until a question to the database is answered with no.
func (b *bench) untilNone(ctx context.Context, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	for {
		var some bool
		if err := b.db.QueryRow(ctx, query, args...).Scan(&some); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		if !some {
			return nil
		}
		time.Sleep(pollPause)
	}
}

// another waits until the BBS has made another pass of a kind, and returns what it took, in ms.
func (b *bench) another(ctx context.Context, kind string, before func() error) (float64, error) {
	count, last := fmt.Sprintf("bbs_converge_seconds_count{kind=%q}", kind), fmt.Sprintf("bbs_converge_last_seconds{kind=%q}", kind)
	made, err := b.replica.Metrics(ctx, count)
	if err != nil {
		return 0, err
	}
	if err := before(); err != nil {
		return 0, err
	}
	if err := b.until(ctx, count, made[0]+1); err != nil {
		return 0, err
	}
	took, err := b.replica.Metrics(ctx, last)
	if err != nil {
		return 0, err
	}
	return took[0] * 1000, nil
}

func (b *bench) quietTick(ctx context.Context) (float64, error) {
	return b.another(ctx, "quiet", func() error { return nil })
}

// quietPass makes the BBS compare everything, because something changed that asks for nothing.
func (b *bench) quietPass(ctx context.Context) (float64, error) {
	return b.another(ctx, "full", func() error {
		b.serial++
		p := cells.Presence{Cell: rig.Cell(0), RepURL: fmt.Sprintf("https://10.0.16.7:%d", 1801+b.serial), Zone: "z1"}
		return b.reps[0].Heartbeat(ctx, p, longTTL)
	})
}

// lostCell lets a cell fall silent, and then return.
func (b *bench) lostCell(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	b.next = b.next%(b.cells-1) + 1
	id := rig.Cell(b.next)
	var held int
	if err := b.db.QueryRow(ctx, "select count(*) from actual_lrps where cell_id = $1", string(id)).Scan(&held); err != nil {
		return 0, err
	}
	_, revision, err := b.watcher.Cells(ctx)
	if err != nil {
		return 0, err
	}
	watch, err := b.watcher.Watch(ctx, revision, bbsclient.WatchFilter{})
	if err != nil {
		return 0, err
	}
	if err := b.silence(ctx, b.next, b.next+1); err != nil {
		return 0, err
	}
	took, err := b.follow(watch, id, held)
	if err != nil {
		return 0, err
	}
	if err := b.expect(ctx, held, "select count(*) from actual_lrps where cell_id = $1 and presence = 'SUSPECT'", string(id)); err != nil {
		return 0, err
	}
	if err := b.expect(ctx, b.lrps, "select count(*) from actual_lrps where presence = 'ORDINARY'"); err != nil {
		return 0, err
	}
	_, err = b.comeBack(ctx, b.next, b.next+1)
	return took.Seconds() * 1000, err
}

// follow returns the time from the event that a cell is lost to the last of so many instances that
// became suspect.
func (b *bench) follow(watch *bbsclient.Watch, id lrp.CellID, held int) (time.Duration, error) {
	var lost time.Time
	for suspects := 0; ; {
		events, _, err := watch.Recv()
		if err != nil {
			return 0, err
		}
		for _, ev := range events {
			switch {
			case ev.Cell != nil && ev.Cell.After == nil && ev.Cell.Before.Cell == id:
				lost = time.Now()
			case ev.Actual != nil && ev.Actual.After != nil && ev.Actual.After.Presence == lrp.Suspect && ev.Actual.After.Cell == id:
				suspects++
			}
		}
		if suspects == held && !lost.IsZero() {
			return time.Since(lost), nil
		}
	}
}

// comeBack lets cells return, and waits until all of their suspects have their slots back. It returns
// how long that took from the first heartbeat on.
func (b *bench) comeBack(ctx context.Context, from, to int) (time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.silentFrom, b.upTo = 0, 0
	start := time.Now()
	if err := b.beat(ctx, from, to, longTTL); err != nil {
		return 0, err
	}
	if err := b.untilNone(ctx, "select exists (select from actual_lrps where presence <> 'ORDINARY')"); err != nil {
		return 0, err
	}
	took := time.Since(start)
	return took, errors.Join(
		b.expect(ctx, 0, "select count(*) from actual_lrps where presence <> 'ORDINARY'"),
		b.expect(ctx, b.lrps, "select count(*) from actual_lrps where state = 'RUNNING' and presence = 'ORDINARY'"))
}

// returns lets many cells fall silent and return, and measures how fast their suspects get their slots
// back, from the first heartbeat on.
func (b *bench) returns(ctx context.Context) (float64, error) {
	count := min(b.suspects, b.lrps/2)
	to := min(b.cells, 1+(count*b.cells+b.lrps-1)/b.lrps)
	names := make([]string, 0, to-1)
	for i := 1; i < to; i++ {
		names = append(names, string(rig.Cell(i)))
	}
	var held int
	if err := b.db.QueryRow(ctx, "select count(*) from actual_lrps where cell_id = any($1)", names).Scan(&held); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := b.silence(ctx, 1, to); err != nil {
		return 0, err
	}
	if err := b.untilNone(ctx, "select exists (select from actual_lrps where presence = 'ORDINARY' and cell_id = any($1))", names); err != nil {
		return 0, err
	}
	logf("%d instances of %d cells are suspect after %v", held, to-1, time.Since(start).Round(time.Millisecond))
	if err := b.expect(ctx, held, "select count(*) from actual_lrps where presence = 'SUSPECT'"); err != nil {
		return 0, err
	}
	// What the loss has left behind is written out now, not during what is measured.
	if _, err := b.db.Exec(ctx, "checkpoint"); err != nil {
		return 0, err
	}
	var profile <-chan error
	if b.profile != "" {
		profile = rig.Profile(b.replica, b.profile)
	}
	bbs, postgres := b.replica.CPU(), b.rig.PostgresCPU()
	took, err := b.comeBack(ctx, 1, to)
	if err != nil {
		return 0, err
	}
	logf("a suspect that returns takes %.0f us of the BBS and %.0f us of PostgreSQL", perOne(b.replica.CPU()-bbs, held), perOne(b.rig.PostgresCPU()-postgres, held))
	if profile != nil {
		if err := <-profile; err != nil {
			return 0, err
		}
	}
	return float64(held) / took.Seconds(), nil
}

// perOne is the share of one of n, in microseconds.
func perOne(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(n) }
