package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

func (a *app) scaleCommand() *cobra.Command {
	var noWait bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:               "scale NAME INSTANCES",
		Short:             "change how many instances of an application run",
		Example:           "  muster scale hello 5\n  muster scale hello 0",
		Args:              exactArgs("NAME", "INSTANCES"),
		ValidArgsFunction: a.completeOne,
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil || n < 0 {
				return usagef("INSTANCES %q is not a whole number from 0 up", args[1])
			}
			name, wanted := lrp.ProcessGUID(args[0]), int32(n)
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				call, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				if err := bbs.Update(call, name, lrp.Update{Instances: &wanted}); err != nil {
					return a.unknown(call, bbs, name, fmt.Errorf("scale %s to %d: %w", name, wanted, err))
				}
				return a.await(ctx, bbs, name, wanted, noWait, timeout)
			})
		},
	}
	waitFlags(c, &noWait, &timeout)
	return c
}
