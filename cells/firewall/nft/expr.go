package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/cells/firewall"
)

// reg is the register that most expressions work with.
const reg = unix.NFT_REG_1

// Places in packets, in bytes.
const (
	source4, source6       = 12, 8
	destination4           = 16
	destination6           = 24
	portOffset, portLength = 2, 2
	typeOffset, codeOffset = 0, 1
)

func accept() expr.Any           { return &expr.Verdict{Kind: expr.VerdictAccept} }
func drop() expr.Any             { return &expr.Verdict{Kind: expr.VerdictDrop} }
func jump(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }
func leap(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

func equal(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data} }
func other(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: data} }

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: reg} }

func load(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length}
}

// ct matches connections in any of some states.
func ct(states uint32) []expr.Any {
	mask := binary.NativeEndian.AppendUint32(nil, states)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		other(0, 0, 0, 0),
	}
}

// source loads the source of a packet into a register.
func source(is6 bool, register uint32) expr.Any {
	if is6 {
		return at(register, expr.PayloadBaseNetworkHeader, source6, 16)
	}
	return at(register, expr.PayloadBaseNetworkHeader, source4, 4)
}

// destination loads the destination of a packet into a register.
func destination(is6 bool, register uint32) expr.Any {
	if is6 {
		return at(register, expr.PayloadBaseNetworkHeader, destination6, 16)
	}
	return at(register, expr.PayloadBaseNetworkHeader, destination4, 4)
}

func family(is6 bool) []expr.Any {
	if is6 {
		return []expr.Any{meta(expr.MetaKeyNFPROTO), equal(unix.NFPROTO_IPV6)}
	}
	return []expr.Any{meta(expr.MetaKeyNFPROTO), equal(unix.NFPROTO_IPV4)}
}

// device returns how the kernel compares the name of a device.
func device(name string) []byte {
	out := make([]byte, unix.IFNAMSIZ)
	copy(out, name)
	return out
}

// match returns the expressions for all that a rule names but its verdict; spans and ports are those of
// the rule or a part of them.
func (b *batch) match(r firewall.Rule) []expr.Any {
	out := family(r.Is6())
	if r.Protocol != firewall.Any {
		out = append(out, meta(expr.MetaKeyL4PROTO), equal(byte(r.Protocol)))
	}
	if !wholeFamily(r.To) {
		out = append(out, destination(r.Is6(), reg), b.among(addressType(r.Is6()), addressIntervals(r.To)))
	}
	if len(r.Ports) > 0 {
		out = append(out, load(expr.PayloadBaseTransportHeader, portOffset, portLength), b.among(portType, portIntervals(r.Ports)))
	}
	if r.Protocol == firewall.ICMP || r.Protocol == firewall.ICMPv6 {
		out = append(out, number(typeOffset, r.Message.Type)...)
		out = append(out, number(codeOffset, r.Message.Code)...)
	}
	return out
}

// number matches a number of an ICMP message.
func number(offset uint32, want int16) []expr.Any {
	if want == firewall.AnyICMP {
		return nil
	}
	return []expr.Any{load(expr.PayloadBaseTransportHeader, offset, 1), equal(byte(want))}
}

// wholeFamily tells whether a list holds all addresses of its family.
func wholeFamily(spans []firewall.Span) bool {
	return len(spans) == 1 && spans[0].First.IsUnspecified() && !spans[0].Last.Next().IsValid()
}

// interval is values from first to last, both included, as the kernel compares them.
type interval struct{ first, last []byte }

func addressIntervals(spans []firewall.Span) []interval {
	out := make([]interval, len(spans))
	for i, s := range spans {
		out[i] = interval{s.First.AsSlice(), s.Last.AsSlice()}
	}
	return out
}

func portIntervals(ports []firewall.Ports) []interval {
	out := make([]interval, len(ports))
	for i, p := range ports {
		out[i] = interval{binary.BigEndian.AppendUint16(nil, p.First), binary.BigEndian.AppendUint16(nil, p.Last)}
	}
	return out
}
