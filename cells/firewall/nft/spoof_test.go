package nft

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestContainersSendAsThemselvesOnly(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	a.apply(t, f)
	b.apply(t, f, rule("all", "0.0.0.0/0", "::/0"))
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	heard := make(chan string, 10)
	c.outside.do(func() {
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: 99})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { u.Close() })
		go func() {
			data := make([]byte, 100)
			for {
				n, err := u.Read(data)
				if err != nil {
					return
				}
				heard <- string(data[:n])
			}
		}()
	})
	// send sends to the world from an address, which may be another's.
	send := func(h *host, from netip.Addr, text string) {
		to := c.addr("203.N.0.2:99")
		if from.Is6() {
			to = c.addr("[fd01:N::2]:99")
		}
		h.do(func() {
			u, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
			if err != nil {
				t.Error(err)
				return
			}
			defer u.Close()
			u.Write([]byte(text))
		})
	}
	a.do(func() {
		ip(t, "addr add %s/32 dev eth0", b.addresses[0])
		ip(t, "addr add %s/128 dev eth0 nodad", b.addresses[1])
	})
	send(a, b.addresses[0], "by the address of another")
	send(a, b.addresses[1], "by the IPv6 address of another")
	a.do(func() { ip(t, "link set eth0 address %s", b.link.MAC) })
	send(a, b.addresses[0], "by address and MAC of another")
	a.do(func() { ip(t, "link set eth0 address %s", a.link.MAC) })
	send(b, b.addresses[0], "by itself")
	send(b, b.addresses[1], "by itself, IPv6")
	got := []string{<-heard, <-heard}
	slices.Sort(got)
	if want := []string{"by itself", "by itself, IPv6"}; !slices.Equal(got, want) {
		t.Errorf("the world heard %q, want %q", got, want)
	}
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
}
