package nft

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"muster/bbs/lrp"
	"muster/cells/firewall"
)

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
