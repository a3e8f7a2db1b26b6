package nft

import (
	"bytes"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"muster/cells/firewall"
)

// maxIntervals bounds the set of one rule: it must fit into one message of 64 KiB. A rule with more
// destinations, or more ports, becomes several.
const maxIntervals = 400

var portType = nftables.TypeInetService

func addressType(is6 bool) nftables.SetDatatype {
	if is6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// among matches when the register holds a value of some intervals: by comparing with one, or by looking
// into a set of several.
func (b *batch) among(of nftables.SetDatatype, intervals []interval) expr.Any {
	if len(intervals) == 1 {
		only := intervals[0]
		if bytes.Equal(only.first, only.last) {
			return equal(only.first...)
		}
		return &expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: only.first, ToData: only.last}
	}
	b.lastSet++
	set := &nftables.Set{
		Table: b.inet, ID: b.lastSet, Name: "__set%d", Anonymous: true, Constant: true, Interval: true, KeyType: of,
	}
	var elements []nftables.SetElement
	for _, i := range intervals {
		elements = append(elements, nftables.SetElement{Key: i.first})
		if end, ok := next(i.last); ok {
			elements = append(elements, nftables.SetElement{Key: end, IntervalEnd: true})
		}
	}
	b.keep(b.conn.AddSet(set, elements))
	return &expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID}
}

// next returns the value behind another one, if there is any.
func next(value []byte) ([]byte, bool) {
	out := slices.Clone(value)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]++
		if out[i] != 0 {
			return out, true
		}
	}
	return nil, false
}

// parts cuts a rule into several that match the same and have at most maxIntervals each.
func parts(r firewall.Rule) []firewall.Rule {
	var out []firewall.Rule
	for to := range slices.Chunk(r.To, maxIntervals) {
		part := r
		part.To = to
		if r.Ports == nil {
			out = append(out, part)
		}
		for ports := range slices.Chunk(r.Ports, maxIntervals) {
			part.Ports = ports
			out = append(out, part)
		}
	}
	return out
}
