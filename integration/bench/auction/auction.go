package main

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"time"

	"muster/auctioneer/auction"
	"muster/auctioneer/auction/naive"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/integration/bench/rig"
)

// weights are those that an auctioneer has by default.
var weights = auction.Weights{Starting: 0.25}

// auctionResult is a line about the core.
type auctionResult struct {
	Bench      string  `json:"bench"`
	Cells      int     `json:"cells"`
	Instances  int     `json:"instances"`
	PerSecond  float64 `json:"placements_per_s"`
	Seconds    float64 `json:"seconds"`
	SetupMS    float64 `json:"setup_ms"`
	Naive      float64 `json:"naive_placements_per_s"`
	Sample     int     `json:"naive_sample"`
	Mismatches int     `json:"oracle_mismatches"`
	Refused    int     `json:"refused"`
	RSS        int     `json:"rss_mb"`
}

// auctionSample is what one round measured.
type auctionSample struct {
	setup, auction time.Duration
	refused        int
	rssMB          int
}

// auctions measures one world.
func auctions(d dimensions, o options, profile string) (auctionResult, error) {
	logf("making %d cells and %d pieces of work", d.cells, d.instances)
	r := rand.New(rand.NewPCG(o.seed, uint64(d.cells)))
	all := work(d.instances, r)
	states := fleet(d.cells, all, r)
	var samples []auctionSample
	for n := range o.rounds {
		last := ""
		if n == o.rounds-1 {
			last = profile
		}
		s, err := auctionRound(all, states, last)
		if err != nil {
			return auctionResult{}, err
		}
		logf("round %d of %d, %d cells: index made in %v, %d pieces in %v, %d refused, %d MB resident",
			n+1, o.rounds, d.cells, s.setup, len(all), s.auction, s.refused, s.rssMB)
		samples = append(samples, s)
	}
	took := rig.MedianOf(samples, func(s auctionSample) float64 { return s.auction.Seconds() })
	res := auctionResult{
		Bench: "auction", Cells: d.cells, Instances: d.instances, PerSecond: math.Round(float64(d.instances) / took),
		Seconds: round(took, 3), SetupMS: round(rig.MedianOf(samples, func(s auctionSample) float64 { return s.setup.Seconds() * 1000 }), 1),
		Sample: o.sample, Refused: samples[0].refused, RSS: int(rig.MedianOf(samples, func(s auctionSample) float64 { return float64(s.rssMB) })),
	}
	var err error
	res.Naive, res.Mismatches, err = compare(all, states, o.sample)
	return res, err
}

func round(v float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(v*p) / p
}

// auctionRound makes a fleet and holds one auction over all work.
func auctionRound(all []auction.Work, states []cells.State, profile string) (s auctionSample, err error) {
	debug.FreeOSMemory()
	if err := resetPeak(); err != nil {
		return s, err
	}
	began := time.Now()
	f, err := newFleet(states)
	if err != nil {
		return s, err
	}
	s.setup = time.Since(began)
	end, err := startProfile(profile)
	if err != nil {
		return s, err
	}
	began = time.Now()
	placed, refused := f.Place(all)
	s.auction, s.refused = time.Since(began), len(refused)
	if err := end(); err != nil {
		return s, err
	}
	s.rssMB, err = rig.Peak(os.Getpid())
	runtime.KeepAlive(placed)
	return s, err
}

func newFleet(states []cells.State) (*auction.Fleet, error) {
	f := auction.New(weights)
	var errs []error
	for _, s := range states {
		errs = append(errs, f.Set(s))
	}
	return f, errors.Join(errs...)
}

// startProfile begins a CPU profile and returns how to end it; without a name it does nothing.
func startProfile(name string) (end func() error, err error) {
	if name == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}

// compare places all but a sample, and then the sample twice: by the plain rule and by the index. It returns how many
// pieces of it the rule decides a second, and about how many of them the two disagree.
func compare(all []auction.Work, states []cells.State, sample int) (perSecond float64, mismatches int, err error) {
	chosen := map[*auction.Work]bool{}
	for i := range sample {
		chosen[&all[i*len(all)/sample]] = true
	}
	var rest, few []auction.Work
	for i := range all {
		if chosen[&all[i]] {
			few = append(few, all[i])
		} else {
			rest = append(rest, all[i])
		}
	}
	f, err := newFleet(states)
	if err != nil {
		return 0, 0, err
	}
	placed, _ := f.Place(rest)
	rule := naive.New(with(states, placed), weights)
	logf("the plain rule decides a sample of %d", sample)
	began := time.Now()
	answers := rule.Place(few)
	perSecond = math.Round(float64(sample) / time.Since(began).Seconds())
	placed, refused := f.Place(few)
	return perSecond, differences(answers, placed, refused), nil
}

// with returns the states with what was placed on the cells.
func with(states []cells.State, placed []auction.Placement) []cells.State {
	states = slices.Clone(states)
	at := map[lrp.CellID]int{}
	for i := range states {
		at[states[i].Cell] = i
	}
	for _, p := range placed {
		s := &states[at[p.Cell]]
		s.StartingContainers++
		if p.Work.Task != nil {
			s.Tasks = append(s.Tasks, *p.Work.Task)
			s.Available = s.Available.Sub(p.Work.Task.Resources)
			continue
		}
		s.Instances = append(s.Instances, p.Work.Instance)
		s.Available = s.Available.Sub(p.Work.Resources)
		s.Available.MemoryMB -= s.ProxyMemoryAllocationMB
	}
	return states
}

// differences counts the pieces on which rule and index disagree.
func differences(answers []naive.Answer, placed []auction.Placement, refused []auction.Refusal) (n int) {
	got := map[*auction.Work]lrp.CellID{}
	for _, p := range placed {
		got[p.Work] = p.Cell
	}
	for _, r := range refused {
		got[r.Work] = ""
	}
	for _, a := range answers {
		if cell, answered := got[a.Work]; !answered || cell != a.Cell {
			n++
		}
	}
	return n
}
