package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/internal/identity"
	"muster/rep/repclient"
)

// logQuery says which lines are asked for.
type logQuery struct {
	process lrp.ProcessGUID
	index   *int32
	follow  bool
	tail    int
}

// logLine is one line as it is printed.
type logLine struct {
	Process  string    `json:"process_guid"`
	Index    int32     `json:"index"`
	Cell     string    `json:"cell_id"`
	Instance string    `json:"instance_guid"`
	Stream   string    `json:"stream"`
	Source   string    `json:"source"`
	At       time.Time `json:"time"`
	Text     string    `json:"line"`
}

func (a *app) logsCommand() *cobra.Command {
	q := logQuery{tail: 100}
	index := int32(-1)
	c := &cobra.Command{
		Use:               "logs NAME",
		Short:             "show what the instances of an application write",
		Example:           "  muster logs hello\n  muster logs hello -f --index 0 --tail 20",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeOne,
		RunE: func(c *cobra.Command, args []string) error {
			q.process = lrp.ProcessGUID(args[0])
			if c.Flags().Changed("index") {
				if index < 0 {
					return usagef("--index %d: want 0 or larger", index)
				}
				q.index = &index
			}
			if q.tail < 0 {
				return usagef("--tail %d: want 0 (all that is kept) or larger", q.tail)
			}
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				return a.showLogs(ctx, bbs, q)
			})
		},
	}
	f := c.Flags()
	f.BoolVarP(&q.follow, "follow", "f", false, "go on with new lines until interrupted")
	f.Int32Var(&index, "index", -1, "only the instance with this index")
	f.IntVar(&q.tail, "tail", q.tail, "how many of the newest lines of each instance come first; 0: all that is kept")
	return c
}

func (a *app) showLogs(ctx context.Context, bbs *bbsclient.Client, q logQuery) error {
	if _, err := bbs.Desired(ctx, q.process); err != nil && !isUnknown(err) {
		return fmt.Errorf("logs of %s: %w", q.process, err)
	} else if err != nil {
		return a.unknown(ctx, bbs, q.process, fmt.Errorf("logs of %s: %w", q.process, err))
	}
	lines := 0
	err := a.eachLogLine(ctx, bbs, q, func(l logLine) error {
		lines++
		if a.json {
			return printLine(a.Out, l)
		}
		_, err := fmt.Fprintf(a.Out, "%s/%d %s [%s]  %s\n", l.Process, l.Index, l.Cell, l.Source, l.Text)
		return err
	})
	if ctx.Err() != nil && q.follow {
		return nil // an interrupt is how one stops following
	}
	if err == nil && lines == 0 && !a.json {
		fmt.Fprintf(a.Err, "Nothing yet. muster lrps %s shows its instances; -f waits for lines.\n", q.process)
	}
	return err
}

func (a *app) collectLogs(ctx context.Context, bbs *bbsclient.Client, q logQuery) ([]logLine, error) {
	var lines []logLine
	err := a.eachLogLine(ctx, bbs, q, func(l logLine) error {
		lines = append(lines, l)
		return nil
	})
	return lines, err
}

// eachLogLine asks all cells at the same time, since an instance that crashed may have left its
// lines on another cell than the one that has the slot now. Calls of fn do not overlap.
func (a *app) eachLogLine(ctx context.Context, bbs *bbsclient.Client, q logQuery, fn func(logLine) error) error {
	list, _, err := bbs.Cells(ctx)
	if err != nil {
		return fmt.Errorf("list cells: %w", err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, len(list))
	for i, cell := range list {
		wg.Go(func() {
			errs[i] = a.cellLog(ctx, cell, q, func(l repclient.LogLine) error {
				mu.Lock()
				defer mu.Unlock()
				return fn(viewLine(q.process, l))
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func viewLine(p lrp.ProcessGUID, l repclient.LogLine) logLine {
	v := logLine{
		Process: string(p), Index: l.Index, Cell: string(l.Cell), Instance: string(l.Instance),
		Source: l.Source, At: l.Time, Stream: "stdout", Text: strings.ToValidUTF8(string(l.Line), "\uFFFD"),
	}
	if l.Stderr {
		v.Stream = "stderr"
	}
	return v
}

func (a *app) cellLog(ctx context.Context, cell cells.Presence, q logQuery, fn func(repclient.LogLine) error) error {
	err := a.withCell(cell, func(rep *repclient.Client) error {
		return rep.Logs(ctx, repclient.LogsRequest{Process: q.process, Index: q.index, Follow: q.follow, Tail: q.tail}, fn)
	})
	if status.Code(err) == codes.NotFound {
		return nil // this cell has none of them
	}
	return err
}

// withCell calls do with a client of the rep of a cell.
func (a *app) withCell(cell cells.Presence, do func(*repclient.Client) error) error {
	conn, err := a.link.dial(strings.TrimPrefix(cell.RepURL, "https://"), identity.Rep)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := do(repclient.New(conn)); err != nil {
		return fmt.Errorf("cell %s at %s: %w", cell.Cell, cell.RepURL, err)
	}
	return nil
}
