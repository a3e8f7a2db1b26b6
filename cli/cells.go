package cli

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

func (a *app) cellsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cells",
		Short: "show the cells, what they have and what they run",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				ctx, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				return a.showCells(ctx, bbs)
			})
		},
	}
}

func (a *app) showCells(ctx context.Context, bbs *bbsclient.Client) error {
	list, _, err := bbs.Cells(ctx)
	if err != nil {
		return fmt.Errorf("list cells: %w", err)
	}
	infos, _, err := bbs.SchedulingInfos(ctx, bbsclient.DesiredFilter{})
	if err != nil {
		return fmt.Errorf("list applications: %w", err)
	}
	actuals, _, err := bbs.Actuals(ctx, bbsclient.ActualFilter{})
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	size := map[lrp.ProcessGUID]lrp.SchedulingInfo{}
	for _, d := range infos {
		size[d.Process] = d
	}
	views := make([]cellView, 0, len(list))
	at := map[lrp.CellID]int{}
	for _, p := range list {
		at[p.Cell] = len(views)
		views = append(views, viewCell(p))
	}
	for _, x := range actuals {
		i, ok := at[x.Cell]
		if !ok {
			continue
		}
		v := &views[i]
		v.Instances++
		v.Used.Containers++
		v.Used.MemoryMB += size[x.Process].MemoryMB
		v.Used.DiskMB += size[x.Process].DiskMB
	}
	sort.Slice(views, func(i, j int) bool { return views[i].CellID < views[j].CellID })
	if a.json {
		return printJSON(a.Out, views)
	}
	if len(views) == 0 {
		return advise(fmt.Errorf("no cell is announced to the BBS at %s", a.link.address()),
			"muster status shows whether the reps run; their logs say why not")
	}
	g := grid{head: []string{"CELL", "ZONE", "INSTANCES", "MEMORY", "DISK", "CONTAINERS", "REP"}}
	for _, v := range views {
		g.add(v.CellID, orDash(v.Zone), strconv.Itoa(v.Instances),
			fmt.Sprintf("%d/%s", v.Used.MemoryMB, mib(v.Capacity.MemoryMB)),
			fmt.Sprintf("%d/%s", v.Used.DiskMB, mib(v.Capacity.DiskMB)),
			fmt.Sprintf("%d/%d", v.Used.Containers, v.Capacity.Containers),
			strings.TrimPrefix(v.RepURL, "https://"))
	}
	g.print(a.Out)
	return nil
}
