package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"

	"muster/cells/engine"
)

// The kernel remembers the connections of a container that was killed for up to five days, and whoever
// has its address next could go on with them, past the rules. To find them takes a look at all connections of
// the machine. So the addresses of removed containers are kept in a set, and when one of them is given to
// another container, the connections of all are forgotten at once: addresses are given out in turn.

// stale returns the addresses whose connections must be forgotten before a container gets its own: none
// when nobody had these before. Others in before have lost theirs to it.
func (f *Firewall) stale(id engine.ID, now sender, before map[engine.ID]sender) []netip.Addr {
	var lost []netip.Addr
	for other, s := range before {
		for _, a := range s.addresses {
			if other != id || !slices.Contains(now.addresses, a) {
				lost = append(lost, a)
			}
		}
	}
	if len(lost) == 0 && !slices.ContainsFunc(now.addresses, func(a netip.Addr) bool { return slices.Contains(f.dead, a) }) {
		return nil
	}
	return union(f.dead, lost)
}

// union returns what is in either list.
func union(a, b []netip.Addr) []netip.Addr {
	return slices.Compact(slices.SortedFunc(slices.Values(slices.Concat(a, b)), netip.Addr.Compare))
}

// buriedTogether bounds the addresses of one message.
const buriedTogether = 500

// bury adds addresses to those that are dead, or removes them.
func (b *batch) bury(addresses []netip.Addr, do func(*nftables.Set, []nftables.SetElement) error) {
	for _, is6 := range []bool{false, true} {
		var elements []nftables.SetElement
		for _, a := range addresses {
			if a.Is6() == is6 {
				elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
			}
		}
		for part := range slices.Chunk(elements, buriedTogether) {
			b.keep(do(b.dead(is6), part))
		}
	}
}

// forget makes the kernel forget the connections from and to addresses.
func forget(addresses []netip.Addr) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	defer c.Close()
	for is6, family := range map[bool]netfilter.ProtoFamily{false: netfilter.ProtoIPv4, true: netfilter.ProtoIPv6} {
		if !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return a.Is6() == is6 }) {
			continue
		}
		flows, err := c.DumpFilter(conntrack.NewFilter().Family(family), nil)
		if err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
		for _, flow := range flows {
			if !involves(flow, addresses) {
				continue
			}
			if err := c.Delete(flow); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may just have ended
				return fmt.Errorf("forget a connection: %w", err)
			}
		}
	}
	return nil
}

// involves tells whether a connection is from or to one of some addresses, before or after ports of
// the cell were mapped.
func involves(flow conntrack.Flow, addresses []netip.Addr) bool {
	orig, reply := flow.TupleOrig.IP, flow.TupleReply.IP
	for _, end := range []netip.Addr{orig.SourceAddress, orig.DestinationAddress, reply.SourceAddress, reply.DestinationAddress} {
		if slices.Contains(addresses, end) {
			return true
		}
	}
	return false
}
