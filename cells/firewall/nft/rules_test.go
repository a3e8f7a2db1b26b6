package nft

import (
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/cells/firewall"
)

func policy() firewall.Config { return firewall.Config{LogRate: 1} }

// refused fails the test unless a question was answered by a rejection, at once.
// silent fails the test unless a question got no answer.
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

func TestOpenConnectionsOutliveTheirRule(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, f := c.newHost(t), c.open(t)
	a.apply(t, f, rule("tcp 80", c.addr("203.N.0.2")))
	conn, err := a.dial(c.addr("203.N.0.2:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo := func() {
		t.Helper()
		conn.SetDeadline(time.Now().Add(answerTime))
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	echo()
	a.apply(t, f)
	echo()
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
}

func TestContainersReachEachOtherByRuleOnly(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	b.serve(t, 80)
	toB := b.addresses[0].String() + ":80"
	answered(t, a.space, "tcp", toB) // over the bridge
	a.apply(t, f)
	b.apply(t, f)
	for _, h := range []*host{a, b} { // they have seen each other
		h.do(func() { ip(t, "neigh flush dev eth0") })
	}
	refused(t, a.space, "tcp", toB)
	silent(t, a.space, "tcp", "["+b.addresses[1].String()+"]:80")
	a.apply(t, f, rule("tcp 80", b.addresses[0].String()))
	answered(t, a.space, "tcp", toB)
	a.serve(t, 80)
	refused(t, b.space, "tcp", a.addresses[0].String()+":80")
}

func TestTheCellItself(t *testing.T) {
	t.Parallel()
	everything := rule("all", "0.0.0.0/0", "::/0")
	for name, test := range map[string]struct {
		allowHost bool
		rules     []lrp.EgressRule
		want      func(*testing.T, *space, string, string)
	}{
		"a rule does not open it":      {false, []lrp.EgressRule{everything}, refused},
		"it is closed without a rule":  {true, nil, refused},
		"a rule opens it where it may": {true, []lrp.EgressRule{everything}, answered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCell(t, firewall.Config{DNS: []string{"10.N.0.1"}, AllowHost: test.allowHost, LogRate: 1})
			resolver := listen(t, c.addr("10.N.0.1:53"))
			a, f := c.newHost(t), c.open(t)
			a.apply(t, f, test.rules...)
			answered(t, a.space, "tcp", resolver)
			for _, address := range []string{"10.N.0.1:0", "[fd00:N::1]:0", "203.N.0.1:0"} {
				test.want(t, a.space, "tcp", listen(t, c.addr(address)))
			}
			test.want(t, a.space, "icmp", c.addr("10.N.0.1"))
		})
	}
}

func TestWhatTheOperatorSays(t *testing.T) {
	t.Parallel()
	c := newCell(t, firewall.Config{
		DNS: []string{"203.N.1.53"}, Deny: []string{"203.N.1.0/24", "fd01:N::2"}, Allow: []string{"203.N.0.2", "203.N.1.1"}, LogRate: 1,
	})
	c.outside.serve(t, 53, 80)
	a, f := c.newHost(t), c.open(t)
	a.apply(t, f, rule("all", "0.0.0.0/0", "::/0"))
	answered(t, a.space, "udp", c.addr("203.N.1.53:53"))
	answered(t, a.space, "tcp", c.addr("203.N.1.53:53"))
	refused(t, a.space, "tcp", c.addr("203.N.1.53:80"))
	refused(t, a.space, "udp", c.addr("203.N.1.1:80"))
	refused(t, a.space, "tcp", c.addr("[fd01:N::2]:80"))
	a.apply(t, f)
	answered(t, a.space, "udp", c.addr("203.N.0.2:80"))
	refused(t, a.space, "tcp", c.addr("203.N.0.1:80"))

	c.cfg.Policy = firewall.Policy{LogRate: 1} // a later life of the cell
	f = c.open(t)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	refused(t, a.space, "udp", c.addr("203.N.1.53:53"))
}

// As many rules and destinations as there may be are one transaction too.
