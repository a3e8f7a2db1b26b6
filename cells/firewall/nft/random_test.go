package nft

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/cells/firewall"
)

// The kernel decides every packet as firewall.Policy.Decide does.
func TestTheKernelDecidesAsCompiled(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, randomPorts...)
	a := c.newHost(t)
	rapid.Check(t, func(t *rapid.T) {
		policy := firewall.Config{
			LogRate: 1, DNS: c.someDestinations(t, "dns", 0), Deny: c.someDestinations(t, "deny", 0), Allow: c.someDestinations(t, "allow", 0),
		}
		var err error
		if c.cfg.Policy, err = policy.Compile(); err != nil {
			t.Fatal(err)
		}
		set, err := firewall.Compile(rapid.SliceOfN(rapid.Custom(c.aRule), 0, 5).Draw(t, "rules"), a.addresses)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Apply(a.id, a.link, set); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			network, address, packet := c.aQuestion(t)
			want := c.cfg.Policy.Decide(set, packet).Verdict
			if err := a.ask(network, address); (err == nil) != (want == firewall.Accept) {
				t.Fatalf("%s %s: %v; want %v", network, address, err, want)
			}
		}
	})
}

var randomPorts = []int{53, 80, 81, 82, 83}

// anAddress draws from two small blocks of the world.
func (c *cell) anAddress(t *rapid.T) netip.Addr {
	text := rapid.SampledFrom([]string{"203.N.1.", "fd01:N:1::"}).Draw(t, "block")
	return netip.MustParseAddr(c.addr(text) + fmt.Sprint(rapid.IntRange(1, 9).Draw(t, "last")))
}

func (c *cell) aDestination(t *rapid.T) string {
	first := c.anAddress(t)
	switch rapid.IntRange(0, 2).Draw(t, "form") {
	case 0:
		return first.String()
	case 1:
		return fmt.Sprintf("%s/%d", first, first.BitLen()-rapid.IntRange(0, 4).Draw(t, "free bits"))
	}
	last := first
	for range rapid.IntRange(0, 4).Draw(t, "more") {
		last = last.Next()
	}
	return fmt.Sprintf("%s-%s", first, last)
}

func (c *cell) someDestinations(t *rapid.T, label string, least int) []string {
	return rapid.SliceOfN(rapid.Custom(c.aDestination), least, 3).Draw(t, label)
}

func (c *cell) aRule(t *rapid.T) lrp.EgressRule {
	r := lrp.EgressRule{
		Protocol:     rapid.SampledFrom([]string{"tcp", "udp", "icmp", "icmpv6", "all"}).Draw(t, "protocol"),
		Destinations: c.someDestinations(t, "destinations", 1), Log: rapid.Bool().Draw(t, "log"),
	}
	port := rapid.Custom(func(t *rapid.T) uint32 { return uint32(rapid.SampledFrom(randomPorts).Draw(t, "port")) })
	switch r.Protocol {
	case "icmp", "icmpv6":
		r.ICMP = &lrp.ICMP{
			Type: rapid.SampledFrom([]int32{-1, 8, 128, 0}).Draw(t, "type"), Code: rapid.SampledFrom([]int32{-1, 0, 1}).Draw(t, "code"),
		}
	case "tcp", "udp":
		if rapid.Bool().Draw(t, "range") {
			a, b := port.Draw(t, "a"), port.Draw(t, "b")
			r.PortRange = &lrp.PortRange{Start: min(a, b), End: max(a, b)}
		} else {
			r.Ports = rapid.SliceOfN(port, 1, 3).Draw(t, "ports")
		}
	}
	return r
}

// aQuestion returns what to ask, and the packet that it is.
func (c *cell) aQuestion(t *rapid.T) (network, address string, packet firewall.Packet) {
	packet.To = c.anAddress(t)
	if rapid.IntRange(0, 3).Draw(t, "echo") == 0 {
		if packet.To.Is4() {
			packet.Protocol, packet.Message.Type = firewall.ICMP, 8
			return "icmp", packet.To.String(), packet
		}
		packet.Protocol, packet.Message.Type = firewall.ICMPv6, 128
		return "icmpv6", packet.To.String(), packet
	}
	packet.Port = uint16(rapid.SampledFrom(randomPorts).Draw(t, "port"))
	packet.Protocol, network = firewall.TCP, "tcp"
	if rapid.Bool().Draw(t, "udp") {
		packet.Protocol, network = firewall.UDP, "udp"
	}
	return network, netip.AddrPortFrom(packet.To, packet.Port).String(), packet
}
