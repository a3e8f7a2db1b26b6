package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster/bbs/converge"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

const (
	// narrowLimit is how many processes one comparison takes on by each of its questions. It is more
	// than a plan has steps for; what is left out comes next time.
	narrowLimit = 2 * converge.MaxSteps
	// crashedLimit is how many crashed instances a comparison reports.
	crashedLimit = 100_000
)

// Comparison is what a full comparison found, at one revision.
type Comparison struct {
	Revision uint64
	// Snapshot has only the processes that may need something.
	converge.Snapshot
	// At is when it was: whatever was due then is there.
	At time.Time
	// Tasks are those that may be due, as far as task.Plan and task.Callbacks look at them.
	Tasks []task.Task
	// Waiting stands for the COMPLETED, PENDING and RESOLVING tasks that are not due: one for each state,
	// with the earliest of each of their times, and nothing else.
	Waiting []task.Task
	// Crashed are instances that wait for their back-off, those that waited longest first. Only key,
	// state, crash count and since are set.
	Crashed []lrp.Actual
	Counts  Counts
}

// Counts says how much there is of everything, for metrics.
type Counts struct {
	Processes int64
	Desired   int64 // instances
	Actuals   map[ActualKind]int64
	Tasks     map[task.State]int64
}

// ActualKind is what instances are counted by.
type ActualKind struct {
	Presence lrp.Presence
	State    lrp.State
}

// Compare finds what may need something: what converge.Plan and task.Plan say to that is what they would
// say to everything, unless there is more than one plan can hold. It reads no row of a process that is as
// it should be, and of tasks only those that may be due. All of it, what is known of the cells included,
// is of one moment: a task that started on a new cell is not met without that cell.
func (s *Store) Compare(ctx context.Context, grace time.Duration) (Comparison, error) {
	now := s.now()
	c := Comparison{At: now, Counts: Counts{Actuals: map[ActualKind]int64{}, Tasks: map[task.State]int64{}}}
	c.Grace = grace
	found := map[lrp.ProcessGUID]bool{}
	err := s.inSnapshot(ctx,
		func(pb *pgx.Batch) {
			pb.Queue(s.sql["newest_revision"]).QueryRow(func(r pgx.Row) error { return r.Scan(&c.Revision) })
			s.queueCounts(pb, &c.Counts)
			s.queueKnowledge(pb, &c.Snapshot, now)
			s.queueTasks(pb, &c)
			s.queueNarrow(pb, found)
			s.queueCrashed(pb, &c.Crashed)
		},
		func(pb *pgx.Batch) {
			for _, a := range c.Crashed {
				if at, ok := lrp.RestartAt(a); ok && !now.Before(at) {
					found[a.Process] = true
				}
			}
			s.queueOutlines(pb, slices.Sorted(maps.Keys(found)), &c.Snapshot)
		})
	return c, err
}

// Glance is the little that tells whether there can be anything to do.
type Glance struct {
	Revision uint64
	Fresh    []lrp.Domain
}

// Glance looks where the log stands and which domains are fresh.
func (s *Store) Glance(ctx context.Context) (g Glance, err error) {
	g.Revision, err = s.snapshot(ctx, func(pb *pgx.Batch) { s.queueDomains(pb, &g.Fresh) })
	return g, err
}

// inSnapshot reads in one read-only transaction, in two round trips: the second one can ask by what
// the first one answered.
func (s *Store) inSnapshot(ctx context.Context, first, second func(*pgx.Batch)) error {
	conn, err := s.Pools.Read.Acquire(ctx)
	if err != nil {
		return unavailable("compare records", err)
	}
	defer conn.Release() // a connection that is still in a transaction is thrown away
	var pb pgx.Batch
	pb.Queue(s.sql["begin_read"])
	first(&pb)
	if err := send(ctx, conn, &pb); err != nil {
		return err
	}
	pb = pgx.Batch{}
	second(&pb)
	pb.Queue(s.sql["commit"])
	return send(ctx, conn, &pb)
}

func send(ctx context.Context, conn *pgxpool.Conn, pb *pgx.Batch) error {
	return unavailable("compare records", conn.SendBatch(ctx, pb).Close())
}

// queueKnowledge asks for what every plan needs to know.
func (s *Store) queueKnowledge(pb *pgx.Batch, snap *converge.Snapshot, now time.Time) {
	s.queueDomains(pb, &snap.Fresh)
	s.queuePresences(pb, now, &snap.Cells)
}

func (s *Store) queueCounts(pb *pgx.Batch, c *Counts) {
	pb.Queue(s.sql["count_actuals"]).Query(func(rows pgx.Rows) error {
		var presence string
		var state lrp.State
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&presence, &state, &n}, func() error {
			c.Actuals[ActualKind{presenceOf(presence), state}] = n
			return nil
		})
		return err
	})
	pb.Queue(s.sql["count_desired"]).QueryRow(func(r pgx.Row) error { return r.Scan(&c.Processes, &c.Desired) })
}

// queueNarrow asks which processes may need something.
func (s *Store) queueNarrow(pb *pgx.Batch, found map[lrp.ProcessGUID]bool) {
	ordinary, suspect := presenceName(lrp.Ordinary), presenceName(lrp.Suspect)
	pb.Queue(s.sql["walk_indexes"])
	for _, q := range []struct {
		name string
		args []any
	}{
		{"odd_processes", []any{ordinary, narrowLimit}},
		{"odd_siblings", []any{ordinary, suspect, string(lrp.Running), narrowLimit}},
		{"processes_on_lost_cells", []any{ordinary, narrowLimit}},
	} {
		pb.Queue(s.sql[q.name], q.args...).Query(func(rows pgx.Rows) error {
			var p lrp.ProcessGUID
			_, err := pgx.ForEachRow(rows, []any{&p}, func() error {
				found[p] = true
				return nil
			})
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			return nil
		})
	}
}

// queueTasks asks for the tasks that may be due, and when the others will be.
func (s *Store) queueTasks(pb *pgx.Batch, c *Comparison) {
	marks := s.TaskPolicy.Marks(c.At)
	states := []any{taskStateName(task.Pending), taskStateName(task.Running), taskStateName(task.Completed), taskStateName(task.Resolving)}
	args := append(states, marks.Created, marks.Updated, marks.Completed)
	pb.Queue(s.sql["count_tasks"], args[4:]...).Query(func(rows pgx.Rows) error {
		var state string
		var n int64
		var created, updated, completed *time.Time
		_, err := pgx.ForEachRow(rows, []any{&state, &n, &created, &updated, &completed}, func() error {
			t := task.Task{State: taskStateOf(state), CreatedAt: timeOrZero(created), UpdatedAt: timeOrZero(updated), FirstCompletedAt: timeOrZero(completed)}
			c.Counts.Tasks[t.State] = n
			if t.State != task.Running { // nothing becomes due by itself
				t.Definition.CompletionCallbackURL = "anywhere" // some of them may have one
				c.Waiting = append(c.Waiting, t)
			}
			return nil
		})
		return err
	})
	pb.Queue(s.sql["odd_tasks"], append(args, narrowLimit)...).Query(func(rows pgx.Rows) (err error) {
		c.Tasks, err = collect(s, rows, s.scanTaskOutline)
		return err
	})
}

// scanTaskOutline reads a row of odd_tasks. Its definition is there only if somebody may have to be told.
func (s *Store) scanTaskOutline(rows pgx.CollectableRow) (task.Task, error) {
	var t task.Task
	var state string
	var completed *time.Time
	var definition []byte
	err := rows.Scan(&t.GUID, &t.Domain, &state, &t.Cell, &t.CreatedAt, &t.UpdatedAt, &completed, &t.RejectionCount, &definition)
	if err != nil {
		return task.Task{}, err
	}
	t.State, t.CreatedAt, t.UpdatedAt, t.FirstCompletedAt = taskStateOf(state), t.CreatedAt.UTC(), t.UpdatedAt.UTC(), timeOrZero(completed)
	if definition == nil {
		return t, nil
	}
	t.Definition, err = s.openTask(t.GUID, definition)
	return t.Summary(), firstUnreadable("tasks", string(t.GUID), columnError{"definition", err})
}

func (s *Store) queueCrashed(pb *pgx.Batch, list *[]lrp.Actual) {
	args := []any{presenceName(lrp.Ordinary), string(lrp.Crashed), lrp.MaxRestarts, crashedLimit}
	pb.Queue(s.sql["crashed_actuals"], args...).Query(func(rows pgx.Rows) (err error) {
		*list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (lrp.Actual, error) {
			a := lrp.Actual{State: lrp.Crashed}
			return a, r.Scan(&a.Process, &a.Index, &a.Domain, &a.CrashCount, &a.Since)
		})
		return err
	})
}

// queueOutlines asks for some processes.
func (s *Store) queueOutlines(pb *pgx.Batch, processes []lrp.ProcessGUID, snap *converge.Snapshot) {
	if len(processes) == 0 {
		return
	}
	s.queueDesiredOutlines(pb, processes, snap)
	pb.Queue(s.sql["read_outlines"], processes).Query(func(rows pgx.Rows) error {
		var actuals []lrp.Actual
		err := collectOutlines(&actuals)(rows)
		snap.Groups = Groups(actuals)
		return err
	})
}

func (s *Store) queueDesiredOutlines(pb *pgx.Batch, processes []lrp.ProcessGUID, snap *converge.Snapshot) {
	pb.Queue(s.sql["read_desired_outlines"], processes).Query(func(rows pgx.Rows) (err error) {
		snap.Desired, err = pgx.CollectRows(rows, pgx.RowToStructByPos[converge.Desired])
		return err
	})
}

func collectOutlines(into *[]lrp.Actual) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (lrp.Actual, error) {
			var a lrp.Actual
			var presence string
			err := r.Scan(&a.Process, &a.Index, &presence, &a.Domain, &a.State, &a.Instance, &a.Cell, &a.CrashCount, &a.Since, &a.Retiring)
			a.Presence, a.Since = presenceOf(presence), a.Since.UTC()
			return a, err
		})
		return err
	}
}

// Groups puts the records of each slot together.
func Groups(actuals []lrp.Actual) []lrp.Group {
	bySlot := make(map[lrp.Slot]int, len(actuals))
	all := make([]lrp.Group, 0, len(actuals))
	for i := range actuals {
		a := &actuals[i]
		n, ok := bySlot[a.Slot]
		if !ok {
			n = len(all)
			bySlot[a.Slot] = n
			all = append(all, lrp.Group{})
		}
		switch a.Presence {
		case lrp.Evacuating:
			all[n].Evacuating = a
		case lrp.Suspect:
			all[n].Suspect = a
		default:
			all[n].Ordinary = a
		}
	}
	return all
}

// Presences returns what is known of the cells. The clock is that of the database, told by that of
// the caller; since when the cells are complete is for the caller to say.
func (s *Store) Presences(ctx context.Context) (p cells.Presences, err error) {
	_, err = s.snapshot(ctx, func(pb *pgx.Batch) { s.queuePresences(pb, s.now(), &p) })
	return p, err
}

func (s *Store) queuePresences(pb *pgx.Batch, now time.Time, p *cells.Presences) {
	pb.Queue(s.sql["read_presences"]).Query(func(rows pgx.Rows) error {
		*p = cells.Presences{Known: true, Cells: map[lrp.CellID]cells.Sight{}}
		var id lrp.CellID
		var lostFor *int64
		_, err := pgx.ForEachRow(rows, []any{&id, &lostFor}, func() error {
			var sight cells.Sight
			if lostFor != nil {
				sight.LostAt = now.Add(-time.Duration(*lostFor) * time.Microsecond)
			}
			p.Cells[id] = sight
			return nil
		})
		return err
	})
}
