package portmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

// inside is set in the environment of the process that has a network of its own.
const inside = "MUSTER_PORTMAP_TEST_INSIDE"

// TestMain runs all tests in a network namespace, which is the machine of all of them.
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
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

// The machine: a bridge, and two containers behind it.
const (
	bridge  = "br0"
	gateway = "10.77.0.1"
)

var (
	first, second = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.3")
	spaces        = map[netip.Addr]*space{}
)

func prepare() error {
	err := errors.Join(run("ip link set lo up"), run("ip link add br0 type bridge"), run("ip addr add 10.77.0.1/24 dev br0"), run("ip link set br0 up"),
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	for i, address := range []netip.Addr{first, second} {
		s, made := newSpace()
		spaces[address] = s
		err = errors.Join(err, made, run(fmt.Sprintf("ip link add v%d type veth peer name eth0 netns %d", i, s.tid)),
			run(fmt.Sprintf("ip link set v%d master br0 up", i)), run(fmt.Sprintf("bridge link set dev v%d hairpin on", i)))
		s.do(func() {
			err = errors.Join(err, run("ip link set lo up"), run("ip addr add "+address.String()+"/24 dev eth0"), run("ip link set eth0 up"),
				run("ip route add default via "+gateway), s.serve(address))
		})
	}
	return err
}

func run(words string) error {
	args := strings.Fields(words)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", words, err, out)
	}
	return nil
}

// space is the network namespace of a container.
type space struct {
	tid   int
	calls chan func()
}

func newSpace() (*space, error) {
	s := &space{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		s.tid = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for call := range s.calls {
			call()
		}
	}()
	return s, <-ready
}

// do calls a function in the namespace.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// serve answers on port 8080 with the address of the container.
func (s *space) serve(address netip.Addr) error {
	l, err := net.Listen("tcp4", "0.0.0.0:8080")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, address)
			c.Close()
		}
	}()
	return nil
}

// answer is who answers on the host port; empty: nobody.
func answer(address string) string {
	c, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(context.Background(), "tcp4", address)
	if err != nil {
		return ""
	}
	defer c.Close()
	text, _ := io.ReadAll(c)
	return string(text)
}

func open(t *testing.T) *Mapper {
	t.Helper()
	m, err := New(Config{Table: "test-ports", Bridge: bridge, Subnet: netip.MustParsePrefix("10.77.0.0/24")})
	check(t, err)
	t.Cleanup(func() { check(t, m.Remove()) })
	return m
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ports(hosts ...uint16) []engine.Port {
	var all []engine.Port
	for _, host := range hosts {
		all = append(all, engine.Port{Host: host, Container: 8080})
	}
	return all
}

func want(t *testing.T, address, who string) {
	t.Helper()
	if got := answer(address); got != who {
		t.Errorf("%s is answered by %q, want %q", address, got, who)
	}
}

func TestHostPortsReachTheirContainer(t *testing.T) {
	m := open(t)
	check(t, m.Map("one", first, ports(30001, 30002)))
	check(t, m.Map("two", second, ports(30003)))
	for port, who := range map[int]netip.Addr{30001: first, 30002: first, 30003: second} {
		for _, host := range []string{"127.0.0.1", gateway} {
			want(t, fmt.Sprintf("%s:%d", host, port), who.String())
		}
	}
	for _, from := range []netip.Addr{first, second} { // a neighbour, and the container itself
		spaces[from].do(func() { want(t, gateway+":30001", first.String()) })
	}
	if ids, err := m.List(); err != nil || !slices.Equal(ids, []engine.ID{"one", "one", "two"}) {
		t.Errorf("mapped %v, %v", ids, err)
	}
	check(t, m.Unmap("one"))
	want(t, "127.0.0.1:30001", "")
	want(t, "127.0.0.1:30002", "")
	want(t, "127.0.0.1:30003", second.String())
	check(t, m.Unmap("one"))
}

func TestAHostPortHasOneContainer(t *testing.T) {
	m := open(t)
	check(t, m.Map("one", first, ports(30001)))
	err := m.Map("two", second, ports(30002, 30001))
	if err == nil || !strings.Contains(err.Error(), "host port 30001 is mapped to container one already") {
		t.Errorf("taken port: %v", err)
	}
	want(t, "127.0.0.1:30002", "")
	check(t, m.Unmap("two"))
	want(t, "127.0.0.1:30001", first.String())
}

func TestALaterLifeFindsWhatIsMapped(t *testing.T) {
	check(t, open(t).Map("one", first, ports(30001)))
	m := open(t)
	if err := m.Map("two", second, ports(30001)); err == nil {
		t.Error("the port of an earlier life was taken")
	}
	check(t, m.Map("two", second, ports(30002)))
	want(t, "127.0.0.1:30001", first.String())
	c, err := nftables.New()
	check(t, err)
	for _, chain := range m.chains() {
		rules, err := c.GetRules(m.table, chain.Chain)
		if err != nil || len(rules) != len(chain.rules) {
			t.Errorf("chain %s has %d rules, %v: want %d, as in the first life", chain.Name, len(rules), err, len(chain.rules))
		}
	}
	check(t, open(t).Unmap("one"))
	want(t, "127.0.0.1:30001", "")
	want(t, "127.0.0.1:30002", second.String())
}

func TestRulesThatWereFlushedAreMadeAgain(t *testing.T) {
	m := open(t)
	check(t, m.Map("one", first, ports(30001)))
	check(t, open(t).Remove())
	check(t, m.Map("two", second, ports(30001)))
	want(t, "127.0.0.1:30001", second.String())
	check(t, open(t).Remove())
	check(t, m.Unmap("two"))
}

func TestBadConfigurationIsRefused(t *testing.T) {
	for _, cfg := range []Config{{Table: "-", Subnet: netip.MustParsePrefix("10.0.0.0/8")}, {Table: "x", Subnet: netip.MustParsePrefix("fd00::/8")}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
	if err := open(t).Map("one", netip.IPv6Loopback(), ports(1)); err == nil {
		t.Error("an IPv6 address was taken")
	}
}
