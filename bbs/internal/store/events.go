package store

import (
	"context"
	"fmt"
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
// watches and must not be changed. Many are kept, so it holds the change encoded: one piece of memory
// in place of many.
type Record struct {
	Revision uint64
	Kind     Kind
	// What it is about; empty where it does not apply.
	Process    lrp.ProcessGUID
	Task       task.GUID
	Domain     lrp.Domain
	CellBefore lrp.CellID // the cell that had the instance
	CellAfter  lrp.CellID // the cell that has it now
	// State and Presence are those that an instance has now; no state: it is gone.
	State    lrp.State
	Presence lrp.Presence
	// Told is lrp.Change.ToldByCell: to the cell that has the instance now it is no news.
	Told bool
	// Wire is the change as it goes over the wire, of use only for sending: the change lies in it
	// encoded, so that any number of watches can be sent it for the price of copying bytes. Size is about
	// how many bytes it is.
	Wire *bbsv1.Event
	Size int

	plain []byte // the encoded change
}

// Kind says what an entry of the log is about.
type Kind byte

// The kinds of entries.
const (
	OfSomething Kind = iota // of what a newer program writes
	OfDesired
	OfActual
	OfCrash
	OfCell
	OfTask
)

// NewRecord makes the entry of a change that has no revision yet. It fails when a text is not UTF-8.
func NewRecord(ev event.Event) (Record, error) { return newRecord(ev, nil, nil) }

// newRecord is NewRecord where members of the records of an instance may be encoded already.
func newRecord(ev event.Event, before, after *wire.Parts) (Record, error) {
	plain, err := []byte(nil), error(nil)
	if ev.Actual != nil {
		size := usualChange
		if before != nil || after != nil {
			size = bareChange + before.Len() + after.Len()
		}
		plain, err = wire.AppendActualChange(make([]byte, 0, size), *ev.Actual, before, after)
	} else {
		plain, err = wire.AppendChange(make([]byte, 0, usualChange), ev)
	}
	if err != nil {
		return Record{}, &unstorable{fmt.Errorf("encode a change: %w", err)}
	}
	r := Record{plain: plain, Size: len(plain)}
	r.describe(ev)
	return r, nil
}

// usualChange is how many bytes the change of an instance is as a rule, at most.
const usualChange = 1536

// bareChange is how many bytes it is without the parts of records that are encoded already.
const bareChange = 640

// describe notes what the entry is about.
func (r *Record) describe(ev event.Event) {
	switch {
	case ev.Desired != nil:
		info := ev.Desired.After
		if info == nil {
			info = ev.Desired.Before
		}
		if r.Kind = OfDesired; info != nil {
			r.Process, r.Domain = info.Process, info.Domain
		}
	case ev.Actual != nil:
		r.Kind = OfActual
		if b := ev.Actual.Before; b != nil {
			r.Process, r.Domain, r.CellBefore = b.Process, b.Domain, b.Cell
		}
		if a := ev.Actual.After; a != nil {
			r.Process, r.Domain, r.CellAfter = a.Process, a.Domain, a.Cell
			r.State, r.Presence = a.State, a.Presence
		}
		r.Told = ev.Actual.ToldByCell()
	case ev.Crash != nil:
		r.Kind, r.Process, r.Domain, r.CellBefore = OfCrash, ev.Crash.Key.Process, ev.Crash.Key.Domain, ev.Crash.By.Cell
	case ev.Cell != nil:
		r.Kind = OfCell
	case ev.Task != nil:
		r.Kind = OfTask
		for _, t := range []*task.Task{ev.Task.Before, ev.Task.After} {
			if t != nil {
				r.Task, r.Domain = t.GUID, t.Domain
			}
		}
		r.CellBefore, r.CellAfter = cellsOf(ev.Task)
	}
}

// look notes what an entry that was read is about, beside what has columns of its own.
func (r *Record) look() error {
	r.Size = len(r.plain)
	if g, ok := wire.GlanceAt(r.plain); ok {
		if r.Kind = OfDesired; g.Actual {
			r.Kind, r.State, r.Presence = OfActual, g.After.State, g.After.Presence
			r.Told = lrp.Change{Before: g.Before.Outline(r.CellBefore), After: g.After.Outline(r.CellAfter)}.ToldByCell()
		}
		return nil
	}
	m := &bbsv1.Event{}
	if err := proto.Unmarshal(r.plain, m); err != nil {
		return err
	}
	r.describe(wire.DecodeEvent(m))
	return nil
}

// Event decodes the entry, which few ask for.
func (r *Record) Event() event.Event {
	m := &bbsv1.Event{}
	_ = proto.Unmarshal(r.plain, m) // it was encoded here, or decoded before
	m.Revision, m.CommittedAt, m.TraceId = r.Revision, r.Wire.GetCommittedAt(), r.Wire.GetTraceId()
	return wire.DecodeEvent(m)
}

// stamp gives the entry its place in the log.
func (r *Record) stamp(revision uint64, at time.Time, trace string) {
	r.Revision = revision
	r.Wire = &bbsv1.Event{Revision: revision, CommittedAt: at.UnixNano(), TraceId: trace}
	r.Wire.ProtoReflect().SetUnknown(r.plain) // fields in any order are the same message
}

// eventRows are the columns of append_events.
type eventRows struct {
	traces, processes, domains, cellsBefore, cellsAfter []string
	payloads                                            [][]byte
}

func newEventRows(n int) eventRows {
	texts := make([]string, 5*n)
	column := func(i int) []string { return texts[i*n : i*n : (i+1)*n] }
	return eventRows{column(0), column(1), column(2), column(3), column(4), make([][]byte, 0, n)}
}

func (c *eventRows) add(r *Record, trace string, payload []byte) {
	c.traces, c.processes, c.domains = append(c.traces, trace), append(c.processes, string(r.Process)), append(c.domains, string(r.Domain))
	c.cellsBefore, c.cellsAfter = append(c.cellsBefore, string(r.CellBefore)), append(c.cellsAfter, string(r.CellAfter))
	c.payloads = append(c.payloads, payload)
}

func (c *eventRows) args() []any {
	return []any{c.traces, c.processes, c.domains, c.cellsBefore, c.cellsAfter, c.payloads}
}

// payload is what the column of that name keeps of an entry of a transaction: the message without
// what has columns of its own, and without what it says twice.
func (s *Store) payload(r *Record, batch int64, trace string) []byte {
	return s.sealBytes(wire.Fold(r.plain), payloadColumn.row(eventKey(batch, trace, r)))
}

// Events returns up to limit entries of the log after a revision, in order, and where the log ends.
// It returns ErrPruned when the next entry is gone, and newest < after when there is no such revision
// yet. It takes no longer than readTime.
func (s *Store) Events(ctx context.Context, after uint64, limit int) (records []Record, newest uint64, err error) {
	err = s.briefly(ctx, func(ctx context.Context) error {
		records, newest, err = s.readEvents(ctx, after, limit)
		return err
	})
	return records, newest, err
}

func (s *Store) readEvents(ctx context.Context, after uint64, limit int) (records []Record, newest uint64, err error) {
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
		if r.plain, err = s.openPayload(payload, eventKey(*batch, *trace, &r)); err == nil {
			r.plain = wire.Unfold(r.plain)
			err = r.look()
		}
		if err != nil {
			s.met(&Unreadable{Table: "events", Row: strconv.FormatInt(*revision, 10), Column: "payload", Err: err})
			unreadable = true
			return nil
		}
		r.stamp(uint64(*revision), *at, *trace)
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
