// Command door measures what Diego's clients pay for their language: how many instances a second can be
// started through the routes of Diego, and through gRPC, by as many callers. BBS, callers and PostgreSQL are
// processes of their own on this machine, with mutual TLS between the first two and a PostgreSQL that syncs.
//
// Both ways take turns, round by round, and do the same: every start is that of a process of its own, with
// everything that a real cell reports, made with the certificate of its cell. Over HTTP each cell keeps its
// connections and has as many as it has calls at once, as Diego's client does; over gRPC it has one.
//
// Progress goes to standard error, one JSON object for each number of callers to standard output, with
// medians of the rounds:
//
//	{"bench":"door","callers":32,"starts_per_s":…,"grpc_starts_per_s":…,"ratio":…}
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

// warmUps and warmUp are how often, and how many processes each caller starts either way before anything
// counts: until all the connections are there that so many callers need.
const warmUps, warmUp = 2, 60

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	callers := flag.String("callers", "32,256", "how many callers at once, 1 to 4096; a line for each")
	flag.IntVar(&o.rounds, "rounds", 7, "how many rounds, 1 to 100; medians are reported")
	flag.IntVar(&o.size, "size", 120, "processes in a round for each caller at 32 callers, a third of it at 256, 1 to 10000")
	flag.IntVar(&o.connections, "connections", 8, "connections of the gRPC callers, 1 to 256; each is that of another cell")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of the last starts over HTTP to `file`.bbs and .callers")
	rig.Main("door", func() error { return o.parse(*callers) }, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// options are the flags.
type options struct {
	bin         string
	callers     []int
	rounds      int
	size        int
	connections int
	profile     string
}

func (o *options) parse(callers string) (err error) {
	o.callers, err = rig.Callers(callers)
	return errors.Join(err, rig.Within("rounds", o.rounds, 1, 100), rig.Within("size", o.size, 1, 10000),
		rig.Within("connections", o.connections, 1, 256))
}

// result is what is printed.
type result struct {
	Bench   string  `json:"bench"`
	Callers int     `json:"callers"`
	Starts  float64 `json:"starts_per_s"`
	GRPC    float64 `json:"grpc_starts_per_s"`
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
	logf("warming up")
	for range warmUps {
		for _, callers := range o.callers {
			if _, err := b.round(ctx, callers, warmUp); err != nil {
				return err
			}
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
	door    *door
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
	b.door, err = openDoor(r, b.replica, rig.CellIDs(o.connections))
	return b, err
}

// sample is what one round measured.
type sample struct {
	starts, grpc float64
	// cpu is the processor time of a start in microseconds, of the BBS and of the callers, over HTTP and over
	// gRPC. Unlike the others it hardly depends on what else the machine does.
	cpu, grpcCPU [2]float64
}

// start reports a start.
type start func(ctx context.Context, s lrp.Slot, cell int) error

// round starts as many processes one way as the other.
func (b *bench) round(ctx context.Context, callers, size int) (s sample, err error) {
	n := size * callers
	if callers >= 256 {
		n /= 3 // it takes no longer than with fewer callers
	}
	grpc := func(ctx context.Context, s lrp.Slot, cell int) error {
		return b.cells[cell].Apply(ctx, rig.Start(s, rig.Cell(cell)))
	}
	unprofiled := func() func() error { return func() error { return nil } }
	if s.grpc, s.grpcCPU, err = b.starts(ctx, callers, n, grpc, unprofiled); err != nil {
		return s, fmt.Errorf("start over gRPC: %w", err)
	}
	if s.starts, s.cpu, err = b.starts(ctx, callers, n, b.door.start, b.profile); err != nil {
		return s, fmt.Errorf("start over HTTP: %w", err)
	}
	return s, nil
}

// starts desires and claims n processes, and measures their starts.
func (b *bench) starts(ctx context.Context, callers, n int, start start, profile func() (end func() error)) (perSecond float64, cpu [2]float64, err error) {
	processes := make([]lrp.ProcessGUID, n)
	for i := range processes {
		processes[i] = rig.Process("d00", b.made+i)
	}
	b.made += n
	if _, err := rig.Desire(ctx, b.clients, callers, processes, 1); err != nil {
		return 0, cpu, fmt.Errorf("desire: %w", err)
	}
	if _, err := rig.Work(ctx, callers, n, func(ctx context.Context, _, i int) error {
		cell := i % len(b.cells)
		return b.cells[cell].Apply(ctx, rig.Claim(lrp.Slot{Process: processes[i]}, rig.Cell(cell)))
	}); err != nil {
		return 0, cpu, fmt.Errorf("claim: %w", err)
	}
	profiled, bbs, own := profile(), b.replica.CPU(), rig.OwnCPU()
	measured, err := rig.Work(ctx, callers, n, func(ctx context.Context, _, i int) error {
		return start(ctx, lrp.Slot{Process: processes[i]}, i%len(b.cells))
	})
	cpu = [2]float64{micros(b.replica.CPU()-bbs, n), micros(rig.OwnCPU()-own, n)}
	return measured.PerSecond, cpu, errors.Join(err, profiled())
}

func micros(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(n) }

// profile begins CPU profiles of BBS and callers, if it is time for them, and returns how to end them.
func (b *bench) profile() (end func() error) {
	if !b.profiling {
		return rig.ProfileBoth(b.replica, "")
	}
	return rig.ProfileBoth(b.replica, b.o.profile)
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
			logf("round %d of %d, %d callers: %.0f starts a second over HTTP, %.0f over gRPC; processor time of a start over HTTP: BBS %.0f µs, callers %.0f; over gRPC: BBS %.0f, callers %.0f",
				round+1, b.o.rounds, callers, s.starts, s.grpc, s.cpu[0], s.cpu[1], s.grpcCPU[0], s.grpcCPU[1])
			samples[i] = append(samples[i], s)
		}
	}
	for i, callers := range b.o.callers {
		if err := json.NewEncoder(out).Encode(summarize(callers, samples[i])); err != nil {
			return err
		}
	}
	return nil
}

func summarize(callers int, samples []sample) result {
	median := func(figure func(sample) float64) float64 { return rig.MedianOf(samples, figure) }
	r := result{
		Bench: "door", Callers: callers,
		Starts: math.Round(median(func(s sample) float64 { return s.starts })),
		GRPC:   math.Round(median(func(s sample) float64 { return s.grpc })),
	}
	// The median of the ratios of the rounds: what slows the machine down for a while slows down both.
	r.Ratio = math.Round(median(func(s sample) float64 { return s.starts / s.grpc })*100) / 100
	return r
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
