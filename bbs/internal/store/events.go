package store

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"muster/bbs/event"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// Record is one entry of the log: a change, and what it can be filtered by. It is shared by all
// watches and must not be changed.
type Record struct {
	Revision uint64
	// What it is about; empty where it does not apply.
	Process    lrp.ProcessGUID
	Task       task.GUID
	Domain     lrp.Domain
	CellBefore lrp.CellID // the cell that had the instance
	CellAfter  lrp.CellID // the cell that has it now
	// Message is the change as it goes over the wire, and Size about how many bytes it is. Wire is the
	// same, of use only for sending: the change lies in it encoded, so that any number of watches can be
	// sent it for the price of copying bytes.
	Message *bbsv1.Event
	Wire    *bbsv1.Event
	Size    int

	plain []byte // the encoded change
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
	case ev.Task != nil:
		for _, t := range []*task.Task{ev.Task.Before, ev.Task.After} {
			if t != nil {
				r.Task, r.Domain = t.GUID, t.Domain
			}
		}
		r.CellBefore, r.CellAfter = cellsOf(ev.Task)
	}
	return r
}

// taskOf returns the task that a change is about, if it is about one.
func taskOf(m *bbsv1.Event) task.GUID {
	c := m.GetTask()
	if c.GetAfter() != nil {
		return task.GUID(c.After.TaskGuid)
	}
	return task.GUID(c.GetBefore().GetTaskGuid())
}

// stamp gives the entry its place in the log.
func (r *Record) stamp(revision uint64) {
	r.Revision, r.Message.Revision = revision, revision
	r.Wire = &bbsv1.Event{Revision: revision, CommittedAt: r.Message.CommittedAt, TraceId: r.Message.TraceId}
	r.Wire.ProtoReflect().SetUnknown(r.plain) // fields in any order are the same message
}

// payload is what the column of that name keeps of an entry of a transaction: the message without
// what has columns of its own.
func (s *Store) payload(r *Record, batch int64, trace string) ([]byte, error) {
	m := bbsv1.Event{Change: r.Message.Change}
	plain, err := proto.Marshal(&m)
	if err != nil {
		return nil, &unstorable{err}
	}
	r.plain, r.Size = plain, len(plain)
	return s.sealBytes(plain, payloadColumn.row(eventKey(batch, trace, r))), nil
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
	var revision, batch *int64
	var at *time.Time
	var payload []byte
	unreadable := false // the log ends before such an entry: whoever needs it must list again, as if it had been pruned
	_, err = pgx.ForEachRow(rows, []any{&newest, &revision, &at, &batch, &trace, &process, &domain, &cellBefore, &cellAfter, &payload}, func() error {
		if revision == nil || unreadable {
			return nil
		}
		r := Record{
			Process: lrp.ProcessGUID(*process), Domain: lrp.Domain(*domain),
			CellBefore: lrp.CellID(*cellBefore), CellAfter: lrp.CellID(*cellAfter),
		}
		var err error
		if r.Message, r.plain, err = s.openPayload(payload, eventKey(*batch, *trace, &r)); err != nil {
			s.met(&Unreadable{Table: "events", Row: strconv.FormatInt(*revision, 10), Column: "payload", Err: err})
			unreadable = true
			return nil
		}
		r.Task, r.Size = taskOf(r.Message), len(r.plain)
		r.Message.CommittedAt, r.Message.TraceId = at.UnixNano(), *trace
		r.stamp(uint64(*revision))
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
// entries went. It forgets old request ids, too.
func (s *Store) Prune(ctx context.Context, age time.Duration, count int64) (int64, error) {
	var total int64
	for {
		tag, err := s.Pools.Read.Exec(ctx, s.sql["prune_events"], age.Milliseconds(), count, prunePortion)
		if err != nil {
			return total, unavailable("prune the log", err)
		}
		total += tag.RowsAffected()
		if tag.RowsAffected() < prunePortion {
			return total, s.pruneRequests(ctx)
		}
	}
}
