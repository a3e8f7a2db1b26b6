package nft

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// talk exchanges a message over UDP, from a port that stays the same.
func (h *host) talk(t *testing.T, from, to string) error {
	t.Helper()
	var c net.Conn
	var err error
	h.do(func() {
		local := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
		c, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(answerTime))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 10))
	return err
}

func TestNobodyGoesOnWithConnectionsOfTheDead(t *testing.T) {
	t.Parallel()
	for name, removed := range map[string]bool{"removed": true, "taken over from": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testDead(t, removed)
		})
	}
}

// testDead gives the addresses of a container that is gone to another one.
func testDead(t *testing.T, removed bool) {
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	ends := func(h *host, is6 bool) (from, to string) {
		if is6 {
			return fmt.Sprintf("[%s]:5000", h.addresses[1]), c.addr("[fd01:N::2]:80")
		}
		return fmt.Sprintf("%s:5000", h.addresses[0]), c.addr("203.N.0.2:80")
	}
	for _, h := range []*host{a, b} {
		h.apply(t, f, rule("udp 80", c.addr("203.N.0.2"), c.addr("fd01:N::2")))
		for _, is6 := range []bool{false, true} {
			from, to := ends(h, is6)
			if err := h.talk(t, from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	if removed {
		if err := f.Remove(a.id); err != nil {
			t.Fatal(err)
		}
		f = c.open(t) // a later life knows
		if got := union(f.dead, nil); !slices.Equal(got, a.addresses) {
			t.Errorf("dead are %v, want %v", got, a.addresses)
		}
	}
	b.apply(t, f)
	next := *a
	next.id += "-next"
	next.apply(t, f)
	next.apply(t, f)
	if f = c.open(t); len(f.dead) > 0 {
		t.Errorf("dead are %v after their connections were forgotten", f.dead)
	}
	for _, is6 := range []bool{false, true} {
		from, to := ends(&next, is6)
		if err := next.talk(t, from, to); err == nil {
			t.Errorf("the next container with the address goes on talking to %s", to)
		}
		from, to = ends(b, is6)
		if err := b.talk(t, from, to); err != nil {
			t.Errorf("another container does not: %v", err)
		}
	}
}

// Connections that come in have the container's address only as the source of their answers.
func TestInvolves(t *testing.T) {
	t.Parallel()
	client, cell, container := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("10.254.1.2")
	in := conntrack.NewFlow(unix.IPPROTO_TCP, 0, client, cell, 5000, 61001, 1, 0)
	in.TupleReply.IP = conntrack.IPTuple{SourceAddress: container, DestinationAddress: client}
	out := conntrack.NewFlow(unix.IPPROTO_TCP, 0, container, client, 5000, 80, 1, 0)
	out.TupleReply.IP.DestinationAddress = cell // masqueraded
	for name, flow := range map[string]conntrack.Flow{"in": in, "out": out} {
		if !involves(flow, []netip.Addr{container}) {
			t.Errorf("a connection that goes %s is not the container's", name)
		}
		if involves(flow, []netip.Addr{netip.MustParseAddr("10.254.1.3")}) {
			t.Errorf("a connection that goes %s is another's", name)
		}
	}
}

// BenchmarkForget forgets the connections of one container among those of others.
func BenchmarkForget(b *testing.B) {
	for _, others := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			c, err := conntrack.Dial(nil)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			if err := c.Flush(); err != nil {
				b.Fatal(err)
			}
			for i := range others {
				flow := conntrack.NewFlow(unix.IPPROTO_UDP, 0, netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}),
					netip.MustParseAddr("198.51.100.1"), uint16(1+i>>16), 80, 600, 0)
				if err := c.Create(flow); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := forget([]netip.Addr{netip.MustParseAddr("10.254.1.2")}); err != nil {
					b.Fatal(err)
				}
			}
			if err := c.Flush(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
