package nft

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/firewall"
)

// usualRules are what apps have by default: resolvers, and all networks but private ones.
func usualRules() []lrp.EgressRule {
	return []lrp.EgressRule{
		rule("tcp 53", "0.0.0.0/0"), rule("udp 53", "0.0.0.0/0"),
		rule("all", "0.0.0.0-9.255.255.255"), rule("all", "11.0.0.0-169.253.255.255"), rule("all", "169.255.0.0-172.15.255.255"),
		rule("all", "172.32.0.0-192.167.255.255"), rule("all", "192.169.0.0-255.255.255.255"),
		rule("tcp 3306", "10.0.11.0/24"), rule("tcp 5432,6379", "10.0.12.0/24", "10.0.13.7"), rule("tcp 8443-8450", "10.0.14.0/24"),
		rule("icmp 8 -1", "0.0.0.0/0"),
	}
}

// BenchmarkApply replaces the rules of a container on a cell that has so many.
func BenchmarkApply(b *testing.B) {
	for _, containers := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(containers), func(b *testing.B) {
			c := newCell(b, policy())
			port, f := c.newHost(b).link.Device, c.open(b)
			sets := make([]firewall.Set, containers)
			apply := func(i int) {
				link := Link{Device: fmt.Sprintf("p%d", i), MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}}
				if err := f.isolate(port); err != nil { // all but the first have no device, only its name
					b.Fatal(err)
				}
				if err := f.apply(engine.ID(fmt.Sprintf("c-%d", i)), link, sets[i]); err != nil {
					b.Fatal(err)
				}
			}
			for i := range sets {
				var err error
				address := netip.AddrFrom4([4]byte{10, byte(c.n), byte(1 + i/250), byte(1 + i%250)})
				if sets[i], err = firewall.Compile(usualRules(), []netip.Addr{address}); err != nil {
					b.Fatal(err)
				}
				apply(i)
			}
			for i := 0; b.Loop(); i++ {
				apply(i % containers)
			}
		})
	}
}
