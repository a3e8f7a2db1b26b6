package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "remove applications and stop their instances",
		Example:           "  muster rm hello",
		Args:              rangeArgs("one NAME or more", 1, 0),
		ValidArgsFunction: a.completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				ctx, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				removed := []string{}
				for _, name := range args {
					if err := bbs.RemoveDesired(ctx, lrp.ProcessGUID(name)); err != nil {
						err = a.unknown(ctx, bbs, lrp.ProcessGUID(name), fmt.Errorf("remove %s: %w", name, err))
						if len(removed) > 0 {
							return fmt.Errorf("%w (removed before: %v)", err, removed)
						}
						return err
					}
					removed = append(removed, name)
					if !a.json {
						fmt.Fprintf(a.Out, "removed %s\n", name)
					}
				}
				if a.json {
					return printJSON(a.Out, map[string][]string{"removed": removed})
				}
				return nil
			})
		},
	}
}
