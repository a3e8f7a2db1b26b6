package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/cells/firewall"
)

// batch collects what one transaction is to do.
type batch struct {
	tables
	conn    *nftables.Conn
	lastSet uint32
	err     error // the first problem
}

// keep remembers the first problem.
func (b *batch) keep(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *batch) rule(table *nftables.Table, chain string, exprs ...expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Table: table, Name: chain}, Exprs: exprs})
}

// priority is just before the chains of iptables: what is rejected here needs no look there, and what is
// accepted here can still be dropped there.
var priority = *nftables.ChainPriorityFilter - 1

// base makes all but what belongs to single containers.
func (b *batch) base(cfg Config) {
	b.conn.AddTable(b.inet)
	b.conn.AddTable(b.bridge)
	for _, s := range b.sets() {
		b.keep(b.conn.AddSet(s, nil))
	}
	b.hook(b.inet, forwardChain, *nftables.ChainHookForward, priority)
	b.hook(b.inet, inputChain, *nftables.ChainHookInput, priority)
	b.hook(b.inet, outputChain, *nftables.ChainHookOutput, priority)
	b.hook(b.bridge, preroutingChain, *nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	for _, chain := range []string{denyChain, firstChain, lastChain} {
		b.empty(b.inet, chain)
	}
	b.rule(b.inet, denyChain, meta(expr.MetaKeyL4PROTO), equal(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	b.rule(b.inet, denyChain, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
	b.policy(firstChain, cfg.Policy.First)
	b.policy(lastChain, cfg.Policy.Last)
	b.rule(b.inet, lastChain, leap(denyChain))

	for _, chain := range []string{forwardChain, inputChain} {
		b.rule(b.inet, chain, meta(expr.MetaKeyIIFNAME), other(device(cfg.Bridge)...), accept())
		b.rule(b.inet, chain, append(ct(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())...)
		b.rule(b.inet, chain, append(ct(expr.CtStateBitINVALID), drop())...)
		if chain == inputChain {
			b.neighbourDiscovery()
		}
		for _, is6 := range []bool{false, true} {
			b.strangers(chain, is6)
			b.toItself(chain, is6)
		}
		b.rule(b.inet, chain, jump(firstChain)) // for chain input too: a resolver may be on the cell
		if chain == inputChain && !cfg.Policy.AllowHost {
			b.rule(b.inet, chain, leap(denyChain))
			continue
		}
		b.dispatch(chain, false)
		b.dispatch(chain, true)
		b.rule(b.inet, chain, leap(lastChain))
	}
	// Traffic between containers enters and leaves by the bridge; they need not be told of a shorter way.
	b.rule(b.inet, outputChain, append(family(false), meta(expr.MetaKeyOIFNAME), equal(device(cfg.Bridge)...),
		meta(expr.MetaKeyL4PROTO), equal(unix.IPPROTO_ICMP),
		load(expr.PayloadBaseTransportHeader, typeOffset, 1), equal(icmpRedirect), drop())...)
	b.spoofing()
}

// Types of messages that belong to the network itself.
const (
	icmpRedirect      = 5
	neighbourSolicit  = 135
	neighbourAdvert   = 136
	arpProtocol       = 0x0806
	arpSender         = 8 // offset in an ARP packet: MAC
	arpSenderAddress  = 14
	etherSourceOffset = 6
)

// neighbourDiscovery lets containers and the cell find each other by IPv6.
func (b *batch) neighbourDiscovery() {
	b.rule(b.inet, inputChain, append(family(true), meta(expr.MetaKeyL4PROTO), equal(unix.IPPROTO_ICMPV6),
		load(expr.PayloadBaseTransportHeader, typeOffset, 1),
		&expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: []byte{neighbourSolicit}, ToData: []byte{neighbourAdvert}}, accept())...)
}

// dispatch calls the chain of the container that a packet is from.
func (b *batch) dispatch(chain string, is6 bool) {
	from := b.from(is6)
	b.rule(b.inet, chain, append(family(is6), source(is6, reg),
		&expr.Lookup{SourceRegister: reg, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT, SetName: from.Name, SetID: from.ID})...)
}

// behind returns the register behind one address in reg.
func behind(is6 bool) uint32 {
	if is6 {
		return unix.NFT_REG32_04
	}
	return unix.NFT_REG32_01
}

// strangers rejects what is from no container.
func (b *batch) strangers(chain string, is6 bool) {
	self := b.self(is6)
	b.rule(b.inet, chain, append(family(is6), source(is6, reg), source(is6, behind(is6)),
		&expr.Lookup{SourceRegister: reg, SetName: self.Name, SetID: self.ID, Invert: true}, leap(denyChain))...)
}

// toItself accepts what a container sends to itself by a port of the cell.
func (b *batch) toItself(chain string, is6 bool) {
	self := b.self(is6)
	b.rule(b.inet, chain, append(family(is6), source(is6, reg), destination(is6, behind(is6)),
		&expr.Lookup{SourceRegister: reg, SetName: self.Name, SetID: self.ID}, accept())...)
}

// policy adds rules that are the same for all containers.
func (b *batch) policy(chain string, rules []firewall.Rule) {
	for _, whole := range rules {
		for _, r := range parts(whole) {
			verdict := accept()
			if r.Verdict == firewall.Reject {
				verdict = leap(denyChain)
			}
			b.rule(b.inet, chain, append(b.match(r), verdict)...)
		}
	}
}

// hook makes an empty chain that the kernel calls; packets that it says nothing about pass.
func (b *batch) hook(table *nftables.Table, name string, hook nftables.ChainHook, priority nftables.ChainPriority) {
	policy := nftables.ChainPolicyAccept
	b.conn.FlushChain(b.conn.AddChain(&nftables.Chain{
		Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: &hook, Priority: &priority, Policy: &policy,
	}))
}

// empty makes an empty chain.
func (b *batch) empty(table *nftables.Table, name string) {
	b.conn.FlushChain(b.conn.AddChain(&nftables.Chain{Table: table, Name: name}))
}

// protocol matches what a frame carries.
func protocol(number uint16) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyPROTOCOL), equal(binary.BigEndian.AppendUint16(nil, number)...)}
}
