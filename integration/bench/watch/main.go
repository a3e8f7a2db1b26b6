// Command watch measures what it costs to be watched: two replicas of the BBS on one PostgreSQL, and a
// thousand watchers that reconnect at random, to either replica, and resume by revision. Most watch one
// cell each, with the certificate of that cell and over the connection by which it reports, as reps do;
// some of these one domain there; one in fifty watches a process; two watch everything, as auctioneer and
// route-emitter do.
//
// A watcher stays for -stay on average, at any moment as likely to leave as at any other, and then
// watches either replica: with 20 s, 50 of 1,000 come anew each second. One in twenty of them makes a new
// connection for it, mutual TLS and all, and so each watcher every 400 s; real cells do both more rarely.
//
// In each round so many instances are started with the watchers there, and as many without them, right
// after each other, in turn in either order; both times the two replicas run, have the same connections,
// and each takes half of the calls. The ratio is the median of those of the rounds. So is that of the
// processor time that replicas, PostgreSQL and clients, watchers included, take for a start: it varies
// less than the rate when others use the machine too.
//
// Every watcher keeps the revisions that it was sent. In the end one reader gets the whole log, and each
// must have got exactly what its filter selects of what was committed after it began, once and in order.
//
// Progress goes to standard error, one JSON object to standard output:
//
//	{"bench":"watch","watchers":1000,"starts_per_s_ratio":…,"lost":0,"repeated":0,"resumes":…,
//	 "starts_per_s":…,"starts_per_s_unwatched":…,"cpu_per_start_ratio":…}
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
	"time"

	"google.golang.org/grpc"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/integration/bench/rig"
	"muster/internal/identity"
)

// settleTime is how long the watchers may take, after a round, to get what was committed in it.
const settleTime = 30 * time.Second

// staysPerConnection is how often, on average, a watcher watches before it makes a new connection for it.
const staysPerConnection = 20

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	flag.IntVar(&o.watchers, "watchers", 1000, "how many watchers, 10 to 10000")
	flag.IntVar(&o.callers, "callers", 256, "how many starts are made at once, 1 to 4096")
	flag.IntVar(&o.size, "size", 20000, "starts in a round with watchers, and as many without, 100 to 500000")
	flag.IntVar(&o.rounds, "rounds", 4, "how many rounds, 1 to 100")
	flag.DurationVar(&o.stay, "stay", 20*time.Second, "how long a watcher stays with one replica on average, 100ms to 10m")
	flag.BoolVar(&o.kill, "kill", false, "kill a replica in each round")
	rig.Main("watch", func() error { return o.check() }, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
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
	errs = append(errs, rig.Within("watchers", o.watchers, 10, 10000), rig.Within("callers", o.callers, 1, rig.MaxCallers),
		rig.Within("size", o.size, 100, 500_000), rig.Within("rounds", o.rounds, 1, 100))
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
	// CPURatio is not there when replicas are killed: what they took is gone with them.
	CPURatio float64 `json:"cpu_per_start_ratio,omitempty"`
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
	cells    []*party // the n-th is rig.Cell(n)
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
	for _, id := range rig.CellIDs(b.o.watchers) {
		p, err := b.party(id)
		if err != nil {
			return err
		}
		b.cells = append(b.cells, p)
	}
	logf("%d watchers connect", b.o.watchers)
	if b.crowd, err = newCrowd(b); err != nil {
		return err
	}
	return b.rig.Connect(ctx)
}

// party is somebody who has a connection to each replica, over which it both reports and watches.
type party struct {
	conns   []*grpc.ClientConn
	clients []*bbsclient.Client
	dial    []func() (*grpc.ClientConn, error) // makes another connection
}

func (b *bench) party(id identity.ID) (*party, error) {
	p := &party{}
	for _, replica := range b.replicas {
		dial, err := b.rig.Dialer(replica, id)
		if err != nil {
			return nil, err
		}
		conn, err := b.rig.Dial(replica, id)
		if err != nil {
			return nil, err
		}
		p.conns, p.clients, p.dial = append(p.conns, conn), append(p.clients, bbsclient.New(conn)), append(p.dial, dial)
	}
	return p, nil
}

// part is one measurement.
type part struct {
	perSecond float64
	cpu       costs // of one start
}

// round desires and claims, and then starts one half with the watchers there and the other half without
// them, in turn in either order. Only the starts are measured.
func (b *bench) round(ctx context.Context, n int) (watched, unwatched part, err error) {
	processes := make([]lrp.ProcessGUID, 2*b.o.size)
	for i := range processes {
		processes[i] = rig.Process("3a7c4", b.made+i)
	}
	b.made += len(processes)
	if _, err := rig.Desire(ctx, b.clients, b.o.callers, processes, 1); err != nil {
		return watched, unwatched, fmt.Errorf("desire: %w", err)
	}
	if _, err := b.report(ctx, processes, rig.Claim); err != nil {
		return watched, unwatched, fmt.Errorf("claim: %w", err)
	}
	for half := range 2 {
		of := processes[half*b.o.size:][:b.o.size]
		if half == n%2 {
			watched, err = b.watched(ctx, of)
		} else {
			unwatched, err = b.start(ctx, of)
		}
		if err != nil {
			return watched, unwatched, fmt.Errorf("start: %w", err)
		}
	}
	return watched, unwatched, nil
}

// report makes cells tell the BBS one event of each process.
func (b *bench) report(ctx context.Context, processes []lrp.ProcessGUID, event func(lrp.Slot, lrp.CellID) lrp.Event) (rig.Measured, error) {
	return rig.Work(ctx, b.o.callers, len(processes), func(ctx context.Context, _, i int) error {
		cell := i % b.o.watchers
		replica := 1
		if !b.o.kill {
			replica = cell % len(b.replicas)
		}
		return b.cells[cell].clients[replica].Apply(ctx, event(lrp.Slot{Process: processes[i]}, rig.Cell(cell)))
	})
}

// start starts the instances of some processes.
func (b *bench) start(ctx context.Context, processes []lrp.ProcessGUID) (part, error) {
	before := b.costs()
	m, err := b.report(ctx, processes, rig.Start)
	return part{m.PerSecond, b.costs().since(before, len(processes))}, err
}

// watched is start with the watchers there.
func (b *bench) watched(ctx context.Context, processes []lrp.ProcessGUID) (part, error) {
	if err := b.crowd.watch(ctx, processes); err != nil {
		return part{}, err
	}
	killed := make(chan error, 1)
	if b.o.kill {
		go func() { killed <- b.killOne(ctx) }()
	} else {
		killed <- nil
	}
	p, err := b.start(ctx, processes)
	return p, errors.Join(err, <-killed, b.crowd.leave(ctx))
}

// costs are the processor times that were taken by replicas, PostgreSQL and the bench itself, whose cells
// and watchers are clients.
type costs [3]time.Duration

func (b *bench) costs() costs {
	c := costs{1: b.rig.PostgresCPU(), 2: rig.OwnCPU()}
	for _, r := range b.replicas {
		c[0] += r.CPU()
	}
	return c
}

// since returns what each of n things has cost.
func (c costs) since(before costs, n int) costs {
	for i := range c {
		c[i] = (c[i] - before[i]) / time.Duration(n)
	}
	return c
}

func (c costs) total() time.Duration { return c[0] + c[1] + c[2] }

func (c costs) String() string {
	return fmt.Sprintf("%d µs (bbs %d, PostgreSQL %d, clients %d)", c.total().Microseconds(), c[0].Microseconds(), c[1].Microseconds(), c[2].Microseconds())
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
	var with, without, ratios, cpu []float64
	for n := range b.o.rounds + 1 {
		watched, unwatched, err := b.round(ctx, n)
		if err != nil {
			return result{}, err
		}
		name := fmt.Sprintf("round %d of %d", n, b.o.rounds)
		if n == 0 {
			name = "warming up"
		}
		logf("%s: %.0f starts a second with watchers, %.0f without; processor time of a start %v and %v; %d resumes so far",
			name, watched.perSecond, unwatched.perSecond, watched.cpu, unwatched.cpu, b.crowd.resumes.Load())
		if n == 0 {
			continue
		}
		with, without = append(with, watched.perSecond), append(without, unwatched.perSecond)
		ratios = append(ratios, watched.perSecond/unwatched.perSecond)
		if !b.o.kill {
			cpu = append(cpu, float64(watched.cpu.total())/float64(unwatched.cpu.total()))
		}
	}
	lost, repeated, err := b.crowd.check(ctx)
	if err != nil {
		return result{}, err
	}
	return result{
		Bench: "watch", Watchers: b.o.watchers, Ratio: thousandths(rig.Median(ratios)), Lost: lost, Repeated: repeated,
		Resumes: int(b.crowd.resumes.Load()), Starts: math.Round(rig.Median(with)), Unwatched: math.Round(rig.Median(without)),
		CPURatio: thousandths(rig.Median(cpu)),
	}, nil
}

func thousandths(x float64) float64 { return math.Round(x*1000) / 1000 }

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
