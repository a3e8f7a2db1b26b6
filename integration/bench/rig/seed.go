package rig

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

const (
	// seedInstances is how many instances each process has that is made to be there.
	seedInstances = 10
	// seedCallers is how many calls are made at once for that.
	seedCallers = 512
	// seedPortion is how many instances are made between two lines of progress.
	seedPortion = 50_000
	// profileSeconds is how long a profile takes.
	profileSeconds = 4
)

// SeedOptions say which instances are to be there.
type SeedOptions struct {
	Clients  []*bbsclient.Client // may desire
	Cells    []*bbsclient.Client // the n-th is that of Cell(n)
	From, To int                 // how many instances are there, and how many are to be; multiples of 10
	Progress func(format string, args ...any)
}

// Seed makes instances through the front door: desired, claimed by the cells in turn, started. What is
// there afterwards is what a real installation would have, encryption and all.
func Seed(ctx context.Context, o SeedOptions) error {
	for from := o.From; from < o.To; from += seedPortion {
		to := min(from+seedPortion, o.To)
		if err := seedPart(ctx, o, from/seedInstances, to/seedInstances); err != nil {
			return fmt.Errorf("make instances %d to %d: %w", from, to, err)
		}
		o.Progress("%d of %d instances", to, o.To)
	}
	return nil
}

func seedPart(ctx context.Context, o SeedOptions, from, to int) error {
	processes := make([]lrp.ProcessGUID, to-from)
	for i := range processes {
		processes[i] = Process("5eed", from+i)
	}
	if _, err := Desire(ctx, o.Clients, seedCallers, processes, seedInstances); err != nil {
		return err
	}
	for _, event := range []func(lrp.Slot, lrp.CellID) lrp.Event{Claim, Start} {
		_, err := Work(ctx, seedCallers, len(processes)*seedInstances, func(ctx context.Context, _, i int) error {
			cell := i % len(o.Cells)
			// Neighbours are instances of different processes: calls about one process take turns.
			slot := lrp.Slot{Process: processes[i%len(processes)], Index: int32(i / len(processes))}
			return o.Cells[cell].Apply(ctx, event(slot, Cell(cell)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Profile writes a CPU profile of a replica to a file, from now on for some seconds, and then says how
// that went.
func Profile(b *Replica, file string) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			res, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", b.Debug, profileSeconds))
			if err != nil {
				return err
			}
			defer res.Body.Close()
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(f, res.Body)
			return err
		}()
	}()
	return done
}
