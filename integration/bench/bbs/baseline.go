package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster/bbs/lrp"
	"muster/integration/bench/rig"
)

const (
	// most is the highest number of connections that is tried.
	most = 64
	// tables are those of the baseline: like those of the BBS, with all that
	// hangs on them, so that neither is in the way of the other.
	tables = `create table row_actual_lrps (like actual_lrps including all);
		alter table row_actual_lrps set (fillfactor = 30);
		create table row_events (like events including all);
		create table row_sequencer (like sequencer including all);
		alter table row_sequencer set (fillfactor = 10);
		insert into row_sequencer (only_row, revision) values (true, 0)`
)

// baseline starts instances without the BBS, one per transaction and all of it in one statement and one
// round trip: compare and set of the record, next revision, entry of the log. It writes the columns and
// the bytes that the BBS writes for a start.
type baseline struct {
	pool    *pgxpool.Pool
	best    int // connections
	columns []string
	waiting []lrp.ProcessGUID // the copied rows that are still to be started

	statement string
	record    []any // values of the columns of a started instance
	entry     []any // values of the columns of its entry in the log, without the revision
}

func newBaseline(ctx context.Context, url string) (*baseline, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	pc.MaxConns = most
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	b := &baseline{pool: pool, best: 16}
	if _, err := pool.Exec(ctx, tables); err != nil {
		pool.Close()
		return nil, fmt.Errorf("make tables of the baseline: %w", err)
	}
	return b, nil
}

func (b *baseline) close() { b.pool.Close() }

// copyClaimed copies the records of instances that were claimed and are to be started.
func (b *baseline) copyClaimed(ctx context.Context, processes []lrp.ProcessGUID) error {
	tag, err := b.pool.Exec(ctx, `insert into row_actual_lrps select * from actual_lrps where process_guid = any($1::text[])`, processes)
	if err != nil || int(tag.RowsAffected()) != len(processes) {
		return fmt.Errorf("copy %d claimed instances: %d were there: %w", len(processes), tag.RowsAffected(), err)
	}
	b.waiting = processes
	return nil
}

// prepare learns from one start of the BBS what is to be written.
func (b *baseline) prepare(ctx context.Context) error {
	if b.statement != "" {
		return nil
	}
	key := []string{"process_guid", "index", "presence"}
	started := b.waiting[0]
	columns, record, err := b.values(ctx, "select * from actual_lrps where process_guid = $1", started)
	if err != nil {
		return err
	}
	logColumns, entry, err := b.values(ctx, "select * from events where process_guid = $1 order by revision desc limit 1", started)
	if err != nil {
		return err
	}
	var sets, values, names, selected []string
	n := 1 // $1 is the process
	for i, c := range columns {
		if !slices.Contains(key, c) {
			n++
			sets, values = append(sets, c), append(values, fmt.Sprintf("$%d", n))
			b.record = append(b.record, record[i])
		}
	}
	for i, c := range logColumns {
		if c != "revision" {
			n++
			names, selected = append(names, c), append(selected, fmt.Sprintf("$%d", n))
			b.entry = append(b.entry, entry[i])
		}
	}
	// The state and the owner that the rules ask for, as the claim left them.
	b.statement = fmt.Sprintf(`with changed as (
			update row_actual_lrps set (%s) = row(%s)
			where process_guid = $1 and index = 0 and presence = 'ORDINARY' and state = 'CLAIMED' and cell_id <> '' returning 1
		), taken as (
			update row_sequencer set revision = revision + 1 from changed returning revision
		)
		insert into row_events (revision, %s) select revision, %s from taken`,
		strings.Join(sets, ", "), strings.Join(values, ", "), strings.Join(names, ", "), strings.Join(selected, ", "))
	return nil
}

// values returns the names and the values of the columns of one row.
func (b *baseline) values(ctx context.Context, sql string, process lrp.ProcessGUID) (names []string, values []any, err error) {
	rows, err := b.pool.Query(ctx, sql, string(process))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, nil, errors.Join(fmt.Errorf("the BBS has written nothing for process %s", process), rows.Err())
	}
	for _, f := range rows.FieldDescriptions() {
		names = append(names, f.Name)
	}
	values, err = rows.Values()
	return names, values, err
}

// search finds the number of connections that is best for it, with the rows that are left of a round.
func (b *baseline) search(ctx context.Context) error {
	tries := []int{4, 8, 16, 32, most}
	rows, best := len(b.waiting)/len(tries), 0.0
	for _, n := range tries {
		rate, err := b.startWith(ctx, n, rows)
		if err != nil {
			return err
		}
		logf("a row per transaction by %d connections: %.0f a second", n, rate)
		if rate > best {
			b.best, best = n, rate
		}
	}
	return nil
}

// start starts the copied instances by the best number of connections, and returns how many a second.
func (b *baseline) start(ctx context.Context) (float64, error) {
	return b.startWith(ctx, b.best, maxRows)
}

func (b *baseline) startWith(ctx context.Context, connections, n int) (float64, error) {
	if err := b.prepare(ctx); err != nil {
		return 0, err
	}
	rows := b.waiting[:min(len(b.waiting), n)]
	b.waiting = b.waiting[len(rows):]
	conns := make([]*pgxpool.Conn, connections)
	for i := range conns {
		c, err := b.pool.Acquire(ctx)
		if err != nil {
			return 0, err
		}
		defer c.Release()
		if _, err := c.Conn().Prepare(ctx, "start", b.statement); err != nil {
			return 0, fmt.Errorf("prepare the statement of the baseline: %w", err)
		}
		conns[i] = c
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	m, err := rig.Work(ctx, connections, len(rows), func(ctx context.Context, c, i int) error {
		args := slices.Concat([]any{string(rows[i])}, b.record, b.entry)
		tag, err := conns[c].Exec(ctx, "start", args...)
		if err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("%d rows changed, want 1", tag.RowsAffected())
		}
		if err != nil {
			return fmt.Errorf("start %s in a transaction of its own: %w", rows[i], err)
		}
		return nil
	})
	return m.PerSecond, err
}

const (
	// maxRows is how many rows one round writes at most: enough for a second or more.
	maxRows = 2000
	// startTime bounds one round.
	startTime = time.Minute
)
