package containerd

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/firewall/nft"
)

// outside makes a host behind the cell, which answers on a port, and returns its address.
func outside(t *testing.T, port string) string {
	t.Helper()
	name := fmt.Sprintf("mo%d.%d", os.Getpid()%100000, cellNumber.Add(1))
	ip := func(words string, args ...any) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(fmt.Sprintf(words, args...))...).CombinedOutput(); err != nil {
			t.Fatalf("ip "+words+": %v: %s", append(args, err, out)...)
		}
	}
	net := fmt.Sprintf("198.18.%d.", os.Getpid()%250) // of RFC 2544: nobody else's
	ip("netns add %s", name)
	t.Cleanup(func() { ip("netns delete %s", name) })
	ip("link add %s type veth peer name eth0 netns %s", name, name)
	ip("address add %s1/30 dev %s", net, name)
	ip("link set %s up", name)
	ip("-n %s address add %s2/30 dev eth0", name, net)
	ip("-n %s link set eth0 up", name)
	ip("-n %s link set lo up", name)
	ip("-n %s route add default via %s1", name, net)

	server := exec.Command("ip", "netns", "exec", name, build(t, "muster/cells/engine/enginetest/cmd/probe"), "serve", port)
	out, err := server.StdoutPipe()
	check(t, err)
	check(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the server says %q, %v", line, err)
	}
	return net + "2"
}

// open asks a program in a container whether it can connect somewhere.
func open(t *testing.T, c engine.Container, address string) bool {
	t.Helper()
	switch said := strings.TrimSpace(get(t, fmt.Sprintf("http://%s:8080/?%s", c.Address, address))); {
	case said == "open":
		return true
	case strings.Contains(said, "connection refused"): // answered, so that programs do not wait
		return false
	default:
		t.Fatalf("a connection to %s: %s", address, said)
		return false
	}
}

// §24 "Egress": a container reaches nothing but what its rules name: not what is outside, not other containers, and
// nothing of the cell. Rules that somebody removed are given again, and what a container had goes with it.
func TestEgress(t *testing.T) { // not parallel: its addresses are the same in each run
	s := newStack(t)
	e := s.engine(t)
	check(t, e.Own())
	url := s.archive(t, "app.tar", appConfig)
	there := outside(t, "9000")
	start := func(id engine.ID, egress ...lrp.EgressRule) engine.Container {
		t.Helper()
		spec := probeSpec(id, url, "ask", "8080")
		spec.Egress = egress
		made, err := e.Create(t.Context(), spec)
		check(t, err)
		check(t, e.Start(t.Context(), id))
		awaitListening(t, made.Address+":8080")
		return made
	}
	to := func(address string, ports ...uint32) lrp.EgressRule {
		return lrp.EgressRule{Protocol: "tcp", Destinations: []string{address}, Ports: ports}
	}
	before := s.traces(t)
	none := start("none")
	one := start("one", to(there, 9000))
	other := start("other", to(there, 9001), to(none.Address, 8080))
	cell := fmt.Sprintf("%s:%s", netip.MustParsePrefix(s.cfg.Subnet).Addr().Next(), "22")
	checkAll := func() {
		t.Helper()
		for address, from := range map[string][]engine.Container{
			there + ":9000":        {one},
			none.Address + ":8080": {other},
			cell:                   nil,
		} {
			for _, c := range []engine.Container{none, one, other} {
				if c.Address+":8080" == address {
					continue // its own
				}
				if got, want := open(t, c, address), slices.ContainsFunc(from, func(f engine.Container) bool { return f.ID == c.ID }); got != want {
					t.Errorf("%s reaches %s: %v, want %v", c.ID, address, got, want)
				}
			}
		}
	}
	checkAll()

	if err := nft.Destroy(s.cfg.Namespace); err != nil {
		t.Fatal(err)
	}
	if _, err := e.List(t.Context()); err != nil { // as the rep does, now and then
		t.Fatal(err)
	}
	checkAll()

	if got := s.traces(t); slices.Equal(got, before) || !slices.ContainsFunc(got, func(trace string) bool { return trace == "egress one" }) {
		t.Errorf("the traces of three containers are %q", got)
	}
	for _, c := range []engine.Container{none, one, other} {
		if err := e.Destroy(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	if after := s.traces(t); !slices.Equal(before, after) {
		t.Errorf("left behind: %q, want %q", after, before)
	}
}
