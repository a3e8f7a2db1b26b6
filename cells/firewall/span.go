package firewall

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// destination reads an address, a CIDR block or a range A-B. Host bits of a block may be set, and an
// IPv4 address written as an IPv6 one (::ffff:a.b.c.d) is IPv4.
func destination(text string) (Span, bool) {
	if first, last, isRange := strings.Cut(text, "-"); isRange {
		a, ok1 := address(first)
		b, ok2 := address(last)
		return Span{a, b}, ok1 && ok2 && a.BitLen() == b.BitLen() && a.Compare(b) <= 0
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return Span{}, false
		}
		return block(p), true
	}
	a, ok := address(text)
	return Span{a, a}, ok
}

// address reads an address; a zone means nothing beyond the machine it was written on.
func address(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil && a.Zone() == ""
}

// mappedBits is how long the prefix of IPv4 addresses within IPv6 is.
const mappedBits = 96

// block returns the addresses of a CIDR block.
func block(p netip.Prefix) Span {
	if p.Addr().Is4In6() && p.Bits() >= mappedBits {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	p = p.Masked()
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return Span{p.Addr(), end}
}

// join returns the same addresses, of one family, in order and in as few spans as there can be.
func join(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return a.First.Compare(b.First) })
	out := spans[:0:0]
	for _, s := range spans {
		if n := len(out) - 1; n >= 0 && s.First.Compare(after(out[n].Last)) <= 0 {
			if s.Last.Compare(out[n].Last) > 0 {
				out[n].Last = s.Last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// after returns the next address, or the same if there is none.
func after(a netip.Addr) netip.Addr {
	if next := a.Next(); next.IsValid() {
		return next
	}
	return a
}

// joinPorts does for ports what join does for addresses.
func joinPorts(ports []Ports) []Ports {
	slices.SortFunc(ports, func(a, b Ports) int { return cmp.Compare(a.First, b.First) })
	out := ports[:0:0]
	for _, p := range ports {
		if n := len(out) - 1; n >= 0 && int(p.First) <= int(out[n].Last)+1 {
			out[n].Last = max(out[n].Last, p.Last)
			continue
		}
		out = append(out, p)
	}
	return out
}
