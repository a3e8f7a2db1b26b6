package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/cells/firewall"
)

// register is where all that is compared is loaded.
const register = 1

// maxSpans bounds the elements of a set, so that they fit the 64 KiB that a netlink attribute may have: an
// IPv6 span takes up to 80 bytes. A rule with more becomes several.
const maxSpans = 700

// logPrefixKey says that a log has a prefix.
const logPrefixKey = 1 << unix.NFTA_LOG_PREFIX

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

// equal matches when what is loaded is this.
func equal(load expr.Any, value []byte) []expr.Any {
	return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: value}}
}

// between matches when what is loaded is one of a range.
func between(load expr.Any, first, last []byte) []expr.Any {
	return []expr.Any{load, &expr.Range{Op: expr.CmpOpEq, Register: register, FromData: first, ToData: last}}
}

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: register} }

func payload(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

// family matches the packets of IPv4 or of IPv6.
func family(is6 bool) []expr.Any {
	if is6 {
		return equal(meta(expr.MetaKeyNFPROTO), []byte{unix.NFPROTO_IPV6})
	}
	return equal(meta(expr.MetaKeyNFPROTO), []byte{unix.NFPROTO_IPV4})
}

// source and destination load an address from the header of IPv4 or of IPv6.
func source(is6 bool) expr.Any {
	if is6 {
		return payload(expr.PayloadBaseNetworkHeader, 8, 16)
	}
	return payload(expr.PayloadBaseNetworkHeader, 12, 4)
}

func destination(is6 bool) expr.Any {
	if is6 {
		return payload(expr.PayloadBaseNetworkHeader, 24, 16)
	}
	return payload(expr.PayloadBaseNetworkHeader, 16, 4)
}

// destinations matches spans of one family, as firewall.Rule has them.
func (b *batch) destinations(spans []firewall.Span) []expr.Any {
	is6 := spans[0].First.Is6()
	match := family(is6)
	if len(spans) == 1 {
		s := spans[0]
		switch {
		case s.First == s.Last:
			return append(match, equal(destination(is6), s.First.AsSlice())...)
		case s.First.IsUnspecified() && !s.Last.Next().IsValid():
			return match // all there are
		}
		return append(match, between(destination(is6), s.First.AsSlice(), s.Last.AsSlice())...)
	}
	of, zero := nftables.TypeIPAddr, netip.IPv4Unspecified()
	if is6 {
		of, zero = nftables.TypeIP6Addr, netip.IPv6Unspecified()
	}
	var in intervals
	for _, s := range spans {
		in.add(s.First.AsSlice(), s.Last.Next().AsSlice())
	}
	return append(match, destination(is6), b.set(of, in.from(zero.AsSlice())))
}

// protocol matches the protocol of a rule and what it says of ports or messages.
func (b *batch) protocol(r firewall.Rule, ports []firewall.Ports) []expr.Any {
	if r.Protocol == firewall.Any {
		return nil
	}
	match := equal(meta(expr.MetaKeyL4PROTO), []byte{byte(r.Protocol)})
	switch r.Protocol {
	case firewall.TCP, firewall.UDP:
		return append(match, b.ports(ports)...)
	case firewall.ICMP, firewall.ICMPv6:
		for offset, want := range []int16{r.Message.Type, r.Message.Code} {
			if want != firewall.AnyICMP {
				match = append(match, equal(payload(expr.PayloadBaseTransportHeader, uint32(offset), 1), []byte{byte(want)})...)
			}
		}
	}
	return match
}

// ports matches destination ports; nil: all.
func (b *batch) ports(ports []firewall.Ports) []expr.Any {
	load := payload(expr.PayloadBaseTransportHeader, 2, 2)
	switch {
	case len(ports) == 0:
		return nil
	case len(ports) == 1 && ports[0].First == ports[0].Last:
		return equal(load, number(ports[0].First))
	case len(ports) == 1:
		return between(load, number(ports[0].First), number(ports[0].Last))
	}
	var in intervals
	for _, p := range ports {
		if p.Last == 1<<16-1 {
			in.add(number(p.First), nil)
			continue
		}
		in.add(number(p.First), number(p.Last+1))
	}
	return []expr.Any{load, b.set(nftables.TypeInetService, in.from(number(0)))}
}

func number(port uint16) []byte { return binary.BigEndian.AppendUint16(nil, port) }

// portChunks splits ports into what fits a set; nil stays one chunk of nil.
func portChunks(ports []firewall.Ports) [][]firewall.Ports {
	if len(ports) == 0 {
		return [][]firewall.Ports{nil}
	}
	return slices.Collect(slices.Chunk(ports, maxSpans))
}

// intervals are the elements of a set as the kernel wants them: where each begins, and behind its end.
type intervals []nftables.SetElement

// add adds one; no end means that it is the end of all there are.
func (in *intervals) add(first, behind []byte) {
	*in = append(*in, nftables.SetElement{Key: first})
	if len(behind) > 0 {
		*in = append(*in, nftables.SetElement{Key: behind, IntervalEnd: true})
	}
}

// from returns all, with what lies between zero and the first of them.
func (in intervals) from(zero []byte) []nftables.SetElement {
	if slices.Equal(in[0].Key, zero) {
		return in
	}
	return append([]nftables.SetElement{{Key: zero, IntervalEnd: true}}, in...)
}
