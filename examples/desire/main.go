// Command desire asks the BBS to run something and follows it until it runs. It is an example of a
// client: it uses nothing but muster/bbs/bbsclient and the words of muster/bbs/lrp.
//
// What every client should do is in it. A creating call is repeated with the same request id while the
// BBS does not answer. What happens is learnt by listing once and watching from there, which goes on
// through restarts and on other replicas, without a gap. Errors are asked for their meaning, not for
// their text.
//
// It exits with 0 once all instances run, 1 when they do not in time, and 2 when the BBS refuses.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

// retryPause is the pause between attempts when the BBS does not say how long to wait.
const retryPause = 500 * time.Millisecond

// Exit codes.
const (
	exitRunning = 0
	exitLate    = 1
	exitRefused = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	var at bbsclient.Address
	flags := flag.NewFlagSet("desire", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.StringVar(&at.HostPort, "bbs", "127.0.0.1:8888", "`host:port` of the BBS")
	flags.StringVar(&at.CAFile, "ca", "", "`file` with the CA's certificate")
	flags.StringVar(&at.CertFile, "cert", "", "`file` with a certificate of the role client")
	flags.StringVar(&at.KeyFile, "key", "", "`file` with its key")
	process := flags.String("process", "", "`GUID` of the process; empty: a random one")
	image := flags.String("rootfs", "docker:///library/busybox#latest", "root file system, a `URL`")
	instances := flags.Int("instances", 1, "`number` of instances")
	limit := flags.Duration("timeout", time.Minute, "how long to wait")
	flags.Usage = func() {
		fmt.Fprintln(errs, "usage: desire [flags] [program of the image [arguments]]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return exitRefused
	}
	client, hangUp, err := bbsclient.Dial(at)
	if err != nil {
		fmt.Fprintln(errs, err)
		return exitRefused
	}
	defer hangUp()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()

	wanted := recipe(*process, *image, int32(*instances), flags.Args())
	if err := desire(ctx, client, wanted, errs); err != nil {
		explain(errs, err)
		if ctx.Err() != nil {
			return exitLate
		}
		return exitRefused
	}
	fmt.Fprintf(out, "%s: desired %d instances\n", wanted.Process, wanted.Instances)
	if !follow(ctx, client, wanted, out, errs) {
		fmt.Fprintf(errs, "%s: not all of it runs after %v\n", wanted.Process, *limit)
		return exitLate
	}
	fmt.Fprintf(out, "%s: runs\n", wanted.Process)
	return exitRunning
}

// recipe is what is to run: a program of the image; if none is named, one that does nothing for a day.
func recipe(process, image string, instances int32, program []string) lrp.Desired {
	if process == "" {
		process = rand.Text()
	}
	if len(program) == 0 {
		program = []string{"/bin/sleep", "86400"}
	}
	return lrp.Desired{
		Process: lrp.ProcessGUID(process), Domain: "example", Instances: instances, RootFS: image, MemoryMB: 32, DiskMB: 64,
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: process}, "instance_id": {Dynamic: lrp.TagIndex}},
		RunInfo: lrp.RunInfo{
			Action: &lrp.Action{Run: &lrp.RunAction{Path: program[0], Args: program[1:], User: "root"}},
		},
	}
}

// desire creates the process. While the BBS is out of order nobody knows whether a call had an effect:
// with a request id it can be made again.
func desire(ctx context.Context, client *bbsclient.Client, wanted lrp.Desired, errs io.Writer) error {
	id := bbsclient.RequestID(rand.Text())
	for {
		err := client.Desire(ctx, wanted, id)
		if err == nil || !bbsclient.IsUnavailable(err) || ctx.Err() != nil {
			return err
		}
		pause, ok := bbsclient.RetryDelay(err)
		if !ok {
			pause = retryPause
		}
		fmt.Fprintf(errs, "%v; again in %v\n", err, pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// explain prints why a call failed: each field that is wrong, or what is in the way.
func explain(errs io.Writer, err error) {
	var inv *lrp.Invalid
	var refused *lrp.Refusal
	switch {
	case errors.As(err, &inv):
		for _, f := range inv.Fields {
			fmt.Fprintln(errs, f)
		}
	case errors.As(err, &refused) && refused.Why == lrp.Exists:
		fmt.Fprintf(errs, "%s is there already\n", refused.Slot.Process)
	default:
		fmt.Fprintln(errs, err)
	}
}

// follow prints what happens to the instances, and returns whether all run before ctx ends. Follow
// lists, watches from the revision of the list, resumes where it was when the connection breaks, and
// lists again only when the log does not reach back that far.
func follow(ctx context.Context, client *bbsclient.Client, wanted lrp.Desired, out, errs io.Writer) bool {
	ctx, done := context.WithCancel(ctx)
	defer done()
	v := view{wanted: wanted, slots: map[int32]lrp.Actual{}, out: out}
	_ = client.Follow(ctx, bbsclient.FollowOptions{ // it returns only because ctx has ended
		Filter: bbsclient.WatchFilter{Process: wanted.Process},
		Log:    slog.New(slog.NewTextHandler(errs, nil)),
		List: func(ctx context.Context) (uint64, error) {
			list, revision, err := client.Actuals(ctx, bbsclient.ActualFilter{Process: wanted.Process})
			if err != nil {
				return 0, err
			}
			clear(v.slots)
			for _, a := range list {
				v.put(a)
			}
			if v.complete() {
				done()
			}
			return revision, nil
		},
		Apply: func(events []bbsclient.Event) {
			for _, ev := range events {
				v.apply(ev)
			}
			if v.complete() {
				done()
			}
		},
	})
	return v.complete()
}

// view is what is known about the instances of the process.
type view struct {
	wanted lrp.Desired
	slots  map[int32]lrp.Actual // the ordinary instances
	out    io.Writer
}

// put notes a record, and prints it when it is news.
func (v *view) put(a lrp.Actual) {
	if a.Presence != lrp.Ordinary {
		return // on its way out, from a cell that is drained or silent
	}
	known, ok := v.slots[a.Index]
	if ok && !known.Tag.SucceededBy(a.Tag) {
		return // a list was ahead of the watch
	}
	v.slots[a.Index] = a
	switch {
	case ok && known.State == a.State && known.PlacementError == a.PlacementError:
	case a.State == lrp.Running:
		fmt.Fprintf(v.out, "%s/%d: %s on %s\n", a.Process, a.Index, a.State, a.Cell)
	case a.PlacementError != "":
		fmt.Fprintf(v.out, "%s/%d: %s: %s\n", a.Process, a.Index, a.State, a.PlacementError)
	default:
		fmt.Fprintf(v.out, "%s/%d: %s\n", a.Process, a.Index, a.State)
	}
}

// apply notes a change.
func (v *view) apply(ev bbsclient.Event) {
	switch {
	case ev.Crash != nil:
		fmt.Fprintf(v.out, "%s/%d: crashed: %s\n", ev.Crash.Key.Process, ev.Crash.Key.Index, ev.Crash.Reason)
	case ev.Actual == nil: // the process itself
	case ev.Actual.After != nil:
		v.put(*ev.Actual.After)
	case ev.Actual.Before.Presence == lrp.Ordinary:
		delete(v.slots, ev.Actual.Before.Index)
	}
}

// complete tells whether as many instances run as are wanted.
func (v *view) complete() bool {
	running := int32(0)
	for _, a := range v.slots {
		if a.State == lrp.Running {
			running++
		}
	}
	return running >= v.wanted.Instances
}
