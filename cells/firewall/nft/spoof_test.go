package nft

import (
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/cells/firewall"
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

// A bridge sends what is for a MAC to where it saw that MAC last, and the cell what is for an address
// to the MAC that said so last.
func TestFramesThatWouldDivertOthers(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	for _, h := range []*host{a, b} {
		h.apply(t, f)
		refused(t, h.space, "icmp", c.addr("10.N.0.1")) // so that bridge and cell know them
	}
	own, others := a.addresses[0].AsSlice(), b.addresses[0].AsSlice()
	arp := func(from, sender net.HardwareAddr, address []byte) []byte {
		return slices.Concat([]byte{255, 255, 255, 255, 255, 255}, from, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, sender, address, make([]byte, 6), address)
	}
	for name, frame := range map[string][]byte{
		"ARP by the MAC of another":             arp(b.link.MAC, a.link.MAC, own),
		"ARP that names the MAC of another":     arp(a.link.MAC, b.link.MAC, own),
		"ARP that names the address of another": arp(a.link.MAC, a.link.MAC, others),
		"another protocol":                      slices.Concat(b.link.MAC, b.link.MAC, []byte{0x88, 0xb5}, make([]byte, 46)),
	} {
		a.do(func() { sendFrame(t, frame) })
		for _, h := range []*host{a, b} {
			if at := output(t, "bridge", "fdb", "show", "br", c.cfg.Bridge); !strings.Contains(at, h.link.MAC.String()+" dev "+h.link.Device+" ") {
				t.Errorf("%s: the bridge knows\n%s\nwant %s at %s", name, at, h.link.MAC, h.link.Device)
			}
			if at := output(t, "ip", "neigh", "show", h.addresses[0].String(), "dev", c.cfg.Bridge); !strings.Contains(at, h.link.MAC.String()) {
				t.Errorf("%s: the cell knows %s, want %s", name, at, h.link.MAC)
			}
		}
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sendFrame sends a frame by eth0 of the thread's network namespace.
func sendFrame(t *testing.T, frame []byte) {
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Error(err)
		return
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index}); err != nil {
		t.Error(err)
	}
}

func TestADeviceWithoutRules(t *testing.T) {
	t.Parallel()
	c := newCell(t, firewall.Config{DNS: []string{"203.N.0.2", "10.N.0.1"}, Allow: []string{"203.N.0.2", "fd01:N::2"}, LogRate: 1})
	c.outside.serve(t, 53, 80)
	resolver := listen(t, c.addr("10.N.0.1:53"))
	a := c.newHost(t)
	c.open(t)
	for _, address := range []string{"203.N.0.2:53", "203.N.0.2:80", "[fd01:N::2]:80"} {
		refused(t, a.space, "tcp", c.addr(address))
	}
	refused(t, a.space, "tcp", resolver)
}
