package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"muster/bbs/lrp"
	"muster/cells"
)

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
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), !isRetryable(err):
		return fmt.Errorf("%s: %w", what, err)
	default:
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
}

// DesiredFilter chooses DesiredLRPs; zero members choose all.
type DesiredFilter struct {
	Domain    lrp.Domain
	Processes []lrp.ProcessGUID
	Prefixes  []string // of process GUIDs
}

func (f DesiredFilter) args() []any {
	processes := make([]string, len(f.Processes)) // never null
	for i, p := range f.Processes {
		processes[i] = string(p)
	}
	return []any{string(f.Domain), processes, append([]string{}, f.Prefixes...)}
}

// Desired lists whole DesiredLRPs.
func (s *Store) Desired(ctx context.Context, f DesiredFilter) (list []lrp.Desired, revision uint64, err error) {
	revision, err = s.snapshot(ctx, func(pb *pgx.Batch) {
		pb.Queue(s.sql["list_desired"], f.args()...).Query(func(rows pgx.Rows) error {
			list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (lrp.Desired, error) {
				d, err := scanDesired(r)
				if err != nil {
					return lrp.Desired{}, err
				}
				return d.whole()
			})
			return err
		})
	})
	return list, revision, err
}

// DesiredWithActuals returns the DesiredLRP of a process, nil if there is none, and its instances.
func (s *Store) DesiredWithActuals(ctx context.Context, p lrp.ProcessGUID) (d *lrp.Desired, actuals []lrp.Actual, err error) {
	_, err = s.snapshot(ctx, func(pb *pgx.Batch) {
		pb.Queue(s.sql["read_desired"], []string{string(p)}).Query(func(rows pgx.Rows) error {
			list, err := pgx.CollectRows(rows, scanDesired)
			if err != nil || len(list) == 0 {
				return err
			}
			whole, err := list[0].whole()
			d = &whole
			return err
		})
		s.queueActuals(pb, ActualFilter{Process: p}, &actuals)
	})
	return d, actuals, err
}

// Scheduling lists DesiredLRPs without their recipes.
func (s *Store) Scheduling(ctx context.Context, f DesiredFilter) (list []lrp.SchedulingInfo, revision uint64, err error) {
	revision, err = s.snapshot(ctx, func(pb *pgx.Batch) { s.queueScheduling(pb, f, &list) })
	return list, revision, err
}

func (s *Store) queueScheduling(pb *pgx.Batch, f DesiredFilter, list *[]lrp.SchedulingInfo) {
	pb.Queue(s.sql["list_scheduling"], f.args()...).Query(func(rows pgx.Rows) (err error) {
		*list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (lrp.SchedulingInfo, error) {
			d, err := scanDesired(r)
			return d.scheduling(), err
		})
		return err
	})
}

// ActualFilter chooses ActualLRPs; zero members choose all.
type ActualFilter struct {
	Domain  lrp.Domain
	Cell    lrp.CellID
	Process lrp.ProcessGUID
	Index   *int32
}

// Actuals lists ActualLRPs.
func (s *Store) Actuals(ctx context.Context, f ActualFilter) (list []lrp.Actual, revision uint64, err error) {
	revision, err = s.snapshot(ctx, func(pb *pgx.Batch) { s.queueActuals(pb, f, &list) })
	return list, revision, err
}

func (s *Store) queueActuals(pb *pgx.Batch, f ActualFilter, list *[]lrp.Actual) {
	pb.Queue(s.sql["list_actuals"], string(f.Domain), string(f.Cell), string(f.Process), f.Index).Query(func(rows pgx.Rows) (err error) {
		*list, err = pgx.CollectRows(rows, scanActual)
		return err
	})
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
		s.queueScheduling(pb, DesiredFilter{}, &e.Desired)
		s.queueActuals(pb, ActualFilter{}, &e.Actuals)
		s.queueDomains(pb, &e.Domains)
	})
	return e, err
}

// Revision returns where the log ends. It is also the cheapest way to ask whether the database
// answers.
func (s *Store) Revision(ctx context.Context) (uint64, error) {
	var revision uint64
	err := s.Pools.Read.QueryRow(ctx, s.sql["newest_revision"]).Scan(&revision)
	return revision, unavailable("read the newest revision", err)
}
