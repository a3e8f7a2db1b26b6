package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// figure is one member of the lines of a bench: a column of the table and a line of a chart.
type figure struct {
	bench, member string
	callers       float64 // 0: any
	name          string
}

// figures are the columns, in their order.
func figures() []figure {
	return []figure{
		{"bbs", "desires_per_s", 256, "desires/s, 256 callers"},
		{"bbs", "claims_per_s", 256, "claims/s, 256 callers"},
		{"bbs", "starts_per_s", 256, "starts/s, 256 callers"},
		{"bbs", "starts_per_s", 32, "starts/s, 32 callers"},
		{"bbs", "row_per_tx_per_s", 256, "row per transaction/s"},
		{"bbs", "ratio", 256, "ratio, 256 callers"},
		{"bbs", "start_p99_ms", 256, "p99 of a start, ms"},
		{"converge", "quiet_tick_ms", 0, "quiet tick, ms"},
		{"converge", "quiet_pass_ms", 0, "full comparison, ms"},
		{"converge", "lost_cell_ms", 0, "lost cell, ms"},
		{"converge", "suspects_return_per_s", 0, "suspects back/s"},
		{"converge", "rss_mb", 0, "memory of the BBS, MB"},
	}
}

// charts say which figures are drawn together.
func charts() []struct {
	chart
	members []string
} {
	return []struct {
		chart
		members []string
	}{
		{chart{file: "calls.svg", title: "Calls", unit: "per second", bound: 12000}, []string{"desires_per_s", "claims_per_s", "starts_per_s", "row_per_tx_per_s"}},
		{chart{file: "pass.svg", title: "Full comparison that finds nothing", unit: "ms"}, []string{"quiet_pass_ms"}},
		{chart{file: "lost-cell.svg", title: "Quiet tick, and a lost cell", unit: "ms"}, []string{"quiet_tick_ms", "lost_cell_ms"}},
		{chart{file: "suspects.svg", title: "Suspects that return", unit: "per second", bound: 20000}, []string{"suspects_return_per_s"}},
		{chart{file: "memory.svg", title: "Memory of the BBS", unit: "MB"}, []string{"rss_mb"}},
	}
}

// of returns the values of a figure by number of instances.
func (f figure) of(lines []line) []point {
	byLRPs := map[float64]float64{}
	for _, l := range lines {
		callers, _ := l.number("callers")
		value, ok := l.number(f.member)
		lrps, sized := l.number("lrps")
		if ok && sized && l["bench"] == f.bench && (f.callers == 0 || callers == f.callers) {
			byLRPs[lrps] = value // the newest
		}
	}
	var all []point
	for x, y := range byLRPs {
		all = append(all, point{x, y})
	}
	slices.SortFunc(all, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	return all
}

// write draws the charts and writes the page.
func write(dir string, lines []line) error {
	var drawn []chart
	for _, c := range charts() {
		for _, f := range figures() {
			points := f.of(lines)
			if slices.Contains(c.members, f.member) && len(points) > 0 {
				c.series = append(c.series, series{f.name, points})
			}
		}
		text := c.svg()
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "benchmarks", c.file), []byte(text), 0o644); err != nil {
			return err
		}
		drawn = append(drawn, c.chart)
	}
	page := fmt.Sprintf(pageText, machine(), table(lines), pictures(drawn))
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(page), 0o644)
}

// table has a row for each figure and a column for each number of instances.
func table(lines []line) string {
	var xs []float64
	for _, f := range figures() {
		for _, p := range f.of(lines) {
			xs = append(xs, p.x)
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	var b strings.Builder
	b.WriteString("| instances |")
	for _, x := range xs {
		b.WriteString(" " + short(x) + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(xs)) + "\n")
	for _, f := range figures() {
		points := f.of(lines)
		b.WriteString("| " + f.name + " |")
		for _, x := range xs {
			cell := "–"
			if i := slices.IndexFunc(points, func(p point) bool { return p.x == x }); i >= 0 {
				cell = short(points[i].y)
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func pictures(drawn []chart) string {
	var b strings.Builder
	for _, c := range drawn {
		fmt.Fprintf(&b, "![%s, %s](benchmarks/%s)\n\n", c.title, c.unit, c.file)
	}
	return strings.TrimSpace(b.String())
}

// machine says in a line what the figures were measured on.
func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s), %s", runtime.NumCPU(), model, runtime.Version())
}

// pageText is docs/benchmarks.md: the machine, the table, the charts.
const pageText = `# Benchmarks

Written by ` + "`make bench/grow`" + ` from what the benches printed (` + "`benchmarks/results.jsonl`" + `). Measured on %s; clients, BBS and
PostgreSQL share the machine. Mutual TLS and encryption of the columns are on, and so are fsync and
synchronous_commit. Figures of such a machine vary from run to run, by a third where others use the host too: compare ratios, and compare
only what was measured in one run.

| command | what it measures |
|---|---|
| ` + "`make bench/bbs`" + ` | calls a second by 32 and by 256 callers; beside them, in the same run, the same change and entry of the log one per transaction, straight to PostgreSQL |
| ` + "`make bench/converge`" + ` | quiet ticks and comparisons, the loss of a cell, suspects that return |
| ` + "`make bench/watch`" + ` | what a thousand watchers cost that reconnect at random to two replicas, and whether each got exactly what it asked for |
| ` + "`make bench/door`" + ` | starts a second through Diego's routes, beside gRPC in the same run |
| ` + "`make bench/auction`" + ` | placements a second on 100 to 10,000 cells, beside the plain rule, which it has to agree with; and from end to end, through the auctioneer, with 1,000 cells in memory |
| ` + "`make bench/grow`" + ` | bench/bbs and bench/converge with more and more instances: this page. It goes on where an interrupted run was; ` + "`-fresh`" + ` begins anew |

## With more instances

Instances exist and run, ten of each process, and were made through the front door.

%s
%s

## How to read it

- A *start* is the whole of a cell's report that an instance runs: gRPC with the certificate of the cell, the rules, the row, the entry of the log, the commit.
- *Row per transaction* does the row and the entry in one statement and one transaction, by as many connections as are best for it, without gRPC, rules or notification. *Ratio* is starts over that.
- A *quiet tick* finds out that nothing changed since the last comparison; a *full comparison* reads and compares everything and finds nothing to do.
- *Lost cell* is the time from the event that a cell is lost to the event of the last of its instances.
- Flat lines are what to look for. Calls touch rows by key, so they depend on the depth of indexes and on what PostgreSQL has in memory (shared_buffers is a quarter of the memory, 1 GB at most), not on the number of instances; a full comparison is linear.
`
