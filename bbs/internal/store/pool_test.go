package store

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/bbs/lrp"
	"muster/internal/pgtest"
)

// The plans of the writers' statements find rows by key, in tables that are new and in full ones.
func TestPlansUseKeys(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.Database(t, Migrate), Options{})
	ctx := t.Context()
	scan := regexp.MustCompile(`Scan .*on (desired_lrps|actual_lrps|tasks|requests)\b`)
	check := func(when string) {
		t.Helper()
		conn, err := s.Pools.Write.Acquire(ctx)
		must(t, err)
		defer conn.Release()
		for i, name := range []string{
			"read_desired", "read_instances", "update_desired", "delete_desired", "read_slots", "update_actuals", "delete_actuals",
			"move_actuals", "count_running", "read_tasks", "update_tasks", "delete_tasks", "read_requests",
		} {
			id := fmt.Sprintf("plan_%d_%d", len(when), i)
			described, err := conn.Conn().Prepare(ctx, id, s.sql[name])
			must(t, err)
			nulls := strings.TrimSuffix(strings.Repeat("null,", len(described.ParamOIDs)), ",")
			rows, err := conn.Query(ctx, "explain execute "+id+"("+nulls+")", pgx.QueryExecModeSimpleProtocol)
			must(t, err)
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			must(t, err)
			scans := 0
			for i, line := range lines {
				if !scan.MatchString(line) {
					continue
				}
				scans++
				if i+1 == len(lines) || !strings.Contains(lines[i+1], "Cond:") {
					t.Errorf("%s, %s reads a table from end to end:\n%s", when, name, strings.Join(lines, "\n"))
				}
			}
			if scans == 0 {
				t.Errorf("%s, %s reads no table:\n%s", when, name, strings.Join(lines, "\n"))
			}
		}
	}
	check("new")
	must(t, s.Desire(ctx, app("p", 3000), Call{}))
	var many []lrp.Desired
	for i := range 300 {
		many = append(many, app(fmt.Sprint("q", i), 0))
	}
	must(t, errors.Join(s.DesireAll(ctx, many, Call{})...))
	for i := range 100 {
		must(t, s.DesireTask(ctx, job(fmt.Sprint("t", i)), Call{RequestID: fmt.Sprint("r", i)}))
	}
	_, err := s.Pools.Read.Exec(ctx, "analyze")
	must(t, err)
	check("filled")
}

// Plans are kept for a while, and no longer.
func TestPlansGrowOld(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	conn, err := s.Pools.Write.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	for i, age := range []time.Duration{0, planAge / 2, planAge} {
		data := conn.Conn().PgConn().CustomData()
		if at, ok := data[plannedAt].(time.Time); ok {
			data[plannedAt] = at.Add(-age)
		}
		var pb pgx.Batch
		queuePlanning(&pb, conn.Conn(), s.sql)
		if again := pb.Len() == 1; again != (i != 1) {
			t.Errorf("after %v: planned again: %v", age, again)
		}
	}
	must(t, s.Desire(t.Context(), app("p", 1), Call{}))
}
