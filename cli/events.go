package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/event"
	"muster/bbs/lrp"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var since, process, cell string
	c := &cobra.Command{
		Use:   "events",
		Short: "show what happened: every change, in the order in which it happened",
		Long: `Shows the changes that the BBS still keeps, oldest first; with --follow, goes on
with new ones. --since takes a revision, or a time back such as 10m.`,
		Example: "  muster events\n  muster events -f --process hello\n  muster events --since 10m --json",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			from, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			from.filter = bbsclient.WatchFilter{Process: lrp.ProcessGUID(process), Cell: lrp.CellID(cell)}
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				return a.showEvents(ctx, bbs, from, follow)
			})
		},
	}
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with new events until interrupted")
	f.StringVar(&since, "since", "", "start after this `revision`, or this long ago (10m)")
	f.StringVar(&process, "process", "", "only events of this application")
	f.StringVar(&cell, "cell", "", "only events of this cell")
	must(c.RegisterFlagCompletionFunc("process", a.completeOne))
	return c
}

// origin is where a look at the events starts.
type origin struct {
	after  uint64
	at     time.Time // events before it are left out
	filter bbsclient.WatchFilter
}

func parseSince(s string, now time.Time) (origin, error) {
	if s == "" {
		return origin{}, nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return origin{after: n}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return origin{at: now.Add(-d)}, nil
	}
	return origin{}, usagef("--since %q is neither a revision (a number) nor a time back such as 30s or 10m", s)
}

func (a *app) showEvents(ctx context.Context, bbs *bbsclient.Client, from origin, follow bool) error {
	// The newest revision, to know where to stop.
	_, newest, err := bbs.Domains(ctx)
	if err != nil {
		return fmt.Errorf("ask for the newest revision: %w", err)
	}
	after := from.after
	if !follow && after >= newest {
		return nil
	}
	for {
		w, err := bbs.Watch(ctx, after, from.filter)
		if err != nil {
			return fmt.Errorf("watch events after revision %d: %w", after, err)
		}
		after, err = a.drain(w, after, newest, from.at, follow)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return nil // an interrupt is how one stops following
		case status.Code(err) == codes.OutOfRange && from.after == 0 && after < newest:
			// The log does not reach back to the beginning. Bisecting for its oldest revision
			// costs a handful of calls and happens once.
			if after, err = a.oldest(ctx, bbs, newest); err != nil {
				return err
			}
		case status.Code(err) == codes.OutOfRange:
			return advise(fmt.Errorf("revision %d is older than what the BBS keeps: %w", after, err),
				"leave out --since to see all that is kept")
		case follow && bbsclient.IsUnavailable(err):
			fmt.Fprintf(a.Err, "muster: connection lost, going on after revision %d\n", after)
			if err := pause(ctx, time.Second); err != nil {
				return nil
			}
		default:
			return fmt.Errorf("watch events after revision %d: %w", after, err)
		}
	}
}

// drain prints the events of one watch. It returns the revision reached, with an error when the
// watch ended, and without one when there was no more to wait for.
func (a *app) drain(w *bbsclient.Watch, after, newest uint64, at time.Time, follow bool) (uint64, error) {
	for {
		list, revision, err := w.Recv()
		if err != nil {
			return after, err
		}
		for _, e := range list {
			if e.At.Before(at) {
				continue
			}
			if err := a.printEvent(e); err != nil {
				return after, err
			}
		}
		after = max(after, revision)
		if !follow && after >= newest {
			return after, nil
		}
	}
}

func (a *app) printEvent(e event.Event) error {
	v := viewEvent(e)
	if a.json {
		return printLine(a.Out, v)
	}
	_, err := fmt.Fprintf(a.Out, "%7d  %s  %-11s %-8s %-20s %s\n", v.Revision,
		v.At.Local().Format("15:04:05.000"), v.Kind, v.What, v.Subject, v.Text)
	return err
}

// oldest finds a revision after which the log is complete, by bisection.
func (a *app) oldest(ctx context.Context, bbs *bbsclient.Client, newest uint64) (uint64, error) {
	low, high := uint64(0), newest // low is known to be too old, high is known to be kept
	for low+1 < high {
		middle := low + (high-low)/2
		w, err := bbs.Watch(ctx, middle, bbsclient.WatchFilter{})
		if err == nil {
			_, _, err = w.Recv()
		}
		switch {
		case err == nil:
			high = middle
		case status.Code(err) == codes.OutOfRange:
			low = middle
		default:
			return 0, fmt.Errorf("look for the oldest event: %w", err)
		}
	}
	return high, nil
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return errors.Join(ctx.Err())
	case <-t.C:
		return nil
	}
}

// must is for wiring that can only fail by a mistake in this package.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
