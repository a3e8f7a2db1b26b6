// Command watch measures what it costs to be watched: two replicas of the BBS on one PostgreSQL, and a
// thousand watchers that reconnect at random, to either replica, and resume by revision. Most watch one
// cell each, with the certificate of that cell, as reps do; some watch a process or a domain; two watch
// everything, as auctioneer and route-emitter do. In turn, instances are started with the watchers and
// without them; the ratio is of the medians.
//
// Every watcher keeps the revisions that it was sent. In the end one reader gets the whole log, and each
// must have got exactly what its filter selects of what was committed after it began, once and in order.
//
// Progress goes to standard error, one JSON object to standard output:
//
//	{"bench":"watch","watchers":1000,"starts_per_s_ratio":…,"lost":0,"repeated":0,"resumes":…,
//	 "starts_per_s":…,"starts_per_s_unwatched":…}
//
// With -kill one of the replicas is killed, without warning, in each round with watchers, and started
// again at once; starts then go to the other one only.
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
	"os/signal"
	"syscall"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/integration/bench/rig"
	"muster/internal/identity"
)

// settleTime is how long the watchers may take, after a round, to get what was committed in it.
const settleTime = 30 * time.Second

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	flag.IntVar(&o.watchers, "watchers", 1000, "how many watchers, 10 to 10000")
	flag.IntVar(&o.callers, "callers", 256, "how many starts are made at once, 1 to 4096")
	flag.IntVar(&o.size, "size", 20000, "starts in a round, 100 to 1000000")
	flag.IntVar(&o.rounds, "rounds", 4, "how many rounds with and as many without watchers, 1 to 100")
	flag.DurationVar(&o.stay, "stay", 10*time.Second, "how long a watcher stays connected, half to one and a half of it, 100ms to 10m")
	flag.BoolVar(&o.kill, "kill", false, "kill a replica in each round")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := o.check()
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/watch:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	bin                             string
	watchers, callers, size, rounds int
	stay                            time.Duration
	kill                            bool
}

func (o options) check() error {
	var errs []error
	for _, f := range []struct {
		name             string
		value, low, high int
	}{
		{"watchers", o.watchers, 10, 10000}, {"callers", o.callers, 1, 4096}, {"size", o.size, 100, 1_000_000}, {"rounds", o.rounds, 1, 100},
	} {
		if f.value < f.low || f.value > f.high {
			errs = append(errs, fmt.Errorf("-%s %d: want %d to %d", f.name, f.value, f.low, f.high))
		}
	}
	if o.stay < 100*time.Millisecond || o.stay > 10*time.Minute {
		errs = append(errs, fmt.Errorf("-stay %v: want 100ms to 10m", o.stay))
	}
	return errors.Join(errs...)
}

// result is what is printed.
type result struct {
	Bench     string  `json:"bench"`
	Watchers  int     `json:"watchers"`
	Ratio     float64 `json:"starts_per_s_ratio"`
	Lost      int     `json:"lost"`
	Repeated  int     `json:"repeated"`
	Resumes   int     `json:"resumes"`
	Starts    float64 `json:"starts_per_s"`
	Unwatched float64 `json:"starts_per_s_unwatched"`
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	r, err := rig.Open(ctx, o.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b := &bench{o: o, rig: r}
	if err := b.open(ctx); err != nil {
		return err
	}
	res, err := b.measure(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(res)
}

// bench is two replicas, and those who start instances on them.
type bench struct {
	o        options
	rig      *rig.Rig
	replicas [2]*rig.Replica
	clients  []*bbsclient.Client
	cells    [][]*bbsclient.Client // by replica; the n-th is that of rig.Cell(n)
	crowd    *crowd
	made     int
}

func (b *bench) open(ctx context.Context) error {
	for i := range b.replicas {
		replica, err := b.rig.Replica(ctx)
		if err != nil {
			return err
		}
		b.replicas[i] = replica
	}
	var err error
	if b.clients, err = b.rig.Clients(b.replicas[1], []identity.ID{{Role: identity.Client}, {Role: identity.Client}}); err != nil {
		return err
	}
	for _, replica := range b.replicas {
		// Every cell has a connection of its own to each replica, for what it reports.
		cells, err := b.rig.Clients(replica, rig.CellIDs(b.o.watchers))
		if err != nil {
			return err
		}
		b.cells = append(b.cells, cells)
	}
	logf("%d watchers connect", b.o.watchers)
	if b.crowd, err = newCrowd(b); err != nil {
		return err
	}
	return b.rig.Connect(ctx)
}

// round desires, claims and starts; only the starts are measured, and only they are watched.
func (b *bench) round(ctx context.Context, watched bool) (rate float64, err error) {
	n := b.o.size
	processes := make([]lrp.ProcessGUID, n)
	for i := range processes {
		processes[i] = rig.Process("3a7c4", b.made+i)
	}
	b.made += n
	if _, err := rig.Desire(ctx, b.clients, b.o.callers, processes, 1); err != nil {
		return 0, fmt.Errorf("desire: %w", err)
	}
	report := func(event func(lrp.Slot, lrp.CellID) lrp.Event) (rig.Measured, error) {
		return rig.Work(ctx, b.o.callers, n, func(ctx context.Context, _, i int) error {
			cell := i % b.o.watchers
			replica := 1
			if !b.o.kill {
				replica = cell % len(b.replicas)
			}
			return b.cells[replica][cell].Apply(ctx, event(lrp.Slot{Process: processes[i]}, rig.Cell(cell)))
		})
	}
	if _, err := report(rig.Claim); err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	if watched {
		if err := b.crowd.watch(ctx, processes); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, b.crowd.leave(ctx)) }()
	}
	killed := make(chan error, 1)
	if watched && b.o.kill {
		go func() { killed <- b.killOne(ctx) }()
	} else {
		killed <- nil
	}
	started, err := report(rig.Start)
	if err := errors.Join(err, <-killed); err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	return started.PerSecond, nil
}

// killOne kills the first replica and starts it again where it was.
func (b *bench) killOne(ctx context.Context) error {
	logf("killing a replica")
	if err := b.replicas[0].Kill(); err != nil {
		return err
	}
	return b.rig.Restart(ctx, b.replicas[0])
}

func (b *bench) measure(ctx context.Context) (result, error) {
	logf("warming up")
	if _, err := b.round(ctx, false); err != nil {
		return result{}, err
	}
	var with, without []float64
	for round := range b.o.rounds {
		watched, err := b.round(ctx, true)
		if err != nil {
			return result{}, err
		}
		unwatched, err := b.round(ctx, false)
		if err != nil {
			return result{}, err
		}
		logf("round %d of %d: %.0f starts a second with watchers, %.0f without; %d resumes so far", round+1, b.o.rounds, watched, unwatched, b.crowd.resumes.Load())
		with, without = append(with, watched), append(without, unwatched)
	}
	lost, repeated, err := b.crowd.check(ctx)
	if err != nil {
		return result{}, err
	}
	res := result{
		Bench: "watch", Watchers: b.o.watchers, Lost: lost, Repeated: repeated, Resumes: int(b.crowd.resumes.Load()),
		Starts: math.Round(rig.Median(with)), Unwatched: math.Round(rig.Median(without)),
	}
	res.Ratio = math.Round(rig.Median(with)/rig.Median(without)*1000) / 1000
	return res, nil
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
