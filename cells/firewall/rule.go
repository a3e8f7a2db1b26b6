package firewall

import (
	"net/netip"
	"slices"
)

// Verdict is what becomes of a packet.
type Verdict uint8

// The verdicts. A rejected packet is answered, so that its sender does not wait for a time-out.
const (
	Reject Verdict = iota
	Accept
)

// String returns accept or reject.
func (v Verdict) String() string {
	if v == Accept {
		return "accept"
	}
	return "reject"
}

// Protocol is a number that IP gives to a protocol above it; Any stands for all of them.
type Protocol uint8

// The protocols that rules can name.
const (
	Any    Protocol = 0
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
)

// Span is the addresses from First to Last, both of one family and both included.
type Span struct{ First, Last netip.Addr }

// Ports are the ports from First to Last, both included.
type Ports struct{ First, Last uint16 }

// AnyICMP as a type or a code stands for all of them.
const AnyICMP = -1

// Message is a kind of ICMP message: 0 to 255, or AnyICMP.
type Message struct{ Type, Code int16 }

// Rule is one line of a compiled list. All that it names must fit for it to match.
type Rule struct {
	Verdict  Verdict
	Log      bool // the kernel logs each new connection that matches
	Protocol Protocol
	To       []Span  // never empty; of one family, in order, not touching
	Ports    []Ports // nil: all; in order, not touching; for TCP and UDP only
	Message  Message // for ICMP and ICMPv6 only
}

// Is6 tells whether a rule is about IPv6.
func (r Rule) Is6() bool { return r.To[0].First.Is6() }

// Packet is the first packet of a connection, as far as rules look at it.
type Packet struct {
	To       netip.Addr
	ToHost   bool // To is an address of the cell, or one for many machines: broadcast, multicast
	Protocol Protocol
	Port     uint16  // for TCP and UDP
	Message  Message // for ICMP and ICMPv6
}

// Matches tells whether a rule is about a packet.
func (r Rule) Matches(p Packet) bool {
	if r.Protocol != Any && r.Protocol != p.Protocol {
		return false
	}
	if !slices.ContainsFunc(r.To, func(s Span) bool { return s.contains(p.To) }) {
		return false
	}
	switch r.Protocol {
	case TCP, UDP:
		return r.Ports == nil || slices.ContainsFunc(r.Ports, func(s Ports) bool { return s.First <= p.Port && p.Port <= s.Last })
	case ICMP, ICMPv6:
		return fits(r.Message.Type, p.Message.Type) && fits(r.Message.Code, p.Message.Code)
	}
	return true
}

func fits(want, got int16) bool { return want == AnyICMP || want == got }

func (s Span) contains(a netip.Addr) bool {
	return s.First.BitLen() == a.BitLen() && s.First.Compare(a) <= 0 && a.Compare(s.Last) <= 0
}
