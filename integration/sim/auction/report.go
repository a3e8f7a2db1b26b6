package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"muster/auctioneer/auction"
	"muster/cells"
)

// report is what became of a scenario.
type report struct {
	name, about   string
	weights       auction.Weights
	before, after []cells.State
	result        auction.Result
	moves         int // to even the fleet out
}

// write writes the report as text.
func (r report) write(out io.Writer) {
	fmt.Fprintf(out, "%s: %s\n", r.name, r.about)
	fmt.Fprintf(out, "weights    starting %v, bin packing %v, at most %d starting (0: no bound)\n", r.weights.Starting, r.weights.BinPack, r.weights.MaxStarting)
	fmt.Fprintf(out, "placed     %d, refused %d", len(r.result.Placed), len(r.result.Refused))
	if r.moves > 0 {
		fmt.Fprintf(out, ", then moved %d", r.moves)
	}
	fmt.Fprintln(out)
	for _, line := range reasons(r.result.Refused) {
		fmt.Fprintf(out, "           %s\n", line)
	}
	fmt.Fprintf(out, "uneven     %.4f before, %.4f after (standard deviation / mean of the memory in use per cell)\n", uneven(r.before), uneven(r.after))
	fmt.Fprintf(out, "%-10s %9s %9s %11s %11s\n", "zone, cell", "instances", "new", "memory (MB)", "in use (%)")
	for _, z := range zones(r.after) {
		fmt.Fprintf(out, "%-10s %s\n", z, row(r.of(z)))
		for i, s := range r.after {
			if s.Zone == z {
				fmt.Fprintf(out, "  %-8s %s\n", s.Cell, row(r.after[i:i+1], r.before[i:i+1]))
			}
		}
	}
}

// of returns the cells of a zone, after and before.
func (r report) of(zone string) (after, before []cells.State) {
	for i, s := range r.after {
		if s.Zone == zone {
			after, before = append(after, s), append(before, r.before[i])
		}
	}
	return after, before
}

// row is the figures of some cells.
func row(after, before []cells.State) string {
	instances, was := 0, 0
	var used, total int32
	for i, s := range after {
		instances, was = instances+len(s.Instances), was+len(before[i].Instances)
		used, total = used+memory(s), total+s.Capacity.MemoryMB
	}
	return fmt.Sprintf("%9d %+9d %11d %11.1f", instances, instances-was, used, 100*float64(used)/float64(total))
}

func memory(s cells.State) int32 { return s.Capacity.MemoryMB - s.Available.MemoryMB }

// reasons counts the reasons of refusals, with what would help the first.
func reasons(refused []auction.Refusal) (lines []string) {
	count, remedy := map[string]int{}, map[string]string{}
	for _, r := range refused {
		if count[r.Reason]++; remedy[r.Reason] == "" {
			remedy[r.Reason] = r.Remedy
		}
	}
	for _, text := range slices.Sorted(maps.Keys(count)) {
		lines = append(lines, fmt.Sprintf("%d: %s (for the first: %s)", count[text], text, remedy[text]))
	}
	return lines
}

// zones returns the names of the zones in order.
func zones(states []cells.State) []string {
	names := map[string]bool{}
	for _, s := range states {
		names[s.Zone] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// uneven is the population's standard deviation of the memory in use per cell, divided by its mean; 0 when none is.
func uneven(states []cells.State) float64 {
	var sum, squares float64
	for _, s := range states {
		used := float64(memory(s))
		sum, squares = sum+used, squares+used*used
	}
	mean := sum / float64(len(states))
	if mean == 0 {
		return 0
	}
	return math.Sqrt(max(squares/float64(len(states))-mean*mean, 0)) / mean
}
