// Command bbs measures the BBS: how many processes a second can be desired, and how many instances
// claimed and started, by many callers at once. BBS, callers and PostgreSQL are processes of their own
// on this machine, with mutual TLS between the first two and a PostgreSQL that syncs. Every call is
// about a process of its own, with the routes, metric tags and ports that Cloud Foundry gives it; claims
// and starts are made by cells with the certificates of cells.
//
// In the same run, in turn with it, the same change of a record and the same entry of the log are
// written one per transaction, by as many connections straight to the same PostgreSQL as do it fastest:
// what a store without group commit could reach at best.
//
// Progress goes to standard error, one JSON object for each number of callers to standard output, with
// medians of the rounds:
//
//	{"bench":"bbs","callers":256,"desires_per_s":…,"claims_per_s":…,"starts_per_s":…,"start_p99_ms":…,
//	 "row_per_tx_per_s":…,"ratio":…}
//
// With -lrps other instances exist and run while it measures; the object then has a member "lrps".
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

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/integration/bench/rig"
)

// warmUp is how many processes each of 64 callers makes before anything counts: enough for the search of
// the baseline, too.
const warmUp = 120

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	callers := flag.String("callers", "32,256", "how many callers at once, 1 to 4096; a line for each")
	flag.IntVar(&o.rounds, "rounds", 5, "how many rounds, 1 to 100; medians are reported")
	flag.IntVar(&o.size, "size", 60, "processes in a round for each caller at 32 callers, a third of it at 256, 1 to 10000")
	flag.IntVar(&o.connections, "connections", 8, "connections that the callers share, 1 to 256; each is that of another cell")
	flag.IntVar(&o.lrps, "lrps", 0, "instances that exist besides, 0 to 2000000")
	flag.BoolVar(&o.noBaseline, "no-baseline", false, "measure the BBS alone")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of the last starts to `file`.bbs and .callers")
	rig.Main("bbs", func() error { return o.parse(*callers) }, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// options are the flags.
type options struct {
	bin         string
	callers     []int
	rounds      int
	size        int
	connections int
	lrps        int
	noBaseline  bool
	profile     string
}

func (o *options) parse(callers string) (err error) {
	o.callers, err = rig.Callers(callers)
	return errors.Join(err, rig.Within("rounds", o.rounds, 1, 100), rig.Within("size", o.size, 1, 10000),
		rig.Within("connections", o.connections, 1, 256), rig.Within("lrps", o.lrps, 0, 2_000_000))
}

// result is what is printed.
type result struct {
	Bench   string  `json:"bench"`
	LRPs    int     `json:"lrps,omitempty"`
	Callers int     `json:"callers"`
	Desires float64 `json:"desires_per_s"`
	Claims  float64 `json:"claims_per_s"`
	Starts  float64 `json:"starts_per_s"`
	P99     float64 `json:"start_p99_ms"`
	RowByTx float64 `json:"row_per_tx_per_s"`
	Ratio   float64 `json:"ratio"`
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	r, err := rig.Open(ctx, o.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := open(ctx, r, o)
	if err != nil {
		return err
	}
	defer b.base.close()
	if err := b.seed(ctx, o.lrps); err != nil {
		return err
	}
	logf("warming up, and looking for the best number of connections for a row per transaction")
	if _, err := b.round(ctx, 64, warmUp); err != nil {
		return err
	}
	if !o.noBaseline {
		if err := b.base.search(ctx); err != nil {
			return err
		}
	}
	return b.measure(ctx, out)
}

// bench is a BBS under measurement.
type bench struct {
	o       options
	rig     *rig.Rig
	replica *rig.Replica
	clients []*bbsclient.Client // of whoever desires
	cells   []*bbsclient.Client // the n-th is that of rig.Cell(n)
	base    *baseline
	made    int // processes that exist

	profiling bool // in this round
}

func open(ctx context.Context, r *rig.Rig, o options) (*bench, error) {
	b := &bench{o: o, rig: r}
	var err error
	if b.replica, err = r.Replica(ctx); err != nil {
		return nil, err
	}
	if b.clients, b.cells, err = r.Callers(b.replica, o.connections); err != nil {
		return nil, err
	}
	b.base, err = newBaseline(ctx, r.URL())
	return b, err
}

// seed makes instances that exist and run.
func (b *bench) seed(ctx context.Context, lrps int) error {
	if lrps == 0 {
		return nil
	}
	logf("making %d instances that run", lrps)
	return rig.Seed(ctx, rig.SeedOptions{Clients: b.clients, Cells: b.cells, From: 0, To: lrps, Progress: logf})
}

// profile begins CPU profiles of BBS and callers, if it is time for them, and returns how to end them.
func (b *bench) profile() (end func() error) {
	if !b.profiling {
		return rig.ProfileBoth(b.replica, "")
	}
	return rig.ProfileBoth(b.replica, b.o.profile)
}

// sample is what one round measured.
type sample struct {
	desires, claims, starts, p99, rowByTx float64
	// cpu is the processor time of a start in microseconds: of the BBS, of PostgreSQL and of the callers.
	// Unlike the others it hardly depends on what else the machine does.
	cpu [3]float64
	// batch is how many starts went into a transaction on average.
	batch float64
}

func (b *bench) cpu() [3]time.Duration {
	return [3]time.Duration{b.replica.CPU(), b.rig.PostgresCPU(), rig.OwnCPU()}
}

// round desires, claims and starts as many processes, and lets the baseline start as many.
func (b *bench) round(ctx context.Context, callers, size int) (s sample, err error) {
	n := size * callers
	if callers >= 256 {
		n /= 3 // it takes no longer, and disturbs no more, than with fewer callers
	}
	processes := make([]lrp.ProcessGUID, n)
	for i := range processes {
		processes[i] = rig.Process("a99", b.made+i)
	}
	b.made += n
	desired, err := rig.Desire(ctx, b.clients, callers, processes, 1)
	if err != nil {
		return s, fmt.Errorf("desire: %w", err)
	}
	report := func(event func(lrp.Slot, lrp.CellID) lrp.Event) (rig.Measured, error) {
		return rig.Work(ctx, callers, n, func(ctx context.Context, _, i int) error {
			cell := i % len(b.cells) // the same for claim and start, whoever calls
			return b.cells[cell].Apply(ctx, event(lrp.Slot{Process: processes[i]}, rig.Cell(cell)))
		})
	}
	claimed, err := report(rig.Claim)
	if err != nil {
		return s, fmt.Errorf("claim: %w", err)
	}
	if !b.o.noBaseline {
		if err := b.base.copyClaimed(ctx, processes); err != nil {
			return s, err
		}
	}
	commits, err := b.replica.Metrics(ctx, "bbs_commits_total")
	if err != nil {
		return s, err
	}
	profiled, before := b.profile(), b.cpu()
	started, err := report(rig.Start)
	err = errors.Join(err, profiled())
	for i, after := range b.cpu() {
		s.cpu[i] = float64((after - before[i]).Microseconds()) / float64(n)
	}
	if err != nil {
		return s, fmt.Errorf("start: %w", err)
	}
	since, err := b.replica.Metrics(ctx, "bbs_commits_total")
	if err != nil {
		return s, err
	}
	s.batch = float64(n) / (since[0] - commits[0])
	s.desires, s.claims, s.starts, s.p99 = desired.PerSecond, claimed.PerSecond, started.PerSecond, started.P99.Seconds()*1000
	if !b.o.noBaseline {
		s.rowByTx, err = b.base.start(ctx)
	}
	return s, err
}

func (b *bench) measure(ctx context.Context, out io.Writer) error {
	samples := make([][]sample, len(b.o.callers))
	for round := range b.o.rounds {
		for i, callers := range b.o.callers {
			b.profiling = b.o.profile != "" && round == b.o.rounds-1 && i == len(b.o.callers)-1
			s, err := b.round(ctx, callers, b.o.size)
			if err != nil {
				return err
			}
			logf("round %d of %d, %d callers: %.0f desires, %.0f claims, %.0f starts a second; a row per transaction %.0f, with %d connections; processor time of a start: BBS %.0f µs, PostgreSQL %.0f, callers %.0f; %.1f of them in a transaction",
				round+1, b.o.rounds, callers, s.desires, s.claims, s.starts, s.rowByTx, b.base.best, s.cpu[0], s.cpu[1], s.cpu[2], s.batch)
			samples[i] = append(samples[i], s)
		}
	}
	for i, callers := range b.o.callers {
		if err := json.NewEncoder(out).Encode(b.result(callers, samples[i])); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) result(callers int, samples []sample) result {
	median := func(figure func(sample) float64) float64 { return rig.MedianOf(samples, figure) }
	r := result{
		Bench: "bbs", LRPs: b.o.lrps, Callers: callers,
		Desires: math.Round(median(func(s sample) float64 { return s.desires })),
		Claims:  math.Round(median(func(s sample) float64 { return s.claims })),
		Starts:  math.Round(median(func(s sample) float64 { return s.starts })),
		P99:     math.Round(median(func(s sample) float64 { return s.p99 })*10) / 10,
		RowByTx: math.Round(median(func(s sample) float64 { return s.rowByTx })),
	}
	if r.RowByTx > 0 {
		r.Ratio = math.Round(r.Starts/r.RowByTx*100) / 100
	}
	return r
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
