package nft

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/bbs/lrp"
	"muster/cells/firewall"
)

func policy() firewall.Config { return firewall.Config{LogRate: 1} }

// refused fails the test unless a question was answered by a rejection, at once.
func refused(t *testing.T, h *space, network, address string) {
	t.Helper()
	began := time.Now()
	err := h.ask(network, address)
	if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s %s: %v, want a rejection", network, address, err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("%s %s was rejected after %v", network, address, took)
	}
}

// silent fails the test unless a question got no answer.
func silent(t *testing.T, h *space, network, address string) {
	t.Helper()
	if err := h.ask(network, address); err == nil {
		t.Errorf("%s %s was answered", network, address)
	}
}

func answered(t *testing.T, h *space, network, address string) {
	t.Helper()
	if err := h.ask(network, address); err != nil {
		t.Errorf("%s %s: %v", network, address, err)
	}
}

func TestRulesOpenWhatTheyName(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80, 81, 90)
	a := c.newHost(t)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80")) // the world works
	f := c.open(t)
	questions := []struct{ network, address string }{
		{"tcp", "203.N.0.2:80"}, {"tcp", "203.N.0.2:81"}, {"tcp", "203.N.1.7:80"}, {"tcp", "[fd01:N::2]:80"},
		{"udp", "203.N.0.2:80"}, {"udp", "203.N.0.2:90"}, {"udp", "[fd01:N::2]:90"},
		{"icmp", "203.N.0.2"}, {"icmpv6", "fd01:N::2"},
	}
	for _, c2 := range []struct {
		name  string
		rules []lrp.EgressRule
		open  []int // numbers of the questions that are answered
	}{
		{"no rules", nil, nil},
		{"a port", []lrp.EgressRule{rule("tcp 80", "203.N.0.2")}, []int{0}},
		{"ports and a block", []lrp.EgressRule{rule("tcp 80,81,443", "203.N.0.0/24", "8.8.8.8")}, []int{0, 1}},
		{"a range of addresses", []lrp.EgressRule{rule("tcp 80", "203.N.1.6-203.N.1.8")}, []int{2}},
		{"a range of ports", []lrp.EgressRule{rule("udp 81-65535", "0.0.0.0/0,::/0")}, []int{5, 6}},
		{"everything of IPv6", []lrp.EgressRule{rule("all", "::/0")}, []int{3, 6, 8}},
		{"everything of IPv4", []lrp.EgressRule{rule("all", "0.0.0.0/0")}, []int{0, 1, 2, 4, 5, 7}},
		{"any message", []lrp.EgressRule{rule("icmp -1 -1", "203.N.0.2")}, []int{7}},
		{"a message", []lrp.EgressRule{rule("icmp 8 0", "203.N.0.2"), rule("icmpv6 128 -1", "fd01:N::/32")}, []int{7, 8}},
		{"another message", []lrp.EgressRule{rule("icmp 8 1", "203.N.0.2"), rule("icmpv6 129 -1", "fd01:N::/32")}, nil},
		{"several rules", []lrp.EgressRule{rule("tcp 80", "203.N.1.7"), rule("udp 80", "203.N.0.2"), rule("icmp 8 0", "203.N.0.2")}, []int{2, 4, 7}},
	} {
		for i := range c2.rules {
			for j, d := range c2.rules[i].Destinations {
				c2.rules[i].Destinations[j] = c.addr(d)
			}
		}
		a.apply(t, f, c2.rules...)
		for i, q := range questions {
			if len(c2.open) > 0 && c2.open[0] == i {
				c2.open = c2.open[1:]
				answered(t, a.space, q.network, c.addr(q.address))
			} else {
				refused(t, a.space, q.network, c.addr(q.address))
			}
		}
		if t.Failed() {
			t.Fatalf("with %s", c2.name)
		}
	}
}
