package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"muster/auctioneer/auction"
	"muster/bbs/bbsclient"
)

// maxMoves bounds how many moves can be asked for.
const maxMoves = 100_000

func (a *app) rebalanceCommand() *cobra.Command {
	var dryRun bool
	var most int
	var weights auction.Weights
	c := &cobra.Command{
		Use:   "rebalance --dry-run",
		Short: "show which instances would move to even out the cells",
		Long: `Shows which instances that run would be better off on another cell, by the rules of the auctioneer and the
states that the cells have right now: after a cell was added, for example. A move makes the zones of an application
more even, or else its cells, or else the load of all cells. Nothing is moved: moving is left to people, who can
weigh it against what a restart costs.`,
		Example: "  muster rebalance --dry-run\n  muster rebalance --dry-run --most 20 --json",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case !dryRun:
				return usagef("--dry-run is missing: moves can only be shown, not made")
			case most < 1 || most > maxMoves:
				return usagef("--most %d: want 1 to %d", most, maxMoves)
			}
			if err := weights.Check(); err != nil {
				return usagef("%w", err)
			}
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				ctx, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				states, err := a.states(ctx, bbs)
				if err != nil {
					return err
				}
				return a.printMoves(auction.Rebalance(states, weights, most), most)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show the moves; required")
	c.Flags().IntVar(&most, "most", 1000, "show so many moves at most")
	weightFlags(c.Flags(), &weights)
	return c
}

type moveView struct {
	ProcessGUID  string `json:"process_guid"`
	Index        int32  `json:"index"`
	InstanceGUID string `json:"instance_guid"`
	From         string `json:"from_cell_id"`
	To           string `json:"to_cell_id"`
	Why          string `json:"why"`
}

func (a *app) printMoves(moves []auction.Move, most int) error {
	views := make([]moveView, 0, len(moves))
	for _, m := range moves {
		views = append(views, moveView{
			string(m.Instance.Key.Process), m.Instance.Key.Index, string(m.Instance.InstanceGUID),
			string(m.From), string(m.To), gain(m.Gain),
		})
	}
	if a.json {
		return printJSON(a.Out, views)
	}
	if len(views) == 0 {
		fmt.Fprintln(a.Out, "no move would make the cells more even")
		return nil
	}
	g := grid{head: []string{"INSTANCE", "FROM", "TO", "WHY"}}
	for _, v := range views {
		g.add(fmt.Sprintf("%s/%d", v.ProcessGUID, v.Index), v.From, v.To, v.Why)
	}
	g.print(a.Out)
	if len(moves) == most {
		fmt.Fprintf(a.Err, "There may be more: --most is %d.\n", most)
	}
	return nil
}

// gain says what a move makes better.
func gain(g auction.Gain) string {
	switch g {
	case auction.MoreEvenZones:
		return "its application is spread over zones more evenly"
	case auction.MoreEvenCells:
		return "its application is spread over cells more evenly"
	case auction.MoreEvenLoad:
		return "the load is more even"
	}
	return fmt.Sprintf("gain %d", g)
}
