package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"muster/bbs/event"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// Record is one entry of the log: a change, and what it can be filtered by. It is shared by all
// watches and must not be changed.
type Record struct {
	Revision uint64
	// What it is about; empty where it does not apply.
	Process    lrp.ProcessGUID
	Domain     lrp.Domain
	CellBefore lrp.CellID // the cell that had the instance
	CellAfter  lrp.CellID // the cell that has it now
	// Message is the change as it goes over the wire, and Size about how many bytes it is.
	Message *bbsv1.Event
	Size    int
}

// newRecord makes the entry of a change that has no revision yet.
func newRecord(ev event.Event) Record {
	r := Record{Message: wire.EncodeEvent(ev)}
	switch {
	case ev.Desired != nil:
		info := ev.Desired.After
		if info == nil {
			info = ev.Desired.Before
		}
		r.Process, r.Domain = info.Process, info.Domain
	case ev.Actual != nil:
		for _, a := range []*lrp.Actual{ev.Actual.Before, ev.Actual.After} {
			if a != nil {
				r.Process, r.Domain = a.Process, a.Domain
			}
		}
		if ev.Actual.Before != nil {
			r.CellBefore = ev.Actual.Before.Cell
		}
		if ev.Actual.After != nil {
			r.CellAfter = ev.Actual.After.Cell
		}
	case ev.Crash != nil:
		r.Process, r.Domain, r.CellBefore = ev.Crash.Key.Process, ev.Crash.Key.Domain, ev.Crash.By.Cell
	}
	return r
}

// stamp gives the entry its place in the log.
func (r *Record) stamp(revision uint64) {
	r.Revision, r.Message.Revision = revision, revision
}

// payload is what the column of that name keeps: the message without what has columns of its own.
func (r *Record) payload() ([]byte, error) {
	m := bbsv1.Event{Change: r.Message.Change}
	payload, err := proto.Marshal(&m)
	r.Size = len(payload)
	return payload, err
}

// Events returns up to limit entries of the log after a revision, in order, and where the log ends.
// It returns ErrPruned when the next entry is gone, and newest < after when there is no such revision
// yet.
func (s *Store) Events(ctx context.Context, after uint64, limit int) (records []Record, newest uint64, err error) {
	rows, err := s.Pools.Read.Query(ctx, s.sql["events_after"], int64(after), limit)
	if err != nil {
		return nil, 0, unavailable("read the log", err)
	}
	var trace, process, domain, cellBefore, cellAfter *string
	var revision *int64
	var at *time.Time
	var payload []byte
	_, err = pgx.ForEachRow(rows, []any{&newest, &revision, &at, &trace, &process, &domain, &cellBefore, &cellAfter, &payload}, func() error {
		if revision == nil {
			return nil
		}
		r := Record{
			Process: lrp.ProcessGUID(*process), Domain: lrp.Domain(*domain),
			CellBefore: lrp.CellID(*cellBefore), CellAfter: lrp.CellID(*cellAfter), Message: &bbsv1.Event{}, Size: len(payload),
		}
		if err := proto.Unmarshal(payload, r.Message); err != nil {
			return fmt.Errorf("event %d: %w", *revision, err)
		}
		r.stamp(uint64(*revision))
		r.Message.CommittedAt, r.Message.TraceId = at.UnixNano(), *trace
		records = append(records, r)
		return nil
	})
	if err != nil {
		return nil, 0, unavailable("read the log", err)
	}
	// There are no gaps, so what follows is there or was pruned.
	if n := len(records); newest > after && (n == 0 || records[n-1].Revision != after+uint64(n)) {
		return nil, newest, ErrPruned
	}
	return records, newest, nil
}

// prunePortion is how many entries one statement prunes at most.
const prunePortion = 20000

// Prune cuts the log: what is older than age, and what exceeds count entries. It returns how many
// entries went.
func (s *Store) Prune(ctx context.Context, age time.Duration, count int64) (int64, error) {
	var total int64
	for {
		tag, err := s.Pools.Read.Exec(ctx, s.sql["prune_events"], age.Milliseconds(), count, prunePortion)
		if err != nil {
			return total, unavailable("prune the log", err)
		}
		total += tag.RowsAffected()
		if tag.RowsAffected() < prunePortion {
			return total, nil
		}
	}
}
