// Command converge measures the net under the BBS: what a tick costs in which nothing changed, what a
// comparison of everything costs that finds nothing to do, how long after a cell fell silent its 250
// instances have been decided about and written, and how many suspect instances a second get their
// slots back when their cells return.
//
// The BBS is a process of its own with mutual TLS, encryption and a PostgreSQL that syncs; instances come
// to be through its front door, desired, claimed and started by cells with certificates of their own.
// The times of ticks and comparisons are those that the BBS reports in its metrics, of the passes that it
// makes by itself, once a second. The time of a lost cell is that between two events of a watch: the
// cell is lost, and the last of its instances is suspect. Afterwards the records are counted in the
// database.
//
// Progress goes to standard error, one JSON object to standard output, with medians of the repeats; the
// memory is the most that the BBS has ever had resident:
//
//	{"bench":"converge","lrps":250000,"cells":1000,"quiet_tick_ms":…,"quiet_pass_ms":…,"lost_cell_ms":…,
//	 "suspects_return_per_s":…,"rss_mb":…}
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"

	"muster/integration/bench/rig"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	flag.IntVar(&o.lrps, "lrps", 250_000, "instances, 1000 to 2000000; a multiple of 10")
	flag.IntVar(&o.cells, "cells", 0, "cells, 4 to 8000; 0: one for 250 instances")
	flag.IntVar(&o.repeats, "repeats", 7, "how often ticks, comparisons and lost cells are measured, 1 to 100")
	flag.IntVar(&o.returns, "returns", 3, "how often returning suspects are measured, 1 to 100")
	flag.IntVar(&o.suspects, "suspects", 100_000, "how many instances become suspect for that, at most; half of all if that is less")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of the BBS while suspects return to a `file`")
	rig.Main("converge", func() error { return o.validate() }, func(ctx context.Context) error { return run(ctx, o) })
}

type options struct {
	bin              string
	lrps, cells      int
	repeats, returns int
	suspects         int
	profile          string
}

func (o *options) validate() error {
	if o.cells == 0 {
		o.cells = max(4, o.lrps/250)
	}
	var errs []error
	errs = append(errs, rig.Within("lrps", o.lrps, 1000, 2_000_000), rig.Within("cells", o.cells, 4, 8000),
		rig.Within("repeats", o.repeats, 1, 100), rig.Within("returns", o.returns, 1, 100), rig.Within("suspects", o.suspects, 1, 2_000_000))
	if o.lrps%10 != 0 {
		errs = append(errs, fmt.Errorf("-lrps %d: want a multiple of 10", o.lrps))
	}
	return errors.Join(errs...)
}

// report is the line on standard output.
type report struct {
	Bench    string  `json:"bench"`
	LRPs     int     `json:"lrps"`
	Cells    int     `json:"cells"`
	Tick     float64 `json:"quiet_tick_ms"`
	Pass     float64 `json:"quiet_pass_ms"`
	LostCell float64 `json:"lost_cell_ms"`
	Returns  float64 `json:"suspects_return_per_s"`
	RSS      int     `json:"rss_mb"`
}

func run(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := rig.Open(ctx, o.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := newBench(ctx, r, o)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.seed(ctx); err != nil {
		return err
	}
	out := report{Bench: "converge", LRPs: o.lrps, Cells: o.cells}
	for _, part := range []struct {
		name    string
		repeats int
		measure func(context.Context) (float64, error)
		into    *float64
	}{
		{"quiet tick, ms", o.repeats, b.quietTick, &out.Tick},
		{"quiet pass, ms", o.repeats, b.quietPass, &out.Pass},
		{"lost cell, ms", o.repeats, b.lostCell, &out.LostCell},
		{"suspects that return, a second", o.returns, b.returns, &out.Returns},
	} {
		var all []float64
		for range part.repeats {
			n, err := part.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
			logf("%s: %.2f", part.name, n)
			all = append(all, n)
		}
		*part.into = round(rig.Median(all))
	}
	if out.RSS, err = b.replica.MaxRSS(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// round keeps what is worth reading.
func round(x float64) float64 {
	if x > 1000 {
		return math.Round(x)
	}
	return math.Round(x*100) / 100
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
