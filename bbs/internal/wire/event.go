package wire

import (
	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// EncodeEvent makes the message of a committed change.
func EncodeEvent(ev event.Event) *bbsv1.Event {
	m := &bbsv1.Event{Revision: ev.Revision, CommittedAt: encodeTime(ev.At), TraceId: ev.TraceID}
	switch {
	case ev.Desired != nil:
		m.Change = &bbsv1.Event_DesiredLrp{DesiredLrp: &bbsv1.DesiredLRPChange{
			Before: optional(ev.Desired.Before, EncodeSummary), After: optional(ev.Desired.After, EncodeSummary),
		}}
	case ev.Actual != nil:
		m.Change = &bbsv1.Event_ActualLrp{ActualLrp: &bbsv1.ActualLRPChange{
			Before: optional(ev.Actual.Before, EncodeActual), After: optional(ev.Actual.After, EncodeActual),
		}}
	case ev.Crash != nil:
		m.Change = &bbsv1.Event_Crash{Crash: &bbsv1.ActualLRPCrash{
			ActualLrpKey: EncodeKey(ev.Crash.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.Crash.By),
			CrashCount: ev.Crash.Count, CrashReason: ev.Crash.Reason,
		}}
	case ev.Cell != nil:
		m.Change = &bbsv1.Event_Cell{Cell: &bbsv1.CellChange{
			Before: optional(ev.Cell.Before, EncodePresence), After: optional(ev.Cell.After, EncodePresence),
		}}
	case ev.Task != nil:
		m.Change = &bbsv1.Event_Task{Task: &bbsv1.TaskChange{
			Before: optional(ev.Task.Before, EncodeTask), After: optional(ev.Task.After, EncodeTask),
		}}
	}
	return m
}

// DecodeEvent reads a committed change. A kind of change that this program does not know leaves
// every member nil.
func DecodeEvent(m *bbsv1.Event) event.Event {
	ev := event.Event{Revision: m.GetRevision(), At: decodeTime(m.GetCommittedAt()), TraceID: m.GetTraceId()}
	switch c := m.GetChange().(type) {
	case *bbsv1.Event_DesiredLrp:
		ev.Desired = &event.DesiredChange{
			Before: present(c.DesiredLrp.GetBefore(), DecodeSummary), After: present(c.DesiredLrp.GetAfter(), DecodeSummary),
		}
	case *bbsv1.Event_ActualLrp:
		ev.Actual = &lrp.Change{
			Before: present(c.ActualLrp.GetBefore(), DecodeActual), After: present(c.ActualLrp.GetAfter(), DecodeActual),
		}
	case *bbsv1.Event_Crash:
		ev.Crash = &lrp.CrashReport{
			Key: DecodeKey(c.Crash.GetActualLrpKey()), By: DecodeInstanceKey(c.Crash.GetActualLrpInstanceKey()),
			Count: c.Crash.GetCrashCount(), Reason: c.Crash.GetCrashReason(),
		}
	case *bbsv1.Event_Cell:
		ev.Cell = &event.CellChange{
			Before: present(c.Cell.GetBefore(), DecodePresence),
			After:  present(c.Cell.GetAfter(), DecodePresence),
		}
	case *bbsv1.Event_Task:
		ev.Task = &task.Change{
			Before: present(c.Task.GetBefore(), DecodeTask), After: present(c.Task.GetAfter(), DecodeTask),
		}
	}
	return ev
}

// optional encodes a value that may be nil.
func optional[T, M any](v *T, encode func(T) *M) *M {
	if v == nil {
		return nil
	}
	return encode(*v)
}

// present decodes a message that may be absent.
func present[M, T any](m *M, decode func(*M) T) *T {
	if m == nil {
		return nil
	}
	v := decode(m)
	return &v
}
