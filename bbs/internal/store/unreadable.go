package store

import (
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"muster/bbs/lrp"
	"muster/bbs/task"
)

// Unreadable is a row that is there and cannot be read: a sealed column of it does not open, or does
// not hold what it should. The row is left as it is. Lists go on without it, and a call that would
// write it is answered with this error.
type Unreadable struct {
	Table  string
	Row    string // its primary key
	Column string
	Err    error
}

// Error names the row and the column, and says why.
func (u *Unreadable) Error() string {
	return fmt.Sprintf("the row %s of %s is kept but cannot be read: its %s: %v", u.Row, u.Table, u.Column, u.Err)
}

// Unwrap returns why.
func (u *Unreadable) Unwrap() error { return u.Err }

// firstUnreadable names the first column that did not open; nil: all did.
func firstUnreadable(table, row string, columns ...columnError) error {
	for _, c := range columns {
		if c.err != nil {
			return &Unreadable{Table: table, Row: row, Column: c.column, Err: c.err}
		}
	}
	return nil
}

type columnError struct {
	column string
	err    error
}

// namedLimit is how many unreadable rows are remembered as named in the log.
const namedLimit = 10000

// unreadables are the unreadable rows that were met.
type unreadables struct {
	mu    sync.Mutex
	named map[string]bool
}

// met tells of an unreadable row: in the log once, in the metrics each time.
func (s *Store) met(u *Unreadable) {
	if s.Unreadable != nil {
		s.Unreadable(u.Table)
	}
	s.unreadables.mu.Lock()
	defer s.unreadables.mu.Unlock()
	id := u.Table + "\x00" + u.Row
	if s.unreadables.named[id] {
		return
	}
	if s.unreadables.named == nil || len(s.unreadables.named) >= namedLimit {
		s.unreadables.named = map[string]bool{}
	}
	s.unreadables.named[id] = true
	s.Log.Error("row cannot be read: it is kept, and left out of lists", "table", u.Table, "row", u.Row, "column", u.Column, "error", u.Err)
}

// eachRow reads rows: it calls readable with each that can be read, and unreadable with what is known of
// each that cannot. Either may be nil.
func eachRow[T any](s *Store, rows pgx.Rows, scan func(pgx.CollectableRow) (T, error), readable func(T), unreadable func(T, *Unreadable)) error {
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		var u *Unreadable
		switch {
		case errors.As(err, &u):
			s.met(u)
			if unreadable != nil {
				unreadable(v, u)
			}
		case err != nil:
			return err
		default:
			readable(v)
		}
	}
	return rows.Err()
}

// collect reads rows and leaves out those that cannot be read.
func collect[T any](s *Store, rows pgx.Rows, scan func(pgx.CollectableRow) (T, error)) (all []T, err error) {
	err = eachRow(s, rows, scan, func(v T) { all = append(all, v) }, nil)
	return all, err
}

// blocked are the subjects of a batch that have unreadable rows.
type blocked struct {
	processes map[lrp.ProcessGUID]*Unreadable // their DesiredLRP, or any instance
	slots     map[lrp.Slot]*Unreadable
	tasks     map[task.GUID]*Unreadable
}

// block returns what is blocked, to be added to. Most batches have none: nil.
func (w *world) block() *blocked {
	if w.blocked == nil {
		w.blocked = &blocked{processes: map[lrp.ProcessGUID]*Unreadable{}, slots: map[lrp.Slot]*Unreadable{}, tasks: map[task.GUID]*Unreadable{}}
	}
	return w.blocked
}

// unreadable returns why a request cannot be decided: something that it is about cannot be read.
func (w *world) unreadable(r *request) error {
	if w.blocked == nil {
		return nil
	}
	subj := newSubjects()
	r.op.needs(&subj)
	for p := range subj.full {
		if u := w.blocked.processes[p]; u != nil {
			return u
		}
	}
	for slot := range subj.slots {
		if u := w.blocked.slots[slot]; u != nil {
			return u
		}
	}
	for guid := range subj.tasks {
		if u := w.blocked.tasks[guid]; u != nil {
			return u
		}
	}
	return nil
}
