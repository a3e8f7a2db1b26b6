package cli

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/auctioneer"
	"muster/auctioneer/auction"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
	"muster/rep/repclient"
)

const (
	// stateTime bounds the question for the state of one cell.
	stateTime = 3 * time.Second
	// statesAtOnce is how many cells are asked at the same time.
	statesAtOnce = 64
)

// weightFlags adds the settings of the auctioneer to a command that decides as it does.
func weightFlags(f *pflag.FlagSet, w *auction.Weights) {
	d := auctioneer.Defaults()
	f.Float64Var(&w.Starting, "starting-weight", d.StartingContainerWeight, "starting_container_weight of the auctioneer")
	f.Float64Var(&w.BinPack, "bin-pack-weight", d.BinPackFirstFitWeight, "bin_pack_first_fit_weight of the auctioneer")
	f.Int32Var(&w.MaxStarting, "start-limit", d.MaxStarting, "starting_container_count_maximum of the auctioneer; 0: none")
}

func (a *app) planCommand() *cobra.Command {
	var file string
	var weights auction.Weights
	c := &cobra.Command{
		Use:   "plan {-f FILE | NAME INSTANCES}",
		Short: "show where instances would be placed, and change nothing",
		Long: `Decides as the auctioneer would, on the states that the cells have right now, where the instances of
applications would be placed: those that muster desire -f FILE would desire, or those that come when an
application that is there is scaled. An application of the file that is there already is taken as scaled
to the instances in the file. Nothing is desired and nothing reserved; what waits for a cell
at the moment is not looked at.

Exits with 1 when an instance would find no cell.`,
		Example: "  muster plan -f app.yaml\n  muster plan hello 20\n  muster plan hello 20 --json",
		Args:    rangeArgs("-f FILE, or NAME INSTANCES", 0, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := weights.Check(); err != nil {
				return usagef("%w", err)
			}
			want, err := a.planned(file, args)
			if err != nil {
				return err
			}
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				ctx, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				return a.plan(ctx, bbs, want, weights)
			})
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "`FILE` to read, as muster desire does; - is standard input")
	weightFlags(c.Flags(), &weights)
	return c
}

// wish is an application with as many instances as are wanted. Without a recipe it has to be there already.
type wish struct {
	process   lrp.ProcessGUID
	instances int32
	recipe    *bbsv1.DesiredLRP
}

// planned returns what the arguments ask for.
func (a *app) planned(file string, args []string) ([]wish, error) {
	switch {
	case file != "" && len(args) == 0:
		list, err := a.readManifest(file)
		if err != nil {
			return nil, err
		}
		var all []wish
		for _, d := range list {
			all = append(all, wish{lrp.ProcessGUID(d.GetProcessGuid()), d.GetInstances(), d})
		}
		return all, nil
	case file == "" && len(args) == 2:
		n, err := strconv.ParseInt(args[1], 10, 32)
		if err != nil || n < 0 || n > lrp.MaxInstances {
			return nil, usagef("INSTANCES %q is not a whole number from 0 to %d", args[1], lrp.MaxInstances)
		}
		return []wish{{lrp.ProcessGUID(args[0]), int32(n), nil}}, nil
	}
	return nil, usagef("name either a file, -f FILE, or an application and how many instances it is to have, NAME INSTANCES")
}

func (a *app) plan(ctx context.Context, bbs *bbsclient.Client, want []wish, weights auction.Weights) error {
	var work []auction.Work
	for _, w := range want {
		more, err := a.workOf(ctx, bbs, w)
		if err != nil {
			return err
		}
		work = append(work, more...)
	}
	states, err := a.states(ctx, bbs)
	if err != nil {
		return err
	}
	res := auction.Run(work, states, weights)
	if res.Complaints != nil {
		fmt.Fprintln(a.Err, res.Complaints)
	}
	if err := a.printPlan(res); err != nil {
		return err
	}
	if n := len(res.Refused); n > 0 {
		return fmt.Errorf("%d of %d instances would find no cell", n, len(work))
	}
	return nil
}

// workOf returns the instances of a wish that are not there.
func (a *app) workOf(ctx context.Context, bbs *bbsclient.Client, w wish) ([]auction.Work, error) {
	d, err := bbs.Desired(ctx, w.process)
	var instance cells.Instance
	there := int32(0)
	switch {
	case err == nil:
		there = d.Instances
		instance = cells.Instance{
			Key: lrp.Key{Domain: d.Domain}, Resources: cells.Resources{MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, Containers: 1},
			RootFS: d.RootFS, PlacementTags: d.PlacementTags, VolumeDrivers: d.VolumeDrivers(),
		}
	case !isUnknown(err):
		return nil, fmt.Errorf("plan %s: %w", w.process, err)
	case w.recipe == nil:
		return nil, a.unknown(ctx, bbs, w.process, fmt.Errorf("plan %s: %w", w.process, err))
	default:
		m := w.recipe
		instance = cells.Instance{
			Key: lrp.Key{Domain: lrp.Domain(m.GetDomain())}, Resources: cells.Resources{MemoryMB: m.GetMemoryMb(), DiskMB: m.GetDiskMb(), Containers: 1},
			RootFS: m.GetRootFs(), PlacementTags: m.GetPlacementTags(),
		}
		for _, v := range m.GetVolumeMounts() {
			instance.VolumeDrivers = append(instance.VolumeDrivers, v.GetDriver())
		}
	}
	var work []auction.Work
	for index := there; index < w.instances; index++ {
		one := instance
		one.Key.Slot = lrp.Slot{Process: w.process, Index: index}
		work = append(work, auction.Work{Instance: one})
	}
	return work, nil
}

// states asks every cell for its state. Those that do not answer are named, and take no part.
func (a *app) states(ctx context.Context, bbs *bbsclient.Client) ([]cells.State, error) {
	list, _, err := bbs.Cells(ctx)
	if err != nil {
		return nil, fmt.Errorf("list cells: %w", err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var states []cells.State
	slots := make(chan struct{}, statesAtOnce)
	for _, cell := range list {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var st cells.State
			err := a.withCell(cell, func(rep *repclient.Client) (err error) {
				ctx, cancel := context.WithTimeout(ctx, stateTime)
				defer cancel()
				st, err = rep.State(ctx)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fmt.Fprintf(a.Err, "%v: it takes no part\n", err)
				return
			}
			states = append(states, st)
		})
	}
	wg.Wait()
	return states, nil
}

type planView struct {
	Placed  []placedView `json:"placed"`
	Refused []actualView `json:"refused"`
}

type placedView struct {
	ProcessGUID string  `json:"process_guid"`
	Index       int32   `json:"index"`
	CellID      string  `json:"cell_id"`
	Zone        string  `json:"availability_zone"`
	Score       float64 `json:"score"`
}

// printPlan shows what an auction decided.
func (a *app) printPlan(res auction.Result) error {
	var waiting []lrp.Actual
	for _, r := range res.Refused {
		waiting = append(waiting, lrp.Actual{Key: r.Work.Key, PlacementError: r.Reason, Explanation: r.Explanation.Record(), State: lrp.Unclaimed})
	}
	if a.json {
		v := planView{Placed: []placedView{}, Refused: []actualView{}}
		for _, p := range res.Placed {
			v.Placed = append(v.Placed, placedView{string(p.Work.Key.Process), p.Work.Key.Index, string(p.Cell), p.Zone, p.Score})
		}
		for _, x := range waiting {
			v.Refused = append(v.Refused, viewActual(x))
		}
		return printJSON(a.Out, v)
	}
	if len(res.Placed)+len(waiting) == 0 {
		fmt.Fprintln(a.Out, "nothing would be placed: as many instances are there already")
		return nil
	}
	if len(res.Placed) > 0 {
		g := grid{head: []string{"INSTANCE", "CELL", "ZONE", "SCORE"}}
		for _, p := range res.Placed {
			g.add(p.Work.Key.Slot.String(), string(p.Cell), orDash(p.Zone), fmt.Sprintf("%.4f", p.Score))
		}
		g.print(a.Out)
	}
	for i, group := range alike(waiting) {
		if i > 0 || len(res.Placed) > 0 {
			fmt.Fprintln(a.Out)
		}
		explainAlike(a.Out, group)
	}
	return nil
}
