package wire

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// Most changes of an instance leave what its cell has reported as it was, and that is most of the record.
// So the log keeps it once: Fold takes it out of the record before the change where it equals that of the
// record after it, and says so in a field of its own; Unfold puts it back.

// foldedField of a change says which parts are left out of the record before: those of foldable whose bit is
// set. It is in no message: what is sent is unfolded.
const foldedField = 1001

// foldable are the parts of an ActualLRP, each a range of fields that follow each other.
var foldable = [...]struct{ from, to protowire.Number }{
	{3, 3},   // ActualLRPNetInfo
	{11, 12}, // internal routes and metric tags
}

// worthFolding is the size of a record, in bytes, from which on it is looked at.
const worthFolding = 256

// changeParts are the records of a change of an instance, encoded.
type changeParts struct {
	before, after []byte
	folded        uint64
}

// takeApart takes the change of an instance apart as AppendChange, or Fold, makes it. It returns false for
// anything else.
func takeApart(change []byte) (c changeParts, ok bool) {
	number, sub, rest, ok := nextMessage(change)
	if !ok || number != 5 || len(rest) > 0 {
		return c, false
	}
	for len(sub) > 0 {
		number, kind, n := protowire.ConsumeTag(sub)
		if n < 0 {
			return c, false
		}
		size := protowire.ConsumeFieldValue(number, kind, sub[n:])
		if size < 0 {
			return c, false
		}
		value := sub[n : n+size]
		sub = sub[n+size:]
		switch {
		case number == 1 && kind == protowire.BytesType && c.before == nil:
			c.before, _ = protowire.ConsumeBytes(value)
		case number == 2 && kind == protowire.BytesType && c.after == nil:
			c.after, _ = protowire.ConsumeBytes(value)
		case number == foldedField && kind == protowire.VarintType:
			c.folded, _ = protowire.ConsumeVarint(value)
		default:
			return c, false
		}
	}
	return c, true
}

// parts returns where the foldable parts of a record lie; ok is false when its fields are not in order.
func parts(record []byte) (at [len(foldable)][2]int, ok bool) {
	last, offset := protowire.Number(0), 0
	for next := 0; offset < len(record); {
		number, kind, n := protowire.ConsumeTag(record[offset:])
		if n < 0 || number < last {
			return at, false
		}
		size := protowire.ConsumeFieldValue(number, kind, record[offset+n:])
		if size < 0 {
			return at, false
		}
		for ; next < len(foldable) && number > foldable[next].to; next++ {
			if at[next][1] == 0 {
				at[next] = [2]int{offset, offset}
			}
		}
		if next < len(foldable) && number >= foldable[next].from {
			if at[next][1] == 0 {
				at[next][0] = offset
			}
			at[next][1] = offset + n + size
		}
		last, offset = number, offset+n+size
	}
	for i := range at {
		if at[i][1] == 0 {
			at[i] = [2]int{len(record), len(record)}
		}
	}
	return at, true
}

// Fold returns an encoded change without what it says twice, or the change itself if that is nothing.
func Fold(change []byte) []byte {
	if len(change) < 2*worthFolding {
		return change
	}
	c, ok := takeApart(change)
	if !ok || c.folded != 0 || len(c.before) < worthFolding || len(c.after) < worthFolding {
		return change
	}
	was, okWas := parts(c.before)
	is, okIs := parts(c.after)
	if !okWas || !okIs {
		return change
	}
	folded, kept, from := uint64(0), make([]byte, 0, len(c.before)), 0
	for i := range foldable {
		part := c.before[was[i][0]:was[i][1]]
		if len(part) > 0 && bytes.Equal(part, c.after[is[i][0]:is[i][1]]) {
			folded |= 1 << i
			kept, from = append(kept, c.before[from:was[i][0]]...), was[i][1]
		}
	}
	if folded == 0 {
		return change
	}
	return change5(append(kept, c.before[from:]...), c.after, folded)
}

// Unfold undoes Fold. What is not folded it returns as it is.
func Unfold(change []byte) []byte {
	c, ok := takeApart(change)
	if !ok || c.folded == 0 {
		return change
	}
	was, okWas := parts(c.before)
	is, okIs := parts(c.after)
	if !okWas || !okIs {
		return change
	}
	whole, from := make([]byte, 0, len(c.before)+len(c.after)), 0
	for i := range foldable {
		if c.folded&(1<<i) != 0 {
			whole = append(whole, c.before[from:was[i][0]]...)
			whole, from = append(whole, c.after[is[i][0]:is[i][1]]...), was[i][0]
		}
	}
	return change5(append(whole, c.before[from:]...), c.after, 0)
}

// change5 puts the change of an instance together.
func change5(before, after []byte, folded uint64) []byte {
	b := make([]byte, 0, len(before)+len(after)+32)
	e := encoder{b: b}
	start := e.open(5)
	e.b = protowire.AppendBytes(protowire.AppendTag(e.b, 1, protowire.BytesType), before)
	e.b = protowire.AppendBytes(protowire.AppendTag(e.b, 2, protowire.BytesType), after)
	e.number(foldedField, folded)
	e.close(start)
	return e.b
}
