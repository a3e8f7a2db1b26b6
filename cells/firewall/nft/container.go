package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/firewall"
)

// chainName names the chain for a container with these rules. Containers with the same rules share one: most
// apps of a cell have the same, and the kernel checks all chains at each change. Lines in
// the log begin with the container, so those that log have chains of their own.
func chainName(id engine.ID, rules []firewall.Rule) string {
	if slices.ContainsFunc(rules, func(r firewall.Rule) bool { return r.Log }) {
		return containerPrefix + string(id)
	}
	digest := sha256.Sum256(fmt.Append(nil, rules))
	return sharedPrefix + hex.EncodeToString(digest[:16])
}

// write makes a chain, or replaces what is in it.
func (b *batch) write(chain string, rules []firewall.Rule, log []expr.Any) {
	b.empty(b.inet, chain)
	for _, whole := range rules {
		for _, r := range parts(whole) {
			if r.Log {
				b.rule(b.inet, chain, append(b.match(r), log...)...)
			}
			b.rule(b.inet, chain, append(b.match(r), accept())...)
		}
	}
}

// logged writes a line to the kernel's log that begins with the container, but not too often.
func logged(id engine.ID, rate int) []expr.Any {
	return []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: uint32(rate)},
		&expr.Log{Level: expr.LogLevelInfo, Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_LEVEL, Data: []byte(string(id) + " ")},
	}
}

func (b *batch) dropChain(name string) {
	chain := &nftables.Chain{Table: b.inet, Name: name}
	b.conn.FlushChain(chain)
	b.conn.DelChain(chain)
}

// senders replaces who may send as whom, and where to. What stays the same is left alone: most changes
// are other rules of a container that stays who it is.
func (b *batch) senders(before, after map[engine.ID]sender) {
	for id, s := range before {
		if !s.same(after[id]) {
			b.identity(id, s, b.conn.SetDeleteElements)
		}
		b.leadTo(s, b.conn.SetDeleteElements)
	}
	for id, s := range after {
		if !s.same(before[id]) {
			b.identity(id, s, b.conn.SetAddElements)
		}
		b.leadTo(s, b.conn.SetAddElements)
	}
}

// identity adds who a sender is to the sets, or removes it from them.
func (b *batch) identity(id engine.ID, s sender, do func(*nftables.Set, []nftables.SetElement) error) {
	b.keep(do(b.ports, []nftables.SetElement{{Key: device(s.Device)}}))
	if slices.ContainsFunc(s.addresses, netip.Addr.Is6) {
		b.keep(do(b.neighbours, []nftables.SetElement{{Key: s.key(nil)}}))
	}
	for _, a := range s.addresses {
		b.keep(do(b.known(a.Is6()), []nftables.SetElement{{Key: s.key(a.AsSlice()), Comment: string(id)}}))
		b.keep(do(b.self(a.Is6()), []nftables.SetElement{{Key: slices.Concat(a.AsSlice(), a.AsSlice())}}))
	}
}

// leadTo adds the chain of a sender to the maps, or removes it from them. The comment is the name of
// the chain, because the verdict of an element cannot be read back.
func (b *batch) leadTo(s sender, do func(*nftables.Set, []nftables.SetElement) error) {
	for _, a := range s.addresses {
		b.keep(do(b.from(a.Is6()), []nftables.SetElement{{
			Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: s.chain}, Comment: s.chain,
		}}))
	}
}

// uses tells whether any container but some has a chain.
func (f *Firewall) uses(chain string, but map[engine.ID]sender) bool {
	for id, s := range f.known {
		if _, skip := but[id]; !skip && s.chain == chain {
			return true
		}
	}
	return false
}

// unused returns the chains that only some containers have, in order.
func (f *Firewall) unused(only map[engine.ID]sender) []string {
	var out []string
	for _, s := range only {
		if !f.uses(s.chain, only) {
			out = append(out, s.chain)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
