package portmap

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// chain is a chain with its rules.
type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

const (
	reg = unix.NFT_REG_1
	// portReg is the second word of what the map gives into reg: the register of 32 bits behind the first one of
	// it, which is as long as four.
	portReg = unix.NFT_REG32_01

	destinationPort      = 2 // offset in the TCP header
	sourceAddress        = 12
	destinationAddress   = 16
	statusDestinationNAT = 1 << 5 // IPS_DST_NAT
)

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func (m *Mapper) chains() []chain {
	make := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, rules ...[]expr.Any) chain {
		return chain{&nftables.Chain{Name: name, Table: m.table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority}, rules}
	}
	return []chain{
		make("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, m.redirect()),
		make("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest, m.redirect()),
		make("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, m.masquerade(loopback), m.masquerade(m.cfg.Subnet)),
	}
}

// redirect sends a connection to an address of the machine on to the container that has its port.
func (m *Mapper) redirect() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: 2},
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m.ports.Name, SetID: m.ports.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg, RegProtoMin: portReg},
	}
}

// masquerade gives redirected connections from some addresses to containers the address of the machine.
func (m *Mapper) masquerade(from netip.Prefix) []expr.Any {
	rule := []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(statusDestinationNAT), Xor: binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
	rule = append(rule, within(sourceAddress, from)...)
	rule = append(rule, within(destinationAddress, m.cfg.Subnet)...)
	return append(rule, &expr.Masq{})
}

// within matches packets of which the address at an offset of the IP header is in a network.
func within(offset uint32, network netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: net.CIDRMask(network.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: network.Masked().Addr().AsSlice()},
	}
}
