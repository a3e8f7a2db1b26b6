package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 4 bytes behind the 16 of a device name in reg.
const (
	macReg     = unix.NFT_REG32_04
	addressReg = unix.NFT_REG32_06
)

// spoofing drops frames from the devices of containers unless device, MAC and address belong together.
// Container processes may open raw sockets, so that all three are theirs to choose.
func (b *batch) spoofing() {
	rule := func(exprs ...expr.Any) { b.rule(b.bridge, preroutingChain, exprs...) }
	rule(meta(expr.MetaKeyIIFNAME), &expr.Lookup{SourceRegister: reg, SetName: b.ports.Name, SetID: b.ports.ID, Invert: true}, accept())

	ether := at(macReg, expr.PayloadBaseLLHeader, etherSourceOffset, macLength)
	in := func(set *nftables.Set) expr.Any {
		return &expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID}
	}
	rule(append(protocol(unix.ETH_P_IP), meta(expr.MetaKeyIIFNAME), ether,
		source(false, addressReg), in(b.known4), accept())...)
	rule(append(protocol(unix.ETH_P_IPV6), meta(expr.MetaKeyIIFNAME), ether,
		source(true, addressReg), in(b.known6), accept())...)
	// Before it has an address, and from the one of its link, a device only looks for neighbours.
	rule(append(protocol(unix.ETH_P_IPV6), meta(expr.MetaKeyL4PROTO), equal(unix.IPPROTO_ICMPV6),
		load(expr.PayloadBaseTransportHeader, typeOffset, 1),
		&expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: []byte{neighbourSolicit}, ToData: []byte{neighbourAdvert}},
		meta(expr.MetaKeyIIFNAME), ether, in(b.neighbours), accept())...)
	arp := at(addressReg, expr.PayloadBaseNetworkHeader, arpSenderAddress, 4)
	rule(append(protocol(arpProtocol), meta(expr.MetaKeyIIFNAME), ether, arp, in(b.known4),
		at(macReg, expr.PayloadBaseNetworkHeader, arpSender, macLength), in(b.known4), accept())...)
	rule(drop())
}

// at loads a part of a packet into a register of 4 bytes and those behind it.
func at(register uint32, base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}
