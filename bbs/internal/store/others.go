package store

import (
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"muster/bbs/lrp"
)

// others are the arguments of the set statements that most batches do without; empty ones are nil.
type others struct {
	moveActuals              columns
	insertTasks, updateTasks columns
	deleteTasks              []string
	insertRequests           columns
	upsertFences             columns
}

// queueOtherReads queues the reads that most batches do without.
func (s *Store) queueOtherReads(pb *pgx.Batch, subj subjects, w *world) {
	if len(subj.tasks) > 0 {
		pb.Queue(s.sql["read_tasks"], slices.Sorted(maps.Keys(subj.tasks))).Query(func(rows pgx.Rows) error { return s.readTasks(w, rows) })
	}
	if len(subj.requests) > 0 {
		c := make(columns, 2)
		for _, id := range slices.SortedFunc(maps.Keys(subj.requests), compareIDs) {
			row(c, id.id, id.item)
		}
		pb.Queue(s.sql["read_requests"], c...).Query(w.readRequests)
	}
	if len(subj.leases) > 0 {
		pb.Queue(s.sql["read_fences"], slices.Sorted(maps.Keys(subj.leases))).Query(w.readFences)
	}
	var counted []lrp.ProcessGUID // those of which not all records are read anyway
	for p := range subj.counted {
		if !subj.full[p] {
			counted = append(counted, p)
		}
	}
	if len(counted) > 0 {
		w.serving = map[lrp.ProcessGUID]int{}
		for _, p := range counted {
			w.serving[p] = 0
		}
		slices.Sort(counted)
		args := []any{counted, int16(lrp.Recreate), presenceName(lrp.Ordinary), string(lrp.Running)}
		pb.Queue(s.sql["count_running"], args...).Query(w.readCounts)
	}
}

// readCounts adds up what serves. What is wanted of the processes was read before.
func (w *world) readCounts(rows pgx.Rows) error {
	one := lrp.Actual{State: lrp.Running} // and the others of its row are like it
	var n int
	_, err := pgx.ForEachRow(rows, []any{&one.Process, &one.Index, &one.Retiring, &n}, func() error {
		if one.Serves(w.wanted[one.Process].instances) {
			w.serving[one.Process] += n
		}
		return nil
	})
	return err
}
