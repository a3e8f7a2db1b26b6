package cli

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/event"
	"muster/bbs/lrp"
)

// waitTime is how long verbs wait for instances unless told otherwise: an image may have to come
// over a slow line.
const waitTime = 2 * time.Minute

// crashLogLines is how many of the last lines of a crashed instance are shown.
const crashLogLines = 15

func waitFlags(c *cobra.Command, noWait *bool, timeout *time.Duration) {
	c.Flags().BoolVar(noWait, "no-wait", false, "return at once; do not wait for the instances to run")
	c.Flags().DurationVar(timeout, "timeout", waitTime, "how long to wait for the instances to run")
}

// progress is what is known of the instances of one process while somebody waits for them.
type progress struct {
	wanted  int32
	actuals map[instanceOf]lrp.Actual
	crash   *lrp.CrashReport // the newest one since the waiting began
}

// instanceOf tells the instances of one process apart: there is one of each presence for an index.
type instanceOf struct {
	index    int32
	presence lrp.Presence
}

func newProgress(wanted int32, actuals []lrp.Actual) *progress {
	p := &progress{wanted: wanted, actuals: map[instanceOf]lrp.Actual{}}
	for _, a := range actuals {
		p.actuals[instanceOf{a.Index, a.Presence}] = a
	}
	return p
}

func (p *progress) apply(events []event.Event) {
	for _, e := range events {
		if e.Crash != nil {
			p.crash = e.Crash
		}
		if e.Actual == nil {
			continue
		}
		if b := e.Actual.Before; b != nil {
			delete(p.actuals, instanceOf{b.Index, b.Presence})
		}
		if a := e.Actual.After; a != nil {
			p.actuals[instanceOf{a.Index, a.Presence}] = *a
		}
	}
}

func (p *progress) list() []lrp.Actual {
	out := make([]lrp.Actual, 0, len(p.actuals))
	for _, a := range p.actuals {
		out = append(out, a)
	}
	sortActuals(out)
	return out
}

// done tells whether exactly the wanted instances run; an error means that waiting does not help.
func (p *progress) done() (bool, error) {
	if p.crash != nil {
		return false, &crashed{*p.crash}
	}
	list := p.list()
	surplus := false
	for _, a := range list {
		// That others are starting passes by itself.
		if a.PlacementError != "" && (a.Explanation == nil || a.Explanation.MaxStarting == 0) {
			return false, &unplaced{a}
		}
		if a.State == lrp.Crashed {
			return false, &crashed{lrp.CrashReport{Key: a.Key, Count: a.CrashCount, Reason: a.CrashReason}}
		}
		surplus = surplus || a.Index >= p.wanted
	}
	return !surplus && running(list) >= p.wanted, nil
}

// text says how far the instances are, as one short line.
func (p *progress) text() string {
	list := p.list()
	count := map[string]int{}
	for _, a := range list {
		switch {
		case a.Retiring:
			count["stopping"]++
		case a.State == lrp.Unclaimed:
			count["to be placed"]++
		case a.State == lrp.Claimed:
			count["starting"]++
		}
	}
	text := fmt.Sprintf("%d of %d running", running(list), p.wanted)
	for _, word := range []string{"starting", "to be placed", "stopping"} {
		if n := count[word]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, word)
		}
	}
	return text
}

// crashed says that an instance crashed while somebody waited for it.
type crashed struct{ report lrp.CrashReport }

func (c *crashed) Error() string {
	where := ""
	if c.report.By.Cell != "" {
		where = fmt.Sprintf(" on %s", c.report.By.Cell)
	}
	return fmt.Sprintf("instance %v crashed%s: %s", c.report.Key.Slot, where, c.report.Reason)
}

// unplaced says that no cell took an instance.
type unplaced struct{ actual lrp.Actual }

func (u *unplaced) Error() string {
	text := fmt.Sprintf("instance %v cannot be placed: %s", u.actual.Slot, u.actual.PlacementError)
	if x := u.actual.Explanation; x != nil && x.Remedy != "" {
		text += "; this would help: " + x.Remedy
	}
	return text
}

// await waits until exactly the wanted instances run, shows how it goes, and explains what keeps
// them from it.
func (a *app) await(ctx context.Context, bbs *bbsclient.Client, name lrp.ProcessGUID, wanted int32, noWait bool, timeout time.Duration) error {
	if noWait {
		return a.report(ctx, bbs, name, fmt.Sprintf("%s: %d wanted", name, wanted))
	}
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	started := time.Now()
	p, err := a.follow(wctx, bbs, name, wanted)
	var c *crashed
	var u *unplaced
	switch {
	case err == nil:
		return a.report(ctx, bbs, name, fmt.Sprintf("%s: %s after %s", name, p.text(), time.Since(started).Round(time.Millisecond)))
	case errors.As(err, &c):
		a.showLastLines(ctx, bbs, c.report)
		return advise(err, "Muster keeps trying. To end that: muster rm %s\nwhat it wrote: muster logs %s", name, name)
	case errors.As(err, &u):
		return advise(err, "Muster places it as soon as there is room; what is missing where: muster explain %s\nto give up: muster rm %s", name, name)
	// The deadline travels to the BBS, which may end the watch a moment before our own clock does.
	case ctx.Err() == nil && (errors.Is(wctx.Err(), context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded):
		state := "nothing is known"
		if p != nil {
			state = p.text()
		}
		return advise(fmt.Errorf("%s: after %v, %s", name, timeout, state),
			"muster lrps %s shows what each instance waits for\nmuster events --process %s shows what happened\nto wait longer: --timeout 10m", name, name)
	}
	return fmt.Errorf("wait for %s: %w", name, err)
}

// report ends a verb that changed a process: with its state for programs, a line for people.
func (a *app) report(ctx context.Context, bbs *bbsclient.Client, name lrp.ProcessGUID, line string) error {
	if !a.json {
		_, err := fmt.Fprintln(a.Out, line)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return a.showProcess(ctx, bbs, name)
}

// follow lists and watches the instances until they are as wanted.
func (a *app) follow(ctx context.Context, bbs *bbsclient.Client, name lrp.ProcessGUID, wanted int32) (*progress, error) {
	var p *progress
	for {
		actuals, revision, err := bbs.Actuals(ctx, bbsclient.ActualFilter{Process: name})
		if err != nil {
			return p, err
		}
		p = newProgress(wanted, actuals)
		if done, err := p.done(); done || err != nil {
			return p, err
		}
		a.note(name, p)
		w, err := bbs.Watch(ctx, revision, bbsclient.WatchFilter{Process: name})
		if err != nil {
			return p, err
		}
		err = a.watchProgress(w, name, p)
		if status.Code(err) == codes.OutOfRange {
			continue // the log moved on: list again
		}
		return p, err
	}
}

func (a *app) watchProgress(w *bbsclient.Watch, name lrp.ProcessGUID, p *progress) error {
	last := p.text()
	for {
		events, _, err := w.Recv()
		if err != nil {
			return err
		}
		p.apply(events)
		if done, err := p.done(); done || err != nil {
			return err
		}
		if text := p.text(); text != last {
			last = text
			a.note(name, p)
		}
	}
}

// note shows progress on a terminal; elsewhere only the result is of interest.
func (a *app) note(name lrp.ProcessGUID, p *progress) {
	if !a.json && terminal(a.Err) > 0 {
		fmt.Fprintf(a.Err, "%s: %s\n", name, p.text())
	}
}

// showLastLines prints the end of what a crashed instance wrote, as far as a cell still has it.
func (a *app) showLastLines(ctx context.Context, bbs *bbsclient.Client, report lrp.CrashReport) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	index := report.Key.Index
	lines, err := a.collectLogs(ctx, bbs, logQuery{process: report.Key.Process, index: &index, tail: crashLogLines})
	if err != nil || len(lines) == 0 {
		return // the crash is the news; its log is a courtesy
	}
	sort.SliceStable(lines, func(i, j int) bool { return lines[i].Instance < lines[j].Instance })
	fmt.Fprintf(a.Err, "last lines of %v:\n", report.Key.Slot)
	for _, l := range lines[max(0, len(lines)-crashLogLines):] {
		fmt.Fprintf(a.Err, "  | %s\n", l.Text)
	}
}
