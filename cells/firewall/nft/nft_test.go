package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/bbs/lrp"
	"muster/cells/engine"
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

func TestALaterLifeFindsContainers(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	a.apply(t, f, rule("tcp 80", c.addr("203.N.0.2")))
	b.apply(t, f, rule("tcp 80", c.addr("203.N.0.2")))
	wantList(t, f, a.id, b.id)

	f = c.open(t)
	wantList(t, f, a.id, b.id)
	if diff := cmp.Diff(sender{b.link, b.addresses, f.known[a.id].chain}, f.known[b.id], cmp.AllowUnexported(sender{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	for range 2 { // the second finds nothing
		if err := f.Remove(a.id); err != nil {
			t.Fatal(err)
		}
	}
	wantList(t, f, b.id)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	b.apply(t, f)
	refused(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	if err := f.Remove(b.id); err != nil {
		t.Fatal(err)
	}
	wantList(t, f)
	for is6, set := range map[bool]*nftables.Set{false: f.tables.from4, true: f.tables.from6} {
		for _, s := range []*nftables.Set{set, f.tables.known(is6), f.tables.ports, f.tables.neighbours} {
			conn, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			if left, err := conn.GetSetElements(s); err != nil || len(left) > 0 {
				t.Errorf("%s has %v, %v", s.Name, left, err)
			}
		}
	}
}

// chains returns how many chains there are for containers.
func chains(t *testing.T, table string) int {
	t.Helper()
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range all {
		if c.Table.Name == table && (strings.HasPrefix(c.Name, containerPrefix) || strings.HasPrefix(c.Name, sharedPrefix)) {
			n++
		}
	}
	return n
}

func TestContainersWithTheSameRulesShareAChain(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	want := func(n int) {
		t.Helper()
		if got := chains(t, c.cfg.Table); got != n {
			t.Errorf("there are %d chains, want %d", got, n)
		}
	}
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, f, open)
	b.apply(t, f, open)
	want(1)
	a.apply(t, f)
	want(2)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	f = c.open(t)
	a.apply(t, f, open)
	want(1)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	if err := f.Remove(b.id); err != nil {
		t.Fatal(err)
	}
	want(1)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	open.Log = true
	a.apply(t, f, open)
	want(1)
	b.apply(t, f, open)
	want(2) // the log says who it was
	for _, h := range []*host{a, b} {
		if err := f.Remove(h.id); err != nil {
			t.Fatal(err)
		}
	}
	want(0)
}

func wantList(t *testing.T, f *Firewall, want ...engine.ID) {
	t.Helper()
	if got, err := f.List(); err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %q, %v; want %q", got, err, want)
	}
}

func TestTablesThatSomebodyRemoved(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, f, open)
	b.apply(t, f, open)
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	wantList(t, f)
	a.apply(t, f, open)
	wantList(t, f, a.id)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	refused(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(a.id); err != nil { // without a List before
		t.Error(err)
	}
	wantList(t, f)
}

func TestAnAddressThatAnotherContainerHad(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, f := c.newHost(t), c.open(t)
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, f, open)
	next := *a
	next.id += "-next"
	next.apply(t, f)
	wantList(t, f, next.id)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	if err := f.Remove(a.id); err != nil { // late; it must not hit the next
		t.Fatal(err)
	}
	next.apply(t, f, open)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	wantList(t, f, next.id)
}

func TestOtherTablesStay(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	// One of another cell with a name that begins alike, and one of the same name in another family.
	other := []*nftables.Table{
		{Name: c.cfg.Table + "0", Family: nftables.TableFamilyINet}, {Name: c.cfg.Table, Family: nftables.TableFamilyIPv4},
	}
	for _, table := range other {
		conn.AddTable(table)
		chain := conn.AddChain(&nftables.Chain{Table: table, Name: containerPrefix + "foreign"})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}}})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	a, f := c.newHost(t), c.open(t)
	a.apply(t, f)
	wantList(t, f, a.id)
	if err := f.Remove(a.id); err != nil {
		t.Fatal(err)
	}
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	for _, table := range other {
		if rules, err := conn.GetRules(table, &nftables.Chain{Name: containerPrefix + "foreign"}); err != nil || len(rules) != 1 {
			t.Errorf("%s of family %d has rules %v, %v", table.Name, table.Family, rules, err)
		}
		conn.DelTable(table)
	}
	if err := conn.Flush(); err != nil {
		t.Error(err)
	}
}

func TestRulesThatLog(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, f := c.newHost(t), c.open(t)
	logs := rule("tcp 80", c.addr("203.N.0.2"), c.addr("203.N.1.0/24"))
	logs.Log = true
	a.apply(t, f, logs)
	for range 5 { // more than are logged
		answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	}
	refused(t, a.space, "udp", c.addr("203.N.0.2:80"))
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := conn.GetRules(f.tables.inet, &nftables.Chain{Name: containerPrefix + string(a.id)})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range rules {
		for i, e := range r.Exprs {
			if l, ok := e.(*expr.Log); ok {
				found++
				limit, limited := r.Exprs[i-1].(*expr.Limit)
				if string(l.Data) != string(a.id)+" " || !limited || limit.Rate != 1 || limit.Unit != expr.LimitTimeSecond {
					t.Errorf("logs as %q, at most %+v", l.Data, limit)
				}
			}
		}
	}
	if found != 1 {
		t.Errorf("%d rules log, want 1", found)
	}
}

// As many rules and destinations as there may be are one transaction too.
func TestTheLargestSet(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, f := c.newHost(t), c.open(t)
	rules := make([]lrp.EgressRule, firewall.MaxRules)
	for i := range rules {
		rules[i] = rule(fmt.Sprintf("tcp %d", 1000+i))
		for j := range firewall.MaxDestinations / firewall.MaxRules {
			rules[i].Destinations = append(rules[i].Destinations, fmt.Sprintf("198.%d.%d.%d", 2*j, i/256, i%256))
		}
	}
	var six []string
	for i := range 9_000 {
		six = append(six, fmt.Sprintf("2001:db8::%x", 2*i))
	}
	many := []lrp.EgressRule{rule("tcp 80", append(six, c.addr("203.N.0.2"))...)}
	for name, set := range map[string][]lrp.EgressRule{"rules": rules, "destinations of one rule": many} {
		began := time.Now()
		a.apply(t, f, set...)
		t.Logf("as many %s as there may be: %v", name, time.Since(began))
	}
	a.apply(t, f, many...)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	var ports []uint32
	for p := uint32(2); p <= 65_534; p += 2 {
		ports = append(ports, p)
	}
	a.apply(t, f, lrp.EgressRule{Protocol: "tcp", Destinations: []string{"0.0.0.0/0"}, Ports: ports})
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	refused(t, a.space, "tcp", c.addr("203.N.0.2:81"))
}

func TestErrorsNameFieldAndBound(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		`table is "": want 1 to 100`:         {Bridge: "b"},
		`table is "a b": want`:               {Table: "a b", Bridge: "b"},
		`bridge is "": want 1 to 15`:         {Table: "t"},
		`bridge is "sixteen-chars-it": want`: {Table: "t", Bridge: "sixteen-chars-it"},
	} {
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	c := newCell(t, policy())
	a, f := c.newHost(t), c.open(t)
	set, err := firewall.Compile(nil, a.addresses)
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		`id is "": want 1 to 64`:           f.Apply("", a.link, set),
		`id is "a/b": want`:                f.Apply("a/b", a.link, set),
		`mac is "": want 6 bytes`:          f.Apply("a", Link{Device: a.link.Device}, set),
		`device is "": want 1 to 15`:       f.Apply("a", Link{MAC: a.link.MAC}, set),
		`addresses is []: want 1 to 4`:     f.Apply("a", a.link, firewall.Set{}),
		`nosuch/brport/isolated: no such `: f.Apply("a", Link{Device: "nosuch", MAC: a.link.MAC}, set),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	wantList(t, f)
}
