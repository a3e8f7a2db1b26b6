package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/firewall"
)

// inside is set in the environment of the process that has a network of its own.
const inside = "MUSTER_NFT_TEST_INSIDE"

// TestMain runs all tests in a network namespace, which is the cell of all of them, and in a mount
// namespace for a /sys that shows it. Nothing of them is on the machine, whatever becomes of them.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the child lives as long as the thread
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func prepare() error {
	return errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("sysfs", "/sys", "sysfs", 0, ""),
		run("ip", "link", "set", "lo", "up"),
		set("net/ipv4/ip_forward", "1"),
		set("net/ipv6/conf/all/forwarding", "1"),
		set("net/ipv4/icmp_ratelimit", "0"), // tests ask more often than a second
		set("net/ipv6/icmp/ratelimit", "0"),
		// With it, frames between the ports of a bridge would pass the chains of inet too.
		set("net/bridge/bridge-nf-call-iptables", "0"),
	)
}

func set(name, value string) error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func ip(t testing.TB, words string, args ...any) {
	t.Helper()
	if err := run("ip", strings.Fields(fmt.Sprintf(words, args...))...); err != nil {
		t.Fatal(err)
	}
}

// space is a network namespace; it ends with its test.
type space struct {
	tid   int
	calls chan func()
}

func newSpace(t testing.TB) *space {
	s := &space{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, and with it the namespace, ends here
		s.tid = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for call := range s.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(s.calls) })
	s.do(func() {
		ip(t, "link set lo up")
		if err := set("net/ipv4/icmp_ratelimit", "0"); err != nil {
			t.Error(err)
		}
	})
	return s
}

// do calls a function in the namespace. Sockets that it opens stay there.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// cell is a bridge, with the world beyond it.
type cell struct {
	n       int // tells the cells of a run apart
	cfg     Config
	outside *space
	hosts   int
}

var cells atomic.Int32

// newCell makes a cell with the addresses 10.N.0.1 and fd00:N::1, and a world beyond it that has all of
// 203.N.0.2, 203.N.1.0/24, fd01:N::2 and fd01:N:1::0 to 9. An N in the policy is the cell's too.
func newCell(t testing.TB, policy firewall.Config) *cell {
	t.Helper()
	n := int(cells.Add(1))
	for _, list := range []*[]string{&policy.DNS, &policy.Deny, &policy.Allow} {
		text := strings.ReplaceAll(strings.Join(*list, " "), "N", fmt.Sprint(n))
		*list = strings.Fields(text)
	}
	compiled, err := policy.Compile()
	if err != nil {
		t.Fatal(err)
	}
	c := &cell{n: n, cfg: Config{Table: fmt.Sprintf("muster-test-%d", n), Bridge: fmt.Sprintf("br%d", n), Policy: compiled}}
	ip(t, "link add %s type bridge", c.cfg.Bridge)
	ip(t, "addr add 10.%d.0.1/16 dev %s", n, c.cfg.Bridge)
	ip(t, "addr add fd00:%d::1/64 dev %s nodad", n, c.cfg.Bridge)
	ip(t, "link set %s up", c.cfg.Bridge)

	c.outside = newSpace(t)
	ip(t, "link add out%d type veth peer name eth0 netns %d", n, c.outside.tid)
	ip(t, "addr add 203.%d.0.1/16 dev out%d", n, n)
	ip(t, "addr add fd01:%d::1/32 dev out%d nodad", n, n)
	ip(t, "link set out%d up", n)
	c.outside.do(func() {
		ip(t, "addr add 203.%d.0.2/16 dev eth0", n)
		ip(t, "addr add fd01:%d::2/32 dev eth0 nodad", n)
		ip(t, "link set eth0 up")
		ip(t, "route add local 203.%d.1.0/24 dev lo", n)
		for i := range 10 {
			ip(t, "addr add fd01:%d:1::%d/128 dev lo nodad", n, i)
		}
		ip(t, "route add 10.%d.0.0/16 via 203.%d.0.1", n, n)
		ip(t, "route add fd00:%d::/64 via fd01:%d::1", n, n)
	})
	ip(t, "route add 203.%d.1.0/24 via 203.%d.0.2", n, n)
	ip(t, "route add fd01:%d:1::/64 via fd01:%d::2", n, n)
	t.Cleanup(func() {
		if err := Destroy(c.cfg.Table); err != nil {
			t.Error(err)
		}
		ip(t, "link del %s", c.cfg.Bridge)
	})
	return c
}

func (c *cell) open(t testing.TB) *Firewall {
	t.Helper()
	f, err := Open(c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// addr returns an address of the cell's world: "203.N.0.2" with N replaced.
func (c *cell) addr(text string) string { return strings.ReplaceAll(text, "N", fmt.Sprint(c.n)) }

// host is a container as far as its network goes.
type host struct {
	*space
	id        engine.ID
	link      Link
	addresses []netip.Addr
}

// newHost makes a container with the next addresses, from 10.N.0.2 and fd00:N::2.
func (c *cell) newHost(t testing.TB) *host {
	t.Helper()
	c.hosts++
	last := c.hosts + 1
	h := &host{space: newSpace(t), id: engine.ID(fmt.Sprintf("app-%d-%d", c.n, c.hosts)), link: Link{Device: fmt.Sprintf("v%d.%d", c.n, c.hosts)}}
	h.addresses = []netip.Addr{
		netip.MustParseAddr(c.addr(fmt.Sprintf("10.N.0.%d", last))), netip.MustParseAddr(c.addr(fmt.Sprintf("fd00:N::%x", last))),
	}
	ip(t, "link add %s type veth peer name eth0 netns %d", h.link.Device, h.tid)
	ip(t, "link set %s master %s up", h.link.Device, c.cfg.Bridge)
	h.do(func() {
		ip(t, "addr add %s/16 dev eth0", h.addresses[0])
		ip(t, "addr add %s/64 dev eth0 nodad", h.addresses[1])
		ip(t, "link set eth0 up")
		ip(t, "route add default via 10.%d.0.1", c.n)
		ip(t, "route add default via fd00:%d::1", c.n)
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Error(err)
			return
		}
		h.link.MAC = device.HardwareAddr
	})
	return h
}

// apply gives a container these rules.
func (h *host) apply(t testing.TB, f *Firewall, rules ...lrp.EgressRule) {
	t.Helper()
	set, err := firewall.Compile(rules, h.addresses)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(h.id, h.link, set); err != nil {
		t.Fatal(err)
	}
}

// rule returns a rule: all; tcp 80,443; tcp 1-9; icmp -1 -1.
func rule(protocol string, destinations ...string) lrp.EgressRule {
	words := strings.Fields(protocol)
	r := lrp.EgressRule{Protocol: words[0], Destinations: destinations}
	switch {
	case len(words) == 3:
		r.ICMP = &lrp.ICMP{}
		fmt.Sscan(words[1], &r.ICMP.Type)
		fmt.Sscan(words[2], &r.ICMP.Code)
	case len(words) == 2 && strings.Contains(words[1], "-"):
		r.PortRange = &lrp.PortRange{}
		fmt.Sscanf(words[1], "%d-%d", &r.PortRange.Start, &r.PortRange.End)
	case len(words) == 2:
		for port := range strings.SplitSeq(words[1], ",") {
			var n uint32
			fmt.Sscan(port, &n)
			r.Ports = append(r.Ports, n)
		}
	}
	return r
}
