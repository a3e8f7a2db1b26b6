package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/cells/firewall"
)

// The chains that all containers share.
const (
	forwardChain = "forward"
	inputChain   = "input"
	egressChain  = "egress"
	firstChain   = "first"
	lastChain    = "last"
	denyChain    = "deny"
)

// writeShared makes the table, its maps and the chains that all containers share, or renews them.
func (b *batch) writeShared(cfg Config) {
	b.conn.AddTable(b.table)
	for _, is6 := range []bool{false, true} {
		if err := b.conn.AddSet(b.addresses(is6), nil); err != nil && b.err == nil {
			b.err = err
		}
	}
	for _, name := range []string{denyChain, firstChain, lastChain, egressChain} {
		b.emptyChain(name)
	}
	b.writeDeny()
	b.writePolicy(cfg.Policy)
	b.writeEgress()
	b.hook(forwardChain, nftables.ChainHookForward)
	b.hook(inputChain, nftables.ChainHookInput)
	b.rule(inputChain, neighbours())
	for _, name := range []string{forwardChain, inputChain} {
		b.rule(name, equal(meta(expr.MetaKeyIIFNAME), device(cfg.Bridge)), verdict(expr.VerdictGoto, egressChain))
	}
}

// hook makes a chain that sees the packets of the whole machine.
func (b *batch) hook(name string, at *nftables.ChainHook) {
	accept := nftables.ChainPolicyAccept
	c := b.chain(name)
	c.Type, c.Hooknum, c.Priority, c.Policy = nftables.ChainTypeFilter, at, nftables.ChainPriorityFilter, &accept
	b.conn.AddChain(c)
	b.conn.FlushChain(c)
}

// writeDeny answers what is rejected, so that nobody waits.
func (b *batch) writeDeny() {
	b.rule(denyChain, equal(meta(expr.MetaKeyL4PROTO), []byte{unix.IPPROTO_TCP}), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	b.rule(denyChain, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}})
}

func (b *batch) writePolicy(p firewall.Policy) {
	b.rules(firstChain, p.First, "")
	if !p.AllowHost {
		b.rule(firstChain, toHost(), verdict(expr.VerdictGoto, denyChain))
	}
	b.rules(lastChain, p.Last, "")
	b.rule(lastChain, verdict(expr.VerdictGoto, denyChain))
}

func (b *batch) writeEgress() {
	b.rule(egressChain, open(), verdict(expr.VerdictAccept, ""))
	for _, is6 := range []bool{false, true} {
		b.rule(egressChain, family(is6), []expr.Any{
			source(is6), &expr.Lookup{SourceRegister: register, SetName: b.addresses(is6).Name, IsDestRegSet: true},
		})
	}
	b.rule(egressChain, verdict(expr.VerdictGoto, denyChain))
}

// open matches the packets of connections that are open, and errors about them.
func open() []expr.Any {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: states, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// toHost matches what does not go to one other machine: to the cell itself, to all, to a group.
func toHost() []expr.Any {
	unicast := binary.NativeEndian.AppendUint32(nil, unix.RTN_UNICAST)
	return []expr.Any{
		&expr.Fib{Register: register, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: unicast},
	}
}

// Messages of neighbour discovery; without them there is no IPv6 on a link.
const (
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
)

// neighbours accepts neighbour discovery, from whichever device.
func neighbours() []expr.Any {
	match := append(family(true), equal(meta(expr.MetaKeyL4PROTO), []byte{unix.IPPROTO_ICMPV6})...)
	match = append(match, between(payload(expr.PayloadBaseTransportHeader, 0, 1), []byte{neighbourSolicitation}, []byte{neighbourAdvertisement})...)
	return append(match, verdict(expr.VerdictAccept, "")...)
}

// device returns the name of a network device as the kernel compares it.
func device(name string) []byte {
	var padded [unix.IFNAMSIZ]byte
	copy(padded[:], name)
	return padded[:]
}
