package wire

import (
	"google.golang.org/protobuf/encoding/protowire"

	"muster/bbs/lrp"
)

// Glance is what an encoded change tells without being decoded.
type Glance struct {
	Actual bool // it is one of an instance; else one of a DesiredLRP
	// Before and After are the instance before and after; no state: there was or is none.
	Before, After Look
}

// Look is what Glance sees of a record.
type Look struct {
	State    lrp.State
	Presence lrp.Presence
	Retiring bool
}

// Outline returns as much of the record as was seen, on a cell; nil when there was none.
func (l Look) Outline(cell lrp.CellID) *lrp.Actual {
	if l.State == "" {
		return nil
	}
	return &lrp.Actual{InstanceKey: lrp.InstanceKey{Cell: cell}, State: l.State, Presence: l.Presence, Retiring: l.Retiring}
}

// GlanceAt reads what Glance says of a change as AppendChange encodes it, at a fraction of the price of
// decoding it. It returns false when the change is about something else, or anything is unusual about the
// bytes; proto.Unmarshal knows what they mean.
func GlanceAt(change []byte) (g Glance, ok bool) {
	number, sub, rest, ok := nextMessage(change)
	switch {
	case !ok || len(rest) > 0:
		return g, false
	case number == 4:
		return g, true
	case number != 5:
		return g, false
	}
	g.Actual = true
	for len(sub) > 0 {
		var record []byte
		if number, record, sub, ok = nextMessage(sub); !ok {
			return g, false
		}
		if number == 1 && !g.Before.at(record) || number == 2 && !g.After.at(record) {
			return g, false
		}
	}
	return g, true
}

// nextMessage takes a field apart that is a message, and says what follows it.
func nextMessage(b []byte) (number protowire.Number, sub, rest []byte, ok bool) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || kind != protowire.BytesType {
		return 0, nil, nil, false
	}
	sub, m := protowire.ConsumeBytes(b[n:])
	if m < 0 {
		return 0, nil, nil, false
	}
	return number, sub, b[n+m:], true
}

// at looks at a record.
func (l *Look) at(record []byte) bool {
	if l.State != "" {
		return false // once is usual
	}
	for len(record) > 0 {
		number, kind, n := protowire.ConsumeTag(record)
		if n < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(number, kind, record[n:])
		if size < 0 {
			return false
		}
		value := record[n : n+size]
		record = record[n+size:]
		switch {
		case number == 6 && kind == protowire.BytesType:
			text, _ := protowire.ConsumeBytes(value)
			l.State = lrp.State(text)
		case number == 10 && kind == protowire.VarintType:
			presence, _ := protowire.ConsumeVarint(value)
			l.Presence = lrp.Presence(presence)
		case number == 1000 && kind == protowire.VarintType:
			retiring, _ := protowire.ConsumeVarint(value)
			l.Retiring = retiring != 0
		}
	}
	return l.State != ""
}
