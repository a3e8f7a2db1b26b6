// Command cell measures what a cell adds to the container runtime: how long a start takes and how many there
// are a second, beside the plain containerd client in the same run and in turn with it; how fast a new rep takes
// over what an old one left; and what containers cost that only run.
//
// Ours is a real rep, as a process of its own, with a real BBS, PostgreSQL and containerd. A start is counted
// from the call of Perform, with which an auctioneer gives the work to the cell, to the first HTTP answer of
// the application through its host port: so the reservation, reading the recipe and the claim at the BBS are in it. Raw is the
// same image with the same containerd, the same network and a host port, and nothing else (package rawbench), from the
// first call of containerd to the same answer. Both are asked every millisecond, or every 20 ms when many
// start at once, from the moment that the process is started.
//
// Parallel starts: so many at once, from the first call until all have answered. For adopt_100_ms the rep is
// killed and started anew: it is what the new one counts from the beginning of the adoption until it has all
// containers, as it says itself. adopted_restarts are containers of which any process is another one afterwards, by
// number and start time. rep_rss_mb_per_100 is what the memory of the rep has grown by; idle_cpu_ms_per_s_100 is
// the processor time of rep, containerd, shims and inits, but not of the applications, while each of 100 containers is
// checked over HTTP every 30 s.
//
// Everything is on this machine, beside any other stack, and is gone afterwards. It needs root. Progress goes to
// standard error, one JSON object to standard output:
//
//	{"bench":"cell","start_ms_p50":…,"raw_start_ms_p50":…,"start_ratio":…,"parallel_starts_per_s":…,
//	 "raw_parallel_starts_per_s":…,"parallel_ratio":…,"adopt_100_ms":…,"adopted_restarts":0,
//	 "rep_rss_mb_per_100":…,"idle_cpu_ms_per_s_100":…}
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"muster/integration/bench/rig"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	flag.IntVar(&o.runs, "runs", 20, "how many single starts of either kind, 1 to 1000; 0: leave them and the parallel ones out")
	flag.IntVar(&o.parallel, "parallel", 32, "how many starts at once, 1 to 64")
	flag.IntVar(&o.rounds, "rounds", 3, "how many times so many at once of either kind, 1 to 100; medians are reported")
	flag.IntVar(&o.containers, "containers", 100, "how many containers run, and are adopted, 1 to 200; 0: leave that out")
	flag.DurationVar(&o.idle, "idle", 60*time.Second, "how long the containers are watched that only run, 10s to 1h; below 60s not each of them is checked twice")
	rig.Main("cell", o.check, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// options are the flags.
type options struct {
	bin                                string
	runs, parallel, rounds, containers int
	idle                               time.Duration
}

func (o *options) check() error {
	err := errors.Join(rig.Within("runs", o.runs, 0, 1000), rig.Within("parallel", o.parallel, 1, 64),
		rig.Within("rounds", o.rounds, 1, 100), rig.Within("containers", o.containers, 0, 200))
	if o.idle < 10*time.Second || o.idle > time.Hour {
		err = errors.Join(err, fmt.Errorf("-idle %v: want 10s to 1h", o.idle))
	}
	return err
}

// result is what is printed.
type result struct {
	Bench         string  `json:"bench"`
	Start         float64 `json:"start_ms_p50"`
	RawStart      float64 `json:"raw_start_ms_p50"`
	StartRatio    float64 `json:"start_ratio"`
	Parallel      float64 `json:"parallel_starts_per_s"`
	RawParallel   float64 `json:"raw_parallel_starts_per_s"`
	ParallelRatio float64 `json:"parallel_ratio"`
	Adopt         float64 `json:"adopt_100_ms"`
	Restarts      int     `json:"adopted_restarts"`
	RSS           float64 `json:"rep_rss_mb_per_100"`
	IdleCPU       float64 `json:"idle_cpu_ms_per_s_100"`
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	b, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(context.WithoutCancel(ctx))) }()
	res := result{Bench: "cell"}
	if o.runs > 0 {
		if err := b.starts(ctx, &res); err != nil {
			return err
		}
	}
	if o.containers > 0 {
		if err := b.idle(ctx, &res); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(res)
}

// milliseconds returns a duration in milliseconds, to the hundredth.
func milliseconds(d time.Duration) float64 { return rounded(float64(d) / float64(time.Millisecond)) }

func rounded(f float64) float64 { return math.Round(f*100) / 100 }

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
