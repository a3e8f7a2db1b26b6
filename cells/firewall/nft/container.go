package nft

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/firewall"
)

func chainName(id engine.ID) string { return containerPrefix + string(id) }

// chain makes the chain of a container, or replaces what is in it.
func (b *batch) chain(id engine.ID, set firewall.Set, logRate int) {
	name := chainName(id)
	b.empty(b.inet, name)
	for _, a := range set.Addresses {
		b.rule(b.inet, name, append(b.match(firewall.Rule{To: []firewall.Span{{First: a, Last: a}}}), accept())...)
	}
	b.rule(b.inet, name, jump(firstChain))
	for _, whole := range set.Rules {
		for _, r := range parts(whole) {
			if r.Log {
				b.rule(b.inet, name, append(b.match(r), logged(id, logRate)...)...)
			}
			b.rule(b.inet, name, append(b.match(r), accept())...)
		}
	}
	b.rule(b.inet, name, leap(lastChain))
}

// logged writes a line to the kernel's log that begins with the container, but not too often.
func logged(id engine.ID, rate int) []expr.Any {
	return []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: uint32(rate)},
		&expr.Log{Level: expr.LogLevelInfo, Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_LEVEL, Data: []byte(string(id) + " ")},
	}
}

func (b *batch) dropChain(id engine.ID) {
	chain := &nftables.Chain{Table: b.inet, Name: chainName(id)}
	b.conn.FlushChain(chain)
	b.conn.DelChain(chain)
}

// senders replaces who may send as whom.
func (b *batch) senders(before, after map[engine.ID]sender) {
	for id, s := range before {
		b.elements(id, s, b.conn.SetDeleteElements)
	}
	for id, s := range after {
		b.elements(id, s, b.conn.SetAddElements)
	}
}

// elements adds what a sender is to all sets, or removes it from them.
func (b *batch) elements(id engine.ID, s sender, do func(*nftables.Set, []nftables.SetElement) error) {
	if s.Device == "" {
		return
	}
	b.keep(do(b.ports, []nftables.SetElement{{Key: device(s.Device)}}))
	if slices.ContainsFunc(s.addresses, netip.Addr.Is6) {
		b.keep(do(b.neighbours, []nftables.SetElement{{Key: s.key(nil)}}))
	}
	for _, a := range s.addresses {
		b.keep(do(b.known(a.Is6()), []nftables.SetElement{{Key: s.key(a.AsSlice()), Comment: string(id)}}))
		b.keep(do(b.from(a.Is6()), []nftables.SetElement{{
			Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chainName(id)},
		}}))
	}
}
