package store

import (
	"muster/bbs/event"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
)

// What a cell has reported of an instance is most of its record, and nothing that happens because a cell
// came or went looks at it. Where thousands of such events are applied at once it is left as it was
// encoded: the record is decided about without it, and whatever is written of the record gets it back.

// veils are the parts of records that were left encoded. Such a record has one internal route in their
// place, and is known by where that lies in memory: so they follow the record, whatever becomes of it.
type veils map[*string]*wire.Parts

// blind tells whether no rule for an event looks at what a cell has reported.
func blind(name lrp.EventName) bool {
	return name == lrp.Lose || name == lrp.Return || name == lrp.Discard
}

// mayVeil tells whether all calls of a batch that are about a slot are blind.
func (s subjects) mayVeil(slot lrp.Slot) bool { return !s.seeing[slot] && !s.full[slot.Process] }

// veil takes over the encoded parts of a record that was read. It reports false if they must be decoded:
// they are of an older format, or cannot be opened.
func (s *Store) veil(w *world, a *lrp.Actual, netInfo, told []byte) bool {
	key := instanceRow(a)
	var v wire.Parts
	for _, part := range []struct {
		value  []byte
		column sealedColumn
		into   *[]byte
	}{{netInfo, netInfoColumn, &v.NetInfo}, {told, reportedColumn, &v.Reported}} {
		if len(part.value) == 0 {
			continue
		}
		plain, err := s.Sealer.Open(part.value, part.column.row(key))
		if err != nil {
			return false
		}
		*part.into = plain
	}
	if v.NetInfo == nil && v.Reported == nil {
		return true // there is nothing to take over
	}
	if w.veils == nil {
		w.veils = veils{}
	}
	a.InternalRoutes = make([]string, 1)
	w.veils[&a.InternalRoutes[0]] = &v
	return true
}

// parts returns the encoded parts of a record; nil when it has none or they are decoded.
func (w *world) parts(a *lrp.Actual) *wire.Parts {
	if a == nil || len(a.InternalRoutes) != 1 {
		return nil
	}
	v := w.veils[&a.InternalRoutes[0]]
	if v != nil && a.State != lrp.Running { // the instance has left, and its address with it
		return &wire.Parts{Reported: v.Reported}
	}
	return v
}

// record makes the entry of a change that has no revision yet.
func (w *world) record(ev event.Event) (Record, error) {
	if ev.Actual == nil || w.veils == nil {
		return NewRecord(ev)
	}
	return newRecord(ev, w.parts(ev.Actual.Before), w.parts(ev.Actual.After))
}

// unveil puts the encoded parts of a record into its row, which is the newest one.
func (s *Store) unveil(rows *actualRows, a *lrp.Actual, v *wire.Parts) {
	if v == nil {
		return
	}
	key, last := instanceRow(a), len(rows.processes)-1
	if v.NetInfo != nil {
		rows.netInfos[last] = s.sealBytes(v.NetInfo, netInfoColumn.row(key))
	}
	rows.reported[last] = s.sealBytes(v.Reported, reportedColumn.row(key))
}
