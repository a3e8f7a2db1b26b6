package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

const (
	// seedInstances is how many instances each process has that is made to be there.
	seedInstances = 10
	// seedDesirers is how many clients desire at once, in large batches, and seedStarters how many starts
	// are on their way at once.
	seedDesirers, seedStarters = 2, 512
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

// Seed makes instances through the front door: desired in batches, and started by the cells in turn, which
// they may do without a claim. What is there afterwards is what a real installation would have, encryption
// and all.
func Seed(ctx context.Context, o SeedOptions) error {
	for from := o.From; from < o.To; from += seedPortion {
		to, begin := min(from+seedPortion, o.To), time.Now()
		if err := seedPart(ctx, o, from/seedInstances, to/seedInstances); err != nil {
			return fmt.Errorf("make instances %d to %d: %w", from, to, err)
		}
		o.Progress("%d of %d instances, %.0f a second", to, o.To, float64(to-from)/time.Since(begin).Seconds())
	}
	return nil
}

func seedPart(ctx context.Context, o SeedOptions, from, to int) error {
	desired := make([]lrp.Desired, to-from)
	for i := range desired {
		desired[i] = App(Process("5eed", from+i), seedInstances)
	}
	each := max(1, len(desired)/seedDesirers)
	parts := slices.Collect(slices.Chunk(desired, each))
	_, err := Work(ctx, seedDesirers, len(parts), func(ctx context.Context, c, i int) error {
		return errors.Join(o.Clients[c%len(o.Clients)].DesireAll(ctx, parts[i])...)
	})
	if err != nil {
		return err
	}
	_, err = Work(ctx, seedStarters, len(desired)*seedInstances, func(ctx context.Context, _, i int) error {
		cell := i % len(o.Cells)
		// Neighbours are instances of different processes: calls about one process take turns.
		slot := lrp.Slot{Process: desired[i%len(desired)].Process, Index: int32(i / len(desired))}
		return o.Cells[cell].Apply(ctx, Start(slot, Cell(cell)))
	})
	return err
}

// Profile writes a CPU profile of a replica to a file, from now on for some seconds, and one of what it has
// allocated so far to that name with .allocs. Then it says how that went.
func Profile(b *Replica, file string) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- errors.Join(
			b.fetch(fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileSeconds), file),
			b.fetch("/debug/pprof/allocs", file+".allocs"))
	}()
	return done
}

// fetch writes what the debug listener of a replica answers to a file.
func (b *Replica) fetch(path, file string) error {
	res, err := http.Get("http://" + b.Debug + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
