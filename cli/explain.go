package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain NAME",
		Short: "say why instances of an application have no cell",
		Long: `Says for the instances of an application that wait for a cell what the auctioneer found when it tried
last: how many cells fail each constraint, which cell comes closest and what is missing there, and the
smallest change that would place them.`,
		Example:           "  muster explain hello\n  muster explain hello --json",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeOne,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				ctx, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				return a.explainProcess(ctx, bbs, lrp.ProcessGUID(args[0]))
			})
		},
	}
}

func (a *app) explainProcess(ctx context.Context, bbs *bbsclient.Client, p lrp.ProcessGUID) error {
	d, err := bbs.Desired(ctx, p)
	if err != nil {
		return a.unknown(ctx, bbs, p, fmt.Errorf("explain %s: %w", p, err))
	}
	actuals, _, err := bbs.Actuals(ctx, bbsclient.ActualFilter{Process: p})
	if err != nil {
		return fmt.Errorf("list instances of %s: %w", p, err)
	}
	sortActuals(actuals)
	var waiting []lrp.Actual
	for _, x := range actuals {
		if x.State == lrp.Unclaimed {
			waiting = append(waiting, x)
		}
	}
	if a.json {
		views := []actualView{}
		for _, x := range waiting {
			views = append(views, viewActual(x))
		}
		return printJSON(a.Out, views)
	}
	if len(waiting) == 0 {
		fmt.Fprintf(a.Out, "%s: none of its %d instances waits for a cell\n", p, d.Instances)
		return nil
	}
	for i, group := range alike(waiting) {
		if i > 0 {
			fmt.Fprintln(a.Out)
		}
		explainAlike(a.Out, group)
	}
	return nil
}

// alike groups instances that wait for the same reason, in the order of the first of each.
func alike(waiting []lrp.Actual) (groups [][]lrp.Actual) {
	type why struct {
		text string
		full lrp.Explanation
	}
	at := map[why]int{}
	for _, x := range waiting {
		w := why{text: x.PlacementError}
		if x.Explanation != nil {
			w.full = *x.Explanation
		}
		i, known := at[w]
		if !known {
			i = len(groups)
			at[w], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], x)
	}
	return groups
}

// explainAlike explains instances that wait for the same reason.
func explainAlike(w io.Writer, group []lrp.Actual) {
	first := group[0]
	who := first.Slot.String()
	if n := len(group) - 1; n > 0 {
		who += fmt.Sprintf(" and %d more", n)
	}
	since := first.Since
	for _, x := range group {
		if x.Since.Before(since) {
			since = x.Since
		}
	}
	if first.PlacementError == "" {
		fmt.Fprintf(w, "%s: waits for a cell since %s; nothing was found wrong with it yet (muster status shows whether the auctioneer runs)\n", who, ago(time.Since(since)))
		return
	}
	fmt.Fprintf(w, "%s: %s\n", who, first.PlacementError)
	for _, line := range findings(first.Explanation) {
		fmt.Fprintf(w, "  %-9s %s\n", line[0], line[1])
	}
	if !since.IsZero() {
		fmt.Fprintf(w, "  %-9s %s ago\n", "since", ago(time.Since(since)))
	}
}

// findings are what an explanation says, as headings and texts.
func findings(x *lrp.Explanation) (lines [][2]string) {
	if x == nil {
		return nil
	}
	add := func(heading, format string, args ...any) {
		lines = append(lines, [2]string{heading, fmt.Sprintf(format, args...)})
	}
	cells := fmt.Sprintf("%d", x.Cells)
	if x.Away > 0 {
		cells += fmt.Sprintf(", and %d that take no work: evacuating or not healthy", x.Away)
	}
	add("cells", "%s", cells)
	for _, c := range []struct {
		heading string
		cells   int64
		what    string
	}{
		{"rootfs", x.RootFS, "do not offer it"},
		{"drivers", x.Drivers, "lack a volume driver"},
		{"tags", x.Tags, "have placement tags that do not match"},
		{"memory", x.Memory, "fit, but have too little left"},
		{"disk", x.Disk, "fit, but have too little left"},
		{"containers", x.Containers, "fit, but may have no more"},
		{"refused", x.Refused, "have room, but refused the work"},
	} {
		if c.cells > 0 {
			add(c.heading, "%d of %d cells %s", c.cells, x.Cells, c.what)
		}
	}
	if x.MaxStarting > 0 {
		add("starting", "%d containers on all cells, of at most %d at once", x.Starting, x.MaxStarting)
	}
	if c := x.Closest; c.Cell != "" {
		add("closest", "%s in zone %s, where %s missing", c.Cell, orDash(c.Zone), shortfall(c))
	}
	if x.Remedy != "" {
		add("remedy", "%s", x.Remedy)
	}
	return lines
}

// shortfall says what a cell lacks, with the verb.
func shortfall(c lrp.Shortfall) string {
	var parts []string
	for _, m := range []struct {
		amount int64
		what   string
	}{{c.MemoryMB, "MB of memory"}, {c.DiskMB, "MB of disk"}, {c.Containers, "containers"}} {
		if m.amount > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", m.amount, m.what))
		}
	}
	return strings.Join(parts, " and ") + " are"
}
