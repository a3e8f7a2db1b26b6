package nft

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// BenchmarkApply gives containers of a cell that has so many other rules than they had. The rules are the
// same for all after each round, or those of each container are its own.
func BenchmarkApply(b *testing.B) {
	for _, own := range []bool{false, true} {
		for _, containers := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("own=%v/%d", own, containers), func(b *testing.B) { benchmarkApply(b, containers, own) })
		}
	}
}

func benchmarkApply(b *testing.B, containers int, own bool) {
	c := newCell(b, policy())
	port, f := c.newHost(b).link.Device, c.open(b)
	apply := func(i int) {
		link := Link{Device: fmt.Sprintf("p%d", i%containers), MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}}
		address := netip.AddrFrom4([4]byte{10, byte(c.n), byte(1 + i%containers/250), byte(1 + i%containers%250)})
		others := rule(fmt.Sprintf("tcp %d", 1+i/containers%2), "10.255.0.1")
		if own {
			others.Destinations = append(others.Destinations, address.String())
		}
		set, err := firewall.Compile(append(usualRules(), others), []netip.Addr{address})
		if err != nil {
			b.Fatal(err)
		}
		if err := f.isolate(port); err != nil { // all but the first have no device, only its name
			b.Fatal(err)
		}
		if err := f.apply(engine.ID(fmt.Sprintf("c-%d", i%containers)), link, set); err != nil {
			b.Fatal(err)
		}
	}
	for i := range containers {
		apply(i)
	}
	before := cpuTime(b)
	for i := containers; b.Loop(); i++ {
		apply(i)
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N)/1000, "cpu-ms/op")
}

// cpuTime returns what the process used, the kernel's work for it included. Unlike the time that went by it
// is the same on a busy machine.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
