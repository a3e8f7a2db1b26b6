// Command auction measures how many pieces of work an auctioneer decides a second: the core alone, on one processor,
// with the work, cells, tags and images of a large installation made up from a seed. Cells are of five sizes in three
// zones; there are isolation segments, a tag that cells offer, images of their own, and tasks; all work finds
// room, and then four fifths of the memory are taken.
//
// What is timed is a whole auction: sorting, constraints, every placement and the list of results. Making the index
// from the states of the cells is told apart, since an auctioneer does that once. In the same run the plain rule,
// which looks at every cell for every piece, decides a sample of the same work on the cells as they are with all
// the rest placed; the index decides the same sample, and the answers are compared.
//
// Progress goes to standard error, one JSON object for each number of cells to standard output, with medians of the
// rounds:
//
//	{"bench":"auction","cells":1000,"instances":250000,"placements_per_s":…,"seconds":…,"setup_ms":…,
//	 "naive_placements_per_s":…,"naive_sample":…,"oracle_mismatches":0,"refused":0,"rss_mb":…}
//
// rss_mb is the most memory that the process has had resident in a round, the made-up work and states included.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"muster/integration/bench/rig"
)

func main() {
	var o options
	worlds := flag.String("worlds", "100:250000,1000:250000,5000:250000,10000:1000000", "cells:instances of each line, at most 100000:5000000")
	flag.IntVar(&o.rounds, "rounds", 5, "how many rounds, 1 to 100; medians are reported")
	flag.IntVar(&o.sample, "sample", 1000, "pieces that the plain rule decides too, 1 to 100000")
	flag.Uint64Var(&o.seed, "seed", 1, "of the worlds")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of the last auction to `file`")
	flag.Parse()
	err := o.parse(*worlds)
	if err == nil {
		err = run(o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/auction:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	worlds         []dimensions
	rounds, sample int
	seed           uint64
	profile        string
}

// dimensions are how large a world is.
type dimensions struct{ cells, instances int }

func (o *options) parse(worlds string) error {
	errs := []error{rig.Within("rounds", o.rounds, 1, 100), rig.Within("sample", o.sample, 1, 100_000)}
	for part := range strings.SplitSeq(worlds, ",") {
		cells, instances, _ := strings.Cut(strings.TrimSpace(part), ":")
		var d dimensions
		var bad [2]error
		d.cells, bad[0] = strconv.Atoi(cells)
		d.instances, bad[1] = strconv.Atoi(instances)
		if err := errors.Join(bad[:]...); err != nil {
			errs = append(errs, fmt.Errorf("-worlds %q: want cells:instances: %w", part, err))
			continue
		}
		errs = append(errs, rig.Within("worlds", d.cells, 1, 100_000), rig.Within("worlds", d.instances, max(d.cells, o.sample), 5_000_000))
		o.worlds = append(o.worlds, d)
	}
	return errors.Join(errs...)
}

func run(o options, out io.Writer) error {
	runtime.GOMAXPROCS(1)
	if err := pin(); err != nil {
		return err
	}
	for i, d := range o.worlds {
		profile := ""
		if i == len(o.worlds)-1 {
			profile = o.profile
		}
		r, err := auctions(d, o, profile)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
