// Command auctiondaemon measures placement from end to end: the real auctioneer and the real BBS as processes,
// with PostgreSQL that syncs, and cells that are in memory: each has a rep of its own with a port and a
// certificate, tells its state, takes work on and claims it in the BBS, but runs nothing.
//
// In each round the cells are there and the auctioneer is not; the instances are desired; the auctioneer starts,
// learns the cells and the work, and places it. placed_per_s counts from the first order that reaches a cell until the
// last claim is committed. takeover_ms is from the start of the process to that first order. Then single instances
// are desired one after the other: first_placement_ms is the median from the call until the order is at a cell.
//
// Progress goes to standard error, one JSON object with medians of the rounds to standard output:
//
//	{"bench":"auction_daemon","cells":1000,"instances":100000,"placed_per_s":…,"first_placement_ms":…,
//	 "takeover_ms":…,"ordered_twice":0,"rss_mb":…}
//
// rss_mb is that of the auctioneer.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/integration/bench/rig"
	"muster/internal/identity"
)

const (
	// perProcess is how many instances each process has.
	perProcess = 10
	// desirers is how many clients desire at once.
	desirers = 2
	// portion is how many processes are desired with one call.
	portion = 500
	// ttl is for how long the cells are present; nobody renews that.
	ttl = time.Minute
	// longest bounds a round.
	longest = 10 * time.Minute
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	flag.IntVar(&o.cells, "cells", 1000, "cells, 2 to 4000")
	flag.IntVar(&o.instances, "instances", 100_000, "instances, 10 to 1000000; a multiple of 10")
	flag.IntVar(&o.singles, "singles", 31, "instances that are desired alone, 1 to 1000")
	flag.IntVar(&o.rounds, "rounds", 3, "how many rounds, each with a new database, 1 to 100")
	flag.BoolVar(&o.keep, "log", false, "print the log of the auctioneer after a round")
	rig.Main("auction", func() error { return o.check() }, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// options are the flags.
type options struct {
	bin                               string
	cells, instances, singles, rounds int
	keep                              bool
}

func (o options) check() error {
	errs := []error{
		rig.Within("cells", o.cells, 2, 4000), rig.Within("instances", o.instances, perProcess, 1_000_000),
		rig.Within("singles", o.singles, 1, 1000), rig.Within("rounds", o.rounds, 1, 100),
	}
	if o.instances%perProcess != 0 {
		errs = append(errs, fmt.Errorf("-instances %d: want a multiple of %d", o.instances, perProcess))
	}
	return errors.Join(errs...)
}

// result is what is printed.
type result struct {
	Bench     string  `json:"bench"`
	Cells     int     `json:"cells"`
	Instances int     `json:"instances"`
	PerSecond float64 `json:"placed_per_s"`
	First     float64 `json:"first_placement_ms"`
	Takeover  float64 `json:"takeover_ms"`
	Twice     int     `json:"ordered_twice"`
	RSS       float64 `json:"rss_mb"`
}

func run(ctx context.Context, o options, out io.Writer) error {
	var all []result
	for n := range o.rounds {
		r, err := round(ctx, o)
		if err != nil {
			return err
		}
		logf("round %d: %.0f placed a second, first order %.0f ms after the start, %.1f ms for a single one, %.0f MB", n+1, r.PerSecond, r.Takeover, r.First, r.RSS)
		all = append(all, r)
	}
	median := func(figure func(result) float64) float64 { return rig.MedianOf(all, figure) }
	res := result{
		Bench: "auction_daemon", Cells: o.cells, Instances: o.instances,
		PerSecond: median(func(r result) float64 { return r.PerSecond }), First: median(func(r result) float64 { return r.First }),
		Takeover: median(func(r result) float64 { return r.Takeover }), RSS: median(func(r result) float64 { return r.RSS }),
	}
	for _, r := range all {
		res.Twice += r.Twice
	}
	return json.NewEncoder(out).Encode(res)
}

// round measures once, on a database of its own.
func round(ctx context.Context, o options) (res result, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	r, err := rig.Open(ctx, o.bin)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	replica, err := r.Replica(ctx)
	if err != nil {
		return res, err
	}
	clients, err := r.Clients(replica, []identity.ID{{Role: identity.Client}, {Role: identity.Client}})
	if err != nil {
		return res, err
	}
	logf("%d cells appear", o.cells)
	f, err := newFleet(ctx, r, replica, o.cells)
	if err != nil {
		return res, err
	}
	defer f.stop()
	logf("%d instances are desired", o.instances)
	if err := desire(ctx, clients, o.instances/perProcess); err != nil {
		return res, err
	}
	auctioneer, err := r.Auctioneer(replica, nil)
	if err != nil {
		return res, err
	}
	if err := f.present(ctx); err != nil {
		return res, err
	}
	f.expect(o.instances)
	began := time.Now()
	if err := auctioneer.Start(); err != nil {
		return res, err
	}
	if err := f.claimed(ctx); err != nil {
		return res, fmt.Errorf("%w; the auctioneer's log:\n%s", err, auctioneer.Log())
	}
	first, last := f.times()
	res.PerSecond, res.Takeover = float64(o.instances)/last.Sub(first).Seconds(), ms(first.Sub(began))
	if res.First, err = singles(ctx, f, clients[0], o.singles); err != nil {
		return res, err
	}
	rss, err := auctioneer.MaxRSS()
	if o.keep {
		logf("%s", auctioneer.Log())
	}
	res.RSS, res.Twice = float64(rss), f.twice()
	return res, err
}

// desire desires processes, in large batches.
func desire(ctx context.Context, clients []*bbsclient.Client, processes int) error {
	_, err := rig.Work(ctx, desirers, (processes+portion-1)/portion, func(ctx context.Context, c, i int) error {
		var part []lrp.Desired
		for n := i * portion; n < min((i+1)*portion, processes); n++ {
			part = append(part, rig.App(rig.Process("a0c7", n), perProcess))
		}
		return errors.Join(clients[c].DesireAll(ctx, part)...)
	})
	return err
}

// singles desires single instances one after the other and returns the median time, in milliseconds, until their
// orders are at a cell.
func singles(ctx context.Context, f *fleet, client *bbsclient.Client, n int) (float64, error) {
	var took []float64
	for i := range n {
		f.expect(1)
		began := time.Now()
		if err := client.Desire(ctx, rig.App(rig.Process("51ab", i), 1)); err != nil {
			return 0, err
		}
		if err := f.claimed(ctx); err != nil {
			return 0, err
		}
		first, _ := f.times()
		took = append(took, ms(first.Sub(began)))
	}
	return rig.Median(took), nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
