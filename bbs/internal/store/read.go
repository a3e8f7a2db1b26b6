package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// readTime bounds one read of a few rows that nobody else bounds: a network that swallows what is sent on it
// looks like a database that thinks for long. Up: a database under load is waited for; down: silence is noticed
// sooner.
const readTime = 5 * time.Second

// briefly makes a read of a few rows that must not take longer than readTime. When it does, the connections
// are thrown away: others of the pool are silent too, most likely, and each would take as long to be found out.
func (s *Store) briefly(ctx context.Context, read func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	err := read(bounded)
	if err == nil || bounded.Err() == nil || ctx.Err() != nil {
		return err
	}
	if was, now := s.silentAt.Load(), time.Now(); was == nil || now.Sub(*was) > readTime {
		if s.silentAt.CompareAndSwap(was, &now) { // whoever else noticed waited for connections as old
			s.Pools.Read.Reset()
		}
	}
	return fmt.Errorf("%w within %v: %v", ErrUnavailable, readTime, err) // not as if the caller's own time were over
}

// snapshot reads in one read-only transaction and returns the revision that the reads show.
func (s *Store) snapshot(ctx context.Context, queue func(*pgx.Batch)) (uint64, error) {
	conn, err := s.Pools.Read.Acquire(ctx)
	if err != nil {
		return 0, unavailable("read records", err)
	}
	defer conn.Release()
	var revision uint64
	var pb pgx.Batch
	pb.Queue(s.sql["begin_read"])
	pb.Queue(s.sql["newest_revision"]).QueryRow(func(r pgx.Row) error { return r.Scan(&revision) })
	queue(&pb)
	pb.Queue(s.sql["commit"])
	if err := conn.SendBatch(ctx, &pb).Close(); err != nil {
		return 0, unavailable("read records", err)
	}
	return revision, nil
}

// unavailable wraps an error of the database, unless the caller has stopped waiting. A value that no
// column could hold is the caller's mistake.
func unavailable(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isRejected(err):
		return invalid(err)
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), !isRetryable(err):
		return fmt.Errorf("%s: %w", what, err)
	default:
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
}

// Page chooses a part of a list. The zero page is all of it.
type Page struct {
	After string // the Mark.After that came with the page before; empty: from the beginning
	Limit int    // most records; 0: no limit
}

// Mark says where a list, or a page of one, stands.
type Mark struct {
	// Revision is what the records show.
	Revision uint64
	// After is the key of the last record; empty when no more follow.
	After string
}

// readPage reads the rows of a list statement, whose last argument is the limit of the page.
func readPage[T any](ctx context.Context, s *Store, p Page, l listing[T]) ([]T, Mark, error) {
	var all []T
	var rows int64
	revision, err := s.snapshot(ctx, func(pb *pgx.Batch) { l.queue(s, pb, p.Limit, &all, &rows) })
	if err != nil {
		return nil, Mark{}, err
	}
	at := Mark{Revision: revision}
	switch {
	case p.Limit == 0 || rows < int64(p.Limit):
	case len(all) == 0: // nothing of a whole page can be read: there is no key to go on after
		return readPage(ctx, s, Page{After: p.After}, l)
	default: // it may be the last page all the same: the next one is empty then
		at.After = l.key(all[len(all)-1])
	}
	return all, at, nil
}

// listing is a list statement: its arguments but the limit, and how its rows are read.
type listing[T any] struct {
	name string
	args []any
	scan func(pgx.CollectableRow) (T, error)
	key  func(T) string // the Mark.After of a record
}

// queue queues the statement. rows counts those that cannot be read, too.
func (l listing[T]) queue(s *Store, pb *pgx.Batch, limit int, all *[]T, rows *int64) {
	pb.Queue(s.sql[l.name], append(l.args, limit)...).Query(func(r pgx.Rows) (err error) {
		*all, err = collect(s, r, l.scan)
		*rows = r.CommandTag().RowsAffected()
		return err
	})
}

// DesiredFilter chooses DesiredLRPs; zero members choose all.
type DesiredFilter struct {
	Domain    lrp.Domain
	Processes []lrp.ProcessGUID
	Prefixes  []string // of process GUIDs
}

func (f DesiredFilter) args(after string) []any {
	return []any{string(f.Domain), texts(f.Processes), append([]string{}, f.Prefixes...), after}
}

// texts is never null: that would be a filter that nothing matches.
func texts(processes []lrp.ProcessGUID) []string {
	list := make([]string, len(processes))
	for i, p := range processes {
		list[i] = string(p)
	}
	return list
}

// Desired lists whole DesiredLRPs, in the order of their GUIDs.
func (s *Store) Desired(ctx context.Context, f DesiredFilter, p Page) ([]lrp.Desired, Mark, error) {
	return readPage(ctx, s, p, listing[lrp.Desired]{
		"list_desired", f.args(p.After), s.scanWhole, func(d lrp.Desired) string { return string(d.Process) },
	})
}

// DesiredWithActuals returns the DesiredLRP of a process, nil if there is none, and its instances.
func (s *Store) DesiredWithActuals(ctx context.Context, p lrp.ProcessGUID) (d *lrp.Desired, actuals []lrp.Actual, err error) {
	_, err = s.snapshot(ctx, func(pb *pgx.Batch) {
		pb.Queue(s.sql["read_desired"], []string{string(p)}).Query(func(rows pgx.Rows) error {
			list, err := pgx.CollectRows(rows, s.scanWhole)
			if err != nil || len(list) == 0 {
				return err
			}
			d = &list[0]
			return nil
		})
		s.actuals(ActualFilter{Process: p}, lrp.Actual{}).queue(s, pb, 0, &actuals, new(int64))
	})
	return d, actuals, err
}

// Scheduling lists DesiredLRPs without their recipes, in the order of their GUIDs.
func (s *Store) Scheduling(ctx context.Context, f DesiredFilter, p Page) ([]lrp.SchedulingInfo, Mark, error) {
	return readPage(ctx, s, p, s.scheduling(f, p.After))
}

func (s *Store) scheduling(f DesiredFilter, after string) listing[lrp.SchedulingInfo] {
	return listing[lrp.SchedulingInfo]{
		"list_scheduling", f.args(after), s.scanScheduling, func(d lrp.SchedulingInfo) string { return string(d.Process) },
	}
}

// ActualFilter chooses ActualLRPs; zero members choose all.
type ActualFilter struct {
	Domain    lrp.Domain
	Cell      lrp.CellID
	Process   lrp.ProcessGUID
	Processes []lrp.ProcessGUID // instead of Process
	Index     *int32
}

// Actuals lists ActualLRPs, in the order of their slots.
func (s *Store) Actuals(ctx context.Context, f ActualFilter, p Page) ([]lrp.Actual, Mark, error) {
	from, err := readPosition(p.After)
	if err != nil {
		return nil, Mark{}, err
	}
	return readPage(ctx, s, p, s.actuals(f, from))
}

// ActualsOf lists the ActualLRPs of some processes.
func (s *Store) ActualsOf(ctx context.Context, processes []lrp.ProcessGUID) ([]lrp.Actual, Mark, error) {
	if len(processes) == 0 {
		return nil, Mark{}, nil // as a filter it would choose all
	}
	return s.Actuals(ctx, ActualFilter{Processes: processes}, Page{})
}

// actuals is the list of those after a record, of which only the key counts.
func (s *Store) actuals(f ActualFilter, after lrp.Actual) listing[lrp.Actual] {
	processes := texts(f.Processes)
	if f.Process != "" {
		processes = append(processes, string(f.Process))
	}
	return listing[lrp.Actual]{
		"list_actuals", []any{
			string(f.Domain), string(f.Cell), processes, f.Index,
			string(after.Process), after.Index, presenceName(after.Presence),
		}, s.scanActual, Position,
	}
}

// Position is the primary key of an ActualLRP as text: what Page.After takes. The GUID is last: it may
// contain anything.
func Position(a lrp.Actual) string { return fmt.Sprintf("%d/%d/%s", a.Presence, a.Index, a.Process) }

// readPosition reads a Position, into an ActualLRP that has nothing else.
func readPosition(after string) (a lrp.Actual, err error) {
	if after == "" {
		return a, nil
	}
	presence, rest, _ := strings.Cut(after, "/")
	index, process, _ := strings.Cut(rest, "/")
	p, errP := strconv.ParseInt(presence, 10, 32)
	i, errI := strconv.ParseInt(index, 10, 32)
	if errP != nil || errI != nil || process == "" || p < 0 || int(p) >= len(presenceNames) {
		return a, &lrp.Invalid{Fields: []lrp.FieldError{{Field: "page_token", Problem: "is not the key of an actual LRP", Value: after}}}
	}
	a.Presence, a.Index, a.Process = lrp.Presence(p), int32(i), lrp.ProcessGUID(process)
	return a, nil
}

// TaskFilter chooses tasks; zero members choose all.
type TaskFilter struct {
	Domain lrp.Domain
	Cell   lrp.CellID
}

// Tasks lists tasks, in the order of their GUIDs.
func (s *Store) Tasks(ctx context.Context, f TaskFilter, p Page) ([]task.Task, Mark, error) {
	return readPage(ctx, s, p, listing[task.Task]{
		"list_tasks", []any{string(f.Domain), string(f.Cell), p.After}, s.scanTask, func(t task.Task) string { return string(t.GUID) },
	})
}

// Task returns a task; nil if there is none.
func (s *Store) Task(ctx context.Context, guid task.GUID) (t *task.Task, err error) {
	_, err = s.snapshot(ctx, func(pb *pgx.Batch) {
		pb.Queue(s.sql["read_tasks"], []string{string(guid)}).Query(func(rows pgx.Rows) error {
			list, err := pgx.CollectRows(rows, s.scanTask)
			if err == nil && len(list) > 0 {
				t = &list[0]
			}
			return err
		})
	})
	return t, err
}

// Domains lists the fresh domains.
func (s *Store) Domains(ctx context.Context) (list []lrp.Domain, revision uint64, err error) {
	revision, err = s.snapshot(ctx, func(pb *pgx.Batch) { s.queueDomains(pb, &list) })
	return list, revision, err
}

func (s *Store) queueDomains(pb *pgx.Batch, list *[]lrp.Domain) {
	pb.Queue(s.sql["list_domains"]).Query(func(rows pgx.Rows) (err error) {
		*list, err = pgx.CollectRows(rows, pgx.RowTo[lrp.Domain])
		return err
	})
}

// Cells lists the cells that are present.
func (s *Store) Cells(ctx context.Context) (list []cells.Presence, revision uint64, err error) {
	revision, err = s.snapshot(ctx, func(pb *pgx.Batch) {
		pb.Queue(s.sql["list_cells"]).Query(func(rows pgx.Rows) error {
			list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (cells.Presence, error) {
				var b []byte
				if err := r.Scan(&b); err != nil {
					return cells.Presence{}, err
				}
				return decodePresence(b)
			})
			return err
		})
	})
	return list, revision, err
}

// Everything is the whole state at one revision: what a full comparison starts from.
type Everything struct {
	Revision uint64
	Desired  []lrp.SchedulingInfo
	Actuals  []lrp.Actual
	Domains  []lrp.Domain // the fresh ones
}

// Everything reads the whole state.
func (s *Store) Everything(ctx context.Context) (e Everything, err error) {
	e.Revision, err = s.snapshot(ctx, func(pb *pgx.Batch) {
		s.scheduling(DesiredFilter{}, "").queue(s, pb, 0, &e.Desired, new(int64))
		s.actuals(ActualFilter{}, lrp.Actual{}).queue(s, pb, 0, &e.Actuals, new(int64))
		s.queueDomains(pb, &e.Domains)
	})
	return e, err
}

// Revision returns where the log ends. It is also the cheapest way to ask whether the database
// answers; if it does not, that is said after readTime at the latest.
func (s *Store) Revision(ctx context.Context) (uint64, error) {
	var revision uint64
	err := s.briefly(ctx, func(ctx context.Context) error {
		return s.Pools.Read.QueryRow(ctx, s.sql["newest_revision"]).Scan(&revision)
	})
	return revision, unavailable("read the newest revision", err)
}
