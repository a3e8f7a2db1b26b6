package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"

	"muster/cells/engine"
	"muster/cells/firewall"
)

// socketBuffer holds a transaction with as many rules as a container may have, and its answers; the
// kernel takes memory only for what is there.
const socketBuffer = 64 << 20

// kernelTimeout bounds how long the kernel may take to answer, which it does at once.
const kernelTimeout = 10 * time.Second

// batch is a transaction on one table.
type batch struct {
	conn  *nftables.Conn
	table *nftables.Table
	sets  uint32 // so far
	err   error  // the first
}

func newBatch(table string) *batch {
	// Without AsLasting a connection never fails to open here, and is opened for each transaction:
	// an answer that comes too late is not taken for one to the next.
	conn, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := c.SetReadBuffer(socketBuffer); err != nil {
			return err
		}
		if err := c.SetWriteBuffer(socketBuffer); err != nil {
			return err
		}
		return c.SetDeadline(time.Now().Add(kernelTimeout))
	}))
	return &batch{conn: conn, table: &nftables.Table{Name: table, Family: nftables.TableFamilyINet}, err: err}
}

// commit makes all changes, or none and an error.
func (b *batch) commit() error {
	if b.err != nil {
		return b.err
	}
	return b.conn.Flush()
}

func (b *batch) chain(name string) *nftables.Chain {
	return &nftables.Chain{Name: name, Table: b.table}
}

// emptyChain adds a chain, or removes the rules of the one that is there.
func (b *batch) emptyChain(name string) {
	b.conn.AddChain(b.chain(name))
	b.conn.FlushChain(b.chain(name))
}

// dropChain removes a chain with its rules.
func (b *batch) dropChain(name string) {
	b.conn.FlushChain(b.chain(name))
	b.conn.DelChain(b.chain(name))
}

func (b *batch) rule(chain string, parts ...[]expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: b.chain(chain), Exprs: slices.Concat(parts...)})
}

// addresses is the map from the addresses of a family to the chains of containers.
func (b *batch) addresses(is6 bool) *nftables.Set {
	if is6 {
		return &nftables.Set{Table: b.table, Name: "addresses6", IsMap: true, KeyType: nftables.TypeIP6Addr, DataType: nftables.TypeVerdict}
	}
	return &nftables.Set{Table: b.table, Name: "addresses4", IsMap: true, KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict}
}

// set adds a set of intervals that belongs to one rule.
func (b *batch) set(of nftables.SetDatatype, elements []nftables.SetElement) expr.Any {
	b.sets++
	s := &nftables.Set{
		Table: b.table, ID: b.sets, Name: "__set%d", // the kernel puts a number there
		Anonymous: true, Constant: true, Interval: true, KeyType: of,
	}
	if err := b.conn.AddSet(s, elements); err != nil && b.err == nil {
		b.err = err
	}
	return &expr.Lookup{SourceRegister: register, SetID: s.ID, SetName: s.Name}
}

// mapTo makes the addresses of a container lead to its chain.
func (b *batch) mapTo(id engine.ID, addresses []netip.Addr) {
	for _, a := range addresses {
		element := nftables.SetElement{Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: containerChain(id)}}
		if err := b.conn.SetAddElements(b.addresses(a.Is6()), []nftables.SetElement{element}); err != nil && b.err == nil {
			b.err = err
		}
	}
}

// unmap undoes mapTo for addresses that the kernel has.
func (b *batch) unmap(addresses []netip.Addr) {
	for _, a := range addresses {
		if err := b.conn.SetDeleteElements(b.addresses(a.Is6()), []nftables.SetElement{{Key: a.AsSlice()}}); err != nil && b.err == nil {
			b.err = err
		}
	}
}

// write replaces the chains of a container. They are linked to its addresses in the end.
func (b *batch) write(id engine.ID, set firewall.Set, policy firewall.Policy) {
	own, logs := containerChain(id), logChain(id)
	b.emptyChain(own)
	if slices.ContainsFunc(set.Rules, func(r firewall.Rule) bool { return r.Log }) {
		b.emptyChain(logs)
		b.rule(logs, logged(id, policy.LogRate))
		b.rule(logs, verdict(expr.VerdictAccept, ""))
	}
	for _, a := range set.Addresses {
		b.rule(own, b.destinations([]firewall.Span{{First: a, Last: a}}), verdict(expr.VerdictAccept, ""))
	}
	b.rule(own, verdict(expr.VerdictJump, firstChain))
	b.rules(own, set.Rules, logs)
	b.rule(own, verdict(expr.VerdictGoto, lastChain))
	b.mapTo(id, set.Addresses)
}

// rules adds compiled rules to a chain; those that log go to another.
func (b *batch) rules(chain string, rules []firewall.Rule, logs string) {
	for _, r := range rules {
		end := verdict(expr.VerdictAccept, "")
		switch {
		case r.Verdict == firewall.Reject:
			end = verdict(expr.VerdictGoto, denyChain)
		case r.Log:
			end = verdict(expr.VerdictGoto, logs)
		}
		for to := range slices.Chunk(r.To, maxSpans) {
			for _, ports := range portChunks(r.Ports) {
				b.rule(chain, b.destinations(to), b.protocol(r, ports), end)
			}
		}
	}
}

// logged writes a line for so many packets a second, and goes on with the next rule for all of them.
func logged(id engine.ID, perSecond int) []expr.Any {
	return []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(perSecond), Unit: expr.LimitTimeSecond, Burst: uint32(perSecond)},
		&expr.Log{Key: logPrefixKey, Data: fmt.Appendf(nil, "%s ", id)},
	}
}
