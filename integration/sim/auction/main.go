// Command auction plays the scenarios by which schedulers of Diego's kind are known: a cold start, a deployment that
// leaves cells unlike each other, one application over uneven zones, packing. It writes a report to standard output
// and a picture of the cells before and after, and shows what the weights do:
//
//	go run ./integration/sim/auction -scenario imbalance -starting 0.5
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

func main() {
	var o options
	names := strings.Join(slices.Sorted(maps.Keys(scenarios)), ", ")
	flag.StringVar(&o.scenario, "scenario", "all", "one of "+names+"; or all")
	flag.Float64Var(&o.weights.Starting, "starting", 0.25, "weight of a starting container, 0 or more; packing scenarios use 0.5 unless it is given")
	flag.Float64Var(&o.weights.BinPack, "bin-pack", 0, "weight of a position in a zone, 0 or more; packing scenarios use 0.5 unless it is given")
	maxStarting := flag.Int("max-starting", 0, "how many containers may start at once, 0: no bound")
	flag.Uint64Var(&o.seed, "seed", 1, "of the scenarios that draw colours and loads")
	flag.StringVar(&o.dir, "out", filepath.Join(os.TempDir(), "muster-auction"), "directory of the pictures")
	flag.Parse()
	o.weights.MaxStarting = int32(min(*maxStarting, 1<<30))
	flag.Visit(func(f *flag.Flag) { o.given = append(o.given, f.Name) })
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sim/auction:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	scenario string
	weights  auction.Weights
	given    []string // names of the flags that were set
	seed     uint64
	dir      string
}

func run(o options, out io.Writer) error {
	chosen := slices.Sorted(maps.Keys(scenarios))
	if o.scenario != "all" {
		if _, ok := scenarios[o.scenario]; !ok {
			return fmt.Errorf("-scenario %q: want one of %s, or all", o.scenario, strings.Join(chosen, ", "))
		}
		chosen = []string{o.scenario}
	}
	if err := errors.Join(o.weights.Check(), os.MkdirAll(o.dir, 0o755)); err != nil {
		return err
	}
	for _, name := range chosen {
		if err := o.play(name, out); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// weightsFor are the weights of a scenario: those that are given, else its own.
func (o options) weightsFor(s scenario) auction.Weights {
	w := o.weights
	if s.packs && !slices.Contains(o.given, "starting") {
		w.Starting = 0.5
	}
	if s.packs && !slices.Contains(o.given, "bin-pack") {
		w.BinPack = 0.5
	}
	return w
}

// play plays one scenario.
func (o options) play(name string, out io.Writer) error {
	s := scenarios[name]
	w := o.weightsFor(s)
	before, work := s.make(o.seed)
	res := auction.Run(work, before, w)
	if res.Complaints != nil {
		return res.Complaints
	}
	after := with(before, res.Placed)
	moves := 0
	if s.rebalances {
		before = append(after, newCell(len(after)))
		plan := auction.Rebalance(before, w, len(work))
		after, moves = moved(before, plan), len(plan)
	}
	r := report{name: name, about: s.about, weights: w, before: before, after: after, result: res, moves: moves}
	r.write(out)
	file := filepath.Join(o.dir, name+".svg")
	fmt.Fprintf(out, "picture    %s\n\n", file)
	return os.WriteFile(file, []byte(r.svg()), 0o644)
}

// with returns the states with what was placed, which runs by then.
func with(states []cells.State, placed []auction.Placement) []cells.State {
	states = slices.Clone(states)
	at := index(states)
	for _, p := range placed {
		put(&states[at[p.Cell]], p.Work.Instance)
	}
	return states
}

// moved returns the states after some moves.
func moved(states []cells.State, moves []auction.Move) []cells.State {
	states = slices.Clone(states)
	at := index(states)
	for _, m := range moves {
		from := &states[at[m.From]]
		from.Available = from.Available.Add(m.Instance.Resources)
		n := slices.IndexFunc(from.Instances, func(i cells.Instance) bool { return i.Key == m.Instance.Key })
		from.Instances = slices.Delete(slices.Clone(from.Instances), n, n+1)
		put(&states[at[m.To]], m.Instance)
	}
	return states
}

func put(s *cells.State, i cells.Instance) {
	i.State = cells.InstanceRunning
	s.Available = s.Available.Sub(i.Resources)
	s.Instances = append(slices.Clip(s.Instances), i)
}

func index(states []cells.State) map[lrp.CellID]int {
	at := map[lrp.CellID]int{}
	for i, s := range states {
		at[s.Cell] = i
	}
	return at
}
