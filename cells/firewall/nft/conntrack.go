package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
)

// forget makes the kernel forget the connections from and to addresses. It remembers them for up to
// five days when a container was killed, and whoever has its address next could go on with them, past the rules.
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
