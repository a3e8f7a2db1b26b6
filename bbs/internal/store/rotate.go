package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/seal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/internal/wait"
	bbsv1 "muster/proto/bbs/v1"
)

// The replacement of a key, while everything goes on:
//
//	seal everything again that is not sealed with the newest key, portion by portion
//	close the other keys: none of them is used by a replica that runs, and none can be from then on
//	seal again what was written meanwhile
//	retire the closed keys that no value needs any more
//
// Each step can be interrupted at any point and is found out anew by the next attempt. The log of
// changes is sealed again too: watches resume from it after the old key has gone.

const (
	// rotatePortion is how many rows are sealed again by one statement.
	rotatePortion = 500
	// rotateTime bounds one such statement.
	rotateTime = 30 * time.Second
	// missedPause is the wait before rows that others were writing are tried again.
	missedPause = 20 * time.Millisecond
	// progressEvery is how often the log tells how far a rotation is.
	progressEvery = 10 * time.Second
)

// Rotation is what a call of Rotate has done, and what is left to do.
type Rotation struct {
	Resealed int      // rows that were sealed again
	Retired  []string // labels that nothing needs any more; the empty one stands for plain values
	// InUse are the labels that values are or may be sealed with, apart from the newest one.
	InUse []string
	// Unreadable says how many rows there are of each label that cannot be opened and so keep it in use.
	Unreadable map[string]int
}

// sealedTable is a table with sealed columns, and how it is gone through.
type sealedTable struct {
	name    string
	stale   string // the statement that finds rows
	reseal  string // the one that writes them
	keys    int    // how many columns the primary key has
	from    []string
	columns []sealedColumn
	old     []upgrade // how values of version 1 become messages, by column; nil: there are none
}

// upgrade turns what a column of version 1 held into the message that it holds now.
type upgrade func(plain []byte) (proto.Message, error)

func sealedTables() []sealedTable {
	return []sealedTable{
		{"desired_lrps", "stale_desired", "reseal_desired", 1, []string{""},
			[]sealedColumn{routesColumn, tagsColumn, driversColumn, recipeColumn},
			[]upgrade{
				ofJSON(func(v map[string][]byte) proto.Message { return wire.EncodeRoutes(v) }),
				ofJSON(func(v map[string]lrp.MetricTag) proto.Message { return wire.EncodeMetricTags(v) }),
				ofJSON(func(v []string) proto.Message { return wire.EncodeVolumePlacement(v) }),
				ofMessage(&bbsv1.DesiredLRPRunInfo{}),
			}},
		{"actual_lrps", "stale_actuals", "reseal_actuals", 3, []string{"", "-1"},
			[]sealedColumn{netInfoColumn, reportedColumn},
			[]upgrade{
				ofJSON(func(v lrp.NetInfo) proto.Message { return wire.EncodeNetInfo(v) }),
				ofJSON(func(v reported) proto.Message {
					return wire.EncodeReported(&lrp.Actual{InternalRoutes: v.InternalRoutes, MetricTags: v.MetricTags})
				}),
			}},
		{"tasks", "stale_tasks", "reseal_tasks", 1, []string{""}, []sealedColumn{definitionColumn}, []upgrade{nil}},
		{"events", "stale_events", "reseal_events", 1, []string{"0"}, []sealedColumn{payloadColumn}, []upgrade{ofMessage(&bbsv1.Event{})}},
	}
}

func ofJSON[T any](encode func(T) proto.Message) upgrade {
	return func(plain []byte) (proto.Message, error) {
		var v T
		err := json.Unmarshal(plain, &v)
		return encode(v), err
	}
}

func ofMessage(kind proto.Message) upgrade {
	return func(plain []byte) (proto.Message, error) {
		m := kind.ProtoReflect().New().Interface()
		return m, proto.Unmarshal(plain, m)
	}
}

// Rotate does what can be done of the replacement of other keys by the active one of this replica. It
// does nothing while another replica is at it, or when the key of another one is newer. Call it again,
// later, until nothing but the newest key is in use.
func (s *Store) Rotate(ctx context.Context) (Rotation, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return Rotation{}, unavailable("rotate encryption keys", err)
	}
	r := &rotator{s: s, conn: conn, told: time.Now()}
	defer r.close() // which gives up the lock as well
	if err = r.run(ctx); errors.Is(err, errSuperseded) {
		err = nil
	}
	return r.report, unavailable("rotate encryption keys", err)
}

type rotator struct {
	s      *Store
	conn   *pgx.Conn
	report Rotation
	told   time.Time // when the log was told last
}

func (r *rotator) close() {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	r.conn.Close(ctx)
}

func (r *rotator) run(ctx context.Context) error {
	due, err := r.due(ctx)
	if err != nil || !due {
		return err
	}
	var mine bool
	if err := r.conn.QueryRow(ctx, r.s.sql["rotation_lock"], rotationClass).Scan(&mine); err != nil || !mine {
		return err
	}
	if err := r.pass(ctx); err != nil {
		return err
	}
	closed, err := r.closeKeys(ctx)
	if err != nil || len(closed) == 0 {
		return err
	}
	// What was written meanwhile, up to the moment when the keys were closed.
	if err := r.pass(ctx); err != nil {
		return err
	}
	for _, label := range closed {
		if r.report.Unreadable[label] > 0 {
			continue
		}
		tag, err := r.conn.Exec(ctx, r.s.sql["retire_key"], label)
		if err != nil {
			return err
		}
		if tag.RowsAffected() > 0 {
			r.report.Retired = append(r.report.Retired, label)
		}
	}
	_, err = r.due(ctx)
	return err
}

// due finds out which keys are in use beside the newest one, and whether this replica is to replace
// them.
func (r *rotator) due(ctx context.Context) (bool, error) {
	stored, err := r.s.storedKeys(ctx, r.conn)
	if err != nil {
		return false, err
	}
	newest := stored[len(stored)-1]
	r.report.InUse = nil
	for _, k := range stored[:len(stored)-1] {
		if !k.retired {
			r.report.InUse = append(r.report.InUse, k.label)
		}
	}
	return len(r.report.InUse) > 0 && newest.label == r.s.Sealer.Active() && !newest.closed, nil
}

// closeKeys closes the keys in use that no replica seals with, and returns all that are closed.
func (r *rotator) closeKeys(ctx context.Context) (closed []string, err error) {
	for _, label := range r.report.InUse {
		tag, err := r.conn.Exec(ctx, r.s.sql["close_key"], label, usesClass, keyLock(label))
		if err != nil {
			return nil, err
		}
		if tag.RowsAffected() > 0 {
			closed = append(closed, label)
		}
	}
	return closed, nil
}

// errSuperseded ends a rotation because another key has become the newest one.
var errSuperseded = errors.New("another encryption key is newer")

// pass goes through all tables until every row that can be read is sealed with the active key.
func (r *rotator) pass(ctx context.Context) error {
	r.report.Unreadable = map[string]int{}
	for _, t := range sealedTables() {
		for {
			missed, unreadable, err := r.table(ctx, t)
			if err != nil {
				return fmt.Errorf("seal %s again: %w", t.name, err)
			}
			if missed == 0 {
				for label, n := range unreadable {
					r.report.Unreadable[label] += n
				}
				break
			}
			// Somebody was writing them, or this replica may not any more.
			if due, err := r.due(ctx); err != nil || !due {
				return errors.Join(err, errSuperseded)
			}
			if !wait.For(ctx, missedPause) {
				return ctx.Err()
			}
		}
	}
	return nil
}

// table goes once through a table. missed are rows that changed, or were locked, meanwhile; unreadable
// counts values by their labels.
func (r *rotator) table(ctx context.Context, t sealedTable) (missed int, unreadable map[string]int, err error) {
	unreadable = map[string]int{}
	after := t.from
	for {
		start := time.Now()
		rows, err := r.stale(ctx, t, after)
		if err != nil || len(rows) == 0 {
			return missed, unreadable, err
		}
		after = rows[len(rows)-1].key[:len(t.from)]
		p := r.portion(t, rows, unreadable)
		written, err := r.write(ctx, t, p)
		if err != nil {
			return missed, unreadable, err
		}
		missed += p.rows - written
		r.tell(t, written)
		// Half of the time belongs to the others.
		if !wait.For(ctx, time.Since(start)) {
			return missed, unreadable, ctx.Err()
		}
	}
}

// staleRow is a row that is not sealed with the active key.
type staleRow struct {
	key    []string
	bound  []string // what the values are bound to
	values [][]byte
}

func (r *rotator) stale(ctx context.Context, t sealedTable, after []string) ([]staleRow, error) {
	ctx, cancel := context.WithTimeout(ctx, rotateTime)
	defer cancel()
	args := []any{seal.Header(r.s.Sealer.Active()), rotatePortion}
	for _, a := range after {
		args = append(args, a)
	}
	rows, err := r.conn.Query(ctx, r.s.sql[t.stale], args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (v staleRow, err error) {
		return v, row.Scan(&v.key, &v.bound, &v.values)
	})
}

// portion is what one statement writes.
type portion struct {
	args columns
	rows int
}

// portion seals the values of rows again. Those that cannot be read are left as they are.
func (r *rotator) portion(t sealedTable, rows []staleRow, unreadable map[string]int) portion {
	p := portion{args: make(columns, t.keys+2*len(t.columns))}
	for _, row := range rows {
		values, changed := r.again(t, row, unreadable)
		if !changed {
			continue
		}
		p.rows++
		for i, k := range row.key {
			appendTo(p.args, i, k)
		}
		for i, v := range values {
			appendTo(p.args, t.keys+2*i, row.values[i])
			appendTo(p.args, t.keys+2*i+1, v)
		}
	}
	return p
}

// again returns the values of a row, sealed with the active key where they can be read.
func (r *rotator) again(t sealedTable, row staleRow, unreadable map[string]int) (values [][]byte, changed bool) {
	values = make([][]byte, len(row.values))
	for i, column := range t.columns {
		was := row.values[i]
		v, err := r.s.sealAgain(was, column.row(strings.Join(row.bound, "\x00")), t.old[i])
		if err != nil {
			v = was
			if label, err := seal.Label(was); err == nil || was[0] == plainFormat {
				unreadable[label]++
			}
			name := strings.TrimPrefix(string(column), t.name+".")
			r.s.met(&Unreadable{Table: t.name, Row: strings.Join(row.key, "/"), Column: name, Err: err})
		}
		values[i], changed = v, changed || !bytes.Equal(v, was)
	}
	return values, changed
}

// write writes a portion, and returns how many rows were still as they had been read.
func (r *rotator) write(ctx context.Context, t sealedTable, p portion) (written int, err error) {
	if p.rows == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, rotateTime)
	defer cancel()
	label := r.s.Sealer.Active()
	err = pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, r.s.sql["use_key"], usesClass, keyLock(label)); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, r.s.sql[t.reseal], append([]any{label}, p.args...)...)
		written = int(tag.RowsAffected())
		return err
	})
	return written, err
}

func (s *Store) sealAgain(value []byte, context string, old upgrade) ([]byte, error) {
	switch {
	case len(value) == 0, bytes.HasPrefix(value, seal.Header(s.Sealer.Active())):
		return value, nil
	case value[0] == plainFormat && old != nil:
		m, err := old(value[1:])
		if err != nil {
			return nil, err
		}
		return s.seal(m, context)
	}
	plain, err := s.Sealer.Open(value, context)
	if err != nil {
		return nil, err
	}
	return s.Sealer.Seal(plain, context), nil
}

// tell counts progress, and logs it now and then.
func (r *rotator) tell(t sealedTable, rows int) {
	r.report.Resealed += rows
	if r.s.Resealed != nil {
		r.s.Resealed(t.name, rows)
	}
	if time.Since(r.told) >= progressEvery {
		r.told = time.Now()
		r.s.Log.Info("sealing stored values with the new encryption key", "table", t.name, "rows", r.report.Resealed)
	}
}
