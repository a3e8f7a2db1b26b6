package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
)

var both = []netip.Addr{netip.MustParseAddr("10.254.1.2"), netip.MustParseAddr("fd00:1::2")} // no rule of the tests names them

// read decides a packet by reading the rules as they were written, the last one first.
func read(rules []lrp.EgressRule, p Packet) Decision {
	for _, r := range slices.Backward(rules) {
		if !slices.ContainsFunc(r.Destinations, func(list string) bool {
			return slices.ContainsFunc(strings.Split(list, ","), func(d string) bool { return names(d, p.To) })
		}) {
			continue
		}
		message := r.ICMP != nil && (r.ICMP.Type == -1 || r.ICMP.Type == int32(p.Message.Type)) &&
			(r.ICMP.Code == -1 || r.ICMP.Code == int32(p.Message.Code))
		port := slices.Contains(r.Ports, uint32(p.Port)) ||
			r.PortRange != nil && r.PortRange.Start <= uint32(p.Port) && uint32(p.Port) <= r.PortRange.End
		matches := map[string]bool{
			"all":    true,
			"tcp":    p.Protocol == TCP && port,
			"udp":    p.Protocol == UDP && port,
			"icmp":   p.Protocol == ICMP && message && p.To.Is4(),
			"icmpv6": p.Protocol == ICMPv6 && message && p.To.Is6(),
		}
		if matches[r.Protocol] {
			return Decision{Accept, r.Log}
		}
	}
	return Decision{}
}

func names(destination string, a netip.Addr) bool {
	if first, last, ok := strings.Cut(destination, "-"); ok {
		from, to := netip.MustParseAddr(first), netip.MustParseAddr(last)
		return from.Is4() == a.Is4() && !a.Less(from) && !to.Less(a)
	}
	if strings.Contains(destination, "/") {
		return netip.MustParsePrefix(destination).Contains(a)
	}
	return netip.MustParseAddr(destination) == a
}

// anAddr draws from few addresses, at the ends of their families too, so that rules meet, touch and overlap.
func anAddr(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "is4") {
		b := rapid.SampledFrom([]byte{0, 10, 255}).Draw(t, "net")
		if b == 255 {
			return netip.AddrFrom4([4]byte{255, 255, 255, rapid.SampledFrom([]byte{253, 254, 255}).Draw(t, "host")})
		}
		return netip.AddrFrom4([4]byte{b, 0, 0, rapid.ByteRange(0, 9).Draw(t, "host")})
	}
	text := rapid.SampledFrom([]string{"::", "fd00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff"}).Draw(t, "net6")
	return netip.MustParseAddr(fmt.Sprintf("%s%x", text, rapid.IntRange(0, 15).Draw(t, "host6")))
}

func aDestination(t *rapid.T) string {
	a := anAddr(t)
	switch rapid.IntRange(0, 2).Draw(t, "form") {
	case 0:
		return a.String()
	case 1:
		return fmt.Sprintf("%s/%d", a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
	}
	b := rapid.Custom(anAddr).Filter(func(b netip.Addr) bool { return a.Is4() == b.Is4() }).Draw(t, "other end")
	if b.Less(a) {
		a, b = b, a
	}
	return a.String() + "-" + b.String()
}

func aRule(t *rapid.T) lrp.EgressRule {
	r := lrp.EgressRule{
		Protocol: rapid.SampledFrom([]string{"tcp", "udp", "icmp", "icmpv6", "all"}).Draw(t, "protocol"),
		Log:      rapid.Bool().Draw(t, "log"),
	}
	for range rapid.IntRange(1, 2).Draw(t, "elements") {
		r.Destinations = append(r.Destinations, strings.Join(rapid.SliceOfN(rapid.Custom(aDestination), 1, 3).Draw(t, "list"), ","))
	}
	port := rapid.SampledFrom([]uint32{1, 2, 3, 4, 5, 6, 7, 8, 65_534, 65_535, 65_536, 70_000})
	switch r.Protocol {
	case "tcp", "udp":
		if rapid.Bool().Draw(t, "range") {
			a, b := port.Draw(t, "start"), port.Draw(t, "end")
			r.PortRange = &lrp.PortRange{Start: min(a, b), End: max(a, b)}
		} else {
			r.Ports = rapid.SliceOfN(port, 1, 4).Draw(t, "ports")
		}
	case "icmp", "icmpv6":
		r.ICMP = &lrp.ICMP{Type: rapid.Int32Range(-1, 3).Draw(t, "type"), Code: rapid.Int32Range(-1, 3).Draw(t, "code")}
	}
	return r
}

func aPacket(t *rapid.T) Packet {
	p := Packet{To: anAddr(t), Protocol: rapid.SampledFrom([]Protocol{TCP, UDP, ICMP, ICMPv6, 47}).Draw(t, "protocol")}
	switch p.Protocol {
	case TCP, UDP:
		p.Port = rapid.SampledFrom([]uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 65_534, 65_535}).Draw(t, "port")
	case ICMP, ICMPv6:
		p.Message = Message{rapid.Int16Range(0, 3).Draw(t, "type"), rapid.Int16Range(0, 3).Draw(t, "code")}
	}
	return p
}

// F1, F2.
func TestCompiledRulesDecideAsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(aRule), 0, 8).Draw(t, "rules")
		set, err := Compile(rules, both)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set.Rules {
			checkForm(t, r)
		}
		for range 20 {
			p := aPacket(t)
			if got, want := (Policy{}).Decide(set, p), read(rules, p); got != want {
				t.Fatalf("%+v is decided %+v, read rule by rule it is %+v", p, got, want)
			}
		}
	})
}

func checkForm(t *rapid.T, r Rule) {
	for i, s := range r.To {
		if s.First.Is6() != r.Is6() || s.Last.Is6() != r.Is6() || s.Last.Less(s.First) {
			t.Fatalf("%v is no span of the rule's family", s)
		}
		if i > 0 && s.First.Compare(after(r.To[i-1].Last)) <= 0 {
			t.Fatalf("%v touches %v", r.To[i-1], s)
		}
	}
	for i, p := range r.Ports {
		if p.Last < p.First || i > 0 && int(p.First) <= int(r.Ports[i-1].Last)+1 {
			t.Fatalf("ports %v are out of order", r.Ports)
		}
	}
}

// F3.
func TestFamiliesThatTheContainerLacks(t *testing.T) {
	t.Parallel()
	rules := []lrp.EgressRule{
		{Protocol: "all", Destinations: []string{"0.0.0.0/0,::/0"}},
		{Protocol: "icmpv6", Destinations: []string{"0.0.0.0/0", "fd00::/8"}, ICMP: &lrp.ICMP{Type: -1, Code: -1}},
	}
	set, err := Compile(rules, both[:1])
	if err != nil {
		t.Fatal(err)
	}
	want := []Rule{{Verdict: Accept, To: []Span{{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255")}}}}
	if diff := cmp.Diff(want, set.Rules, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	all := Policy{Last: []Rule{{Verdict: Accept, To: []Span{block(netip.MustParsePrefix("::/0"))}}}}
	if d := all.Decide(set, Packet{To: both[1]}); d.Verdict != Reject {
		t.Error("IPv6 of a container without IPv6 is accepted")
	}
}

func TestRulesThatDifferInOneThingBecomeOne(t *testing.T) {
	t.Parallel()
	var rules []lrp.EgressRule
	for i := range 1_000 {
		rules = append(rules, lrp.EgressRule{Protocol: "tcp", Destinations: []string{fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)}, Ports: []uint32{443, 80}})
	}
	rules = append(rules, lrp.EgressRule{Protocol: "tcp", Destinations: []string{"10.0.0.0-10.3.231.255"}, Ports: []uint32{81}})
	set, err := Compile(rules, both)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Rules) != 1 || len(set.Rules[0].To) != 1 || !slices.Equal(set.Rules[0].Ports, []Ports{{80, 81}, {443, 443}}) {
		t.Errorf("compiled to %+v", set.Rules)
	}
}

func TestIPv4WrittenAsIPv6(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"::ffff:10.0.0.1":                  "10.0.0.1-10.0.0.1",
		"::ffff:10.0.0.77/120":             "10.0.0.0-10.0.0.255",
		"::ffff:10.0.0.1-::ffff:10.0.0.16": "10.0.0.1-10.0.0.16",
		"::ffff:10.0.0.0/95":               "::fffe:0:0-::ffff:255.255.255.255",
	} {
		if s, ok := destination(text); !ok || s.First.String()+"-"+s.Last.String() != want {
			t.Errorf("%s is %v, %v; want %s", text, s, ok, want)
		}
	}
}

func TestErrorsAreInTheOrderOfRules(t *testing.T) {
	t.Parallel()
	_, err := Compile([]lrp.EgressRule{{Protocol: "x", Destinations: []string{"::"}}, {Protocol: "y", Destinations: []string{"::"}}}, both)
	if err == nil || !strings.HasPrefix(err.Error(), `egress_rules[0].protocol is "x"`) {
		t.Error(err)
	}
}

func TestRulesThatDifferInMoreStayApart(t *testing.T) {
	t.Parallel()
	a, b := []string{"10.0.0.1"}, []string{"10.0.0.2"}
	for name, rules := range map[string][]lrp.EgressRule{
		"messages":               {{Protocol: "icmp", Destinations: a, ICMP: &lrp.ICMP{Type: 8}}, {Protocol: "icmp", Destinations: b, ICMP: &lrp.ICMP{Type: 13}}},
		"codes":                  {{Protocol: "icmp", Destinations: a, ICMP: &lrp.ICMP{Type: 3}}, {Protocol: "icmp", Destinations: a, ICMP: &lrp.ICMP{Type: 3, Code: 1}}},
		"protocols":              {{Protocol: "tcp", Destinations: a, Ports: []uint32{1}}, {Protocol: "udp", Destinations: a, Ports: []uint32{1}}},
		"families":               {{Protocol: "all", Destinations: a}, {Protocol: "all", Destinations: []string{"fd00::1"}}},
		"logging":                {{Protocol: "all", Destinations: a, Log: true}, {Protocol: "all", Destinations: b}},
		"destinations and ports": {{Protocol: "tcp", Destinations: a, Ports: []uint32{1}}, {Protocol: "tcp", Destinations: b, Ports: []uint32{2}}},
	} {
		set, err := Compile(rules, both)
		if err != nil {
			t.Fatal(err)
		}
		if len(set.Rules) != 2 {
			t.Errorf("rules that differ in %s became %+v", name, set.Rules)
		}
	}
}

func TestOrderOfDecisions(t *testing.T) {
	t.Parallel()
	policy, err := Config{
		DNS: []string{"10.0.0.53"}, Deny: []string{"10.0.0.0/24", "169.254.169.254"},
		Allow: []string{"10.0.0.7", "192.0.2.0-192.0.2.9"}, LogRate: 1,
	}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	set, err := Compile([]lrp.EgressRule{{Protocol: "all", Destinations: []string{"10.0.0.0/8,169.254.0.0/16"}, Log: true}}, both)
	if err != nil {
		t.Fatal(err)
	}
	open := policy
	open.AllowHost = true
	for name, c := range map[string]struct {
		policy Policy
		packet Packet
		want   Decision
	}{
		"a resolver is asked although its network is denied": {policy, Packet{To: netip.MustParseAddr("10.0.0.53"), Protocol: UDP, Port: 53}, Decision{Accept, false}},
		"over TCP too":                        {policy, Packet{To: netip.MustParseAddr("10.0.0.53"), Protocol: TCP, Port: 53}, Decision{Accept, false}},
		"nothing else of it":                  {policy, Packet{To: netip.MustParseAddr("10.0.0.53"), Protocol: TCP, Port: 54}, Decision{}},
		"a rule does not open what is denied": {policy, Packet{To: netip.MustParseAddr("169.254.169.254"), Protocol: TCP, Port: 80}, Decision{}},
		"nor does what is allowed":            {policy, Packet{To: netip.MustParseAddr("10.0.0.7"), Protocol: TCP, Port: 80}, Decision{}},
		"a rule opens the rest":               {policy, Packet{To: netip.MustParseAddr("10.0.1.1"), Protocol: TCP, Port: 80}, Decision{Accept, true}},
		"what is allowed needs no rule":       {policy, Packet{To: netip.MustParseAddr("192.0.2.9"), Protocol: TCP, Port: 80}, Decision{Accept, false}},
		"the container reaches itself":        {policy, Packet{To: both[0], ToHost: true, Protocol: TCP, Port: 80}, Decision{Accept, false}},
		"anything else is rejected":           {policy, Packet{To: netip.MustParseAddr("192.0.2.10"), Protocol: TCP, Port: 80}, Decision{}},
		"the cell is not opened by a rule":    {policy, Packet{To: netip.MustParseAddr("10.0.1.1"), ToHost: true, Protocol: TCP, Port: 80}, Decision{}},
		"nor by what is allowed":              {policy, Packet{To: netip.MustParseAddr("192.0.2.9"), ToHost: true, Protocol: TCP, Port: 80}, Decision{}},
		"a resolver on the cell is asked":     {policy, Packet{To: netip.MustParseAddr("10.0.0.53"), ToHost: true, Protocol: UDP, Port: 53}, Decision{Accept, false}},
		"a rule opens the cell if it may":     {open, Packet{To: netip.MustParseAddr("10.0.1.1"), ToHost: true, Protocol: TCP, Port: 80}, Decision{Accept, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.policy.Decide(set, c.packet); got != c.want {
				t.Errorf("decided %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestErrorsNameFieldValueAndBound(t *testing.T) {
	t.Parallel()
	to := []string{"10.0.0.0/8"}
	for want, rule := range map[string]lrp.EgressRule{
		`egress_rules[0].protocol is "TCP": want tcp,`:                {Protocol: "TCP", Destinations: to},
		`egress_rules[0].destinations is "": want at least one`:       {Protocol: "all"},
		`egress_rules[0].destinations[0] is "10.0.0.0/33": want IP`:   {Protocol: "all", Destinations: []string{"10.0.0.0/33"}},
		`egress_rules[0].destinations[1] is "10.0.0.1, 10.0.0.2"`:     {Protocol: "all", Destinations: []string{"10.0.0.1", "10.0.0.1, 10.0.0.2"}},
		`destinations[0] is "10.0.0.2-10.0.0.1": want IP`:             {Protocol: "all", Destinations: []string{"10.0.0.2-10.0.0.1"}},
		`destinations[0] is "10.0.0.2-fd00::": want IP`:               {Protocol: "all", Destinations: []string{"10.0.0.2-fd00::"}},
		`destinations[0] is "fe80::1%eth0": want IP`:                  {Protocol: "all", Destinations: []string{"fe80::1%eth0"}},
		`egress_rules[0].ports is "[]": want either`:                  {Protocol: "tcp", Destinations: to},
		`egress_rules[0].ports is "[1]": want either`:                 {Protocol: "udp", Destinations: to, Ports: []uint32{1}, PortRange: &lrp.PortRange{Start: 1, End: 1}},
		`egress_rules[0].ports[1] is "0": want at least 1`:            {Protocol: "udp", Destinations: to, Ports: []uint32{1, 0}},
		`egress_rules[0].port_range is "5-4": want a start`:           {Protocol: "udp", Destinations: to, PortRange: &lrp.PortRange{Start: 5, End: 4}},
		`egress_rules[0].port_range is "0-4": want a start`:           {Protocol: "udp", Destinations: to, PortRange: &lrp.PortRange{Start: 0, End: 4}},
		`egress_rules[0].icmp_info is "": want a type and a code`:     {Protocol: "icmp", Destinations: to},
		`egress_rules[0].icmp_info.type is "256": want 0 to 255, or`:  {Protocol: "icmp", Destinations: to, ICMP: &lrp.ICMP{Type: 256}},
		`egress_rules[0].icmp_info.code is "-2": want 0 to 255, or -`: {Protocol: "icmpv6", Destinations: to, ICMP: &lrp.ICMP{Code: -2}},
	} {
		_, err := Compile([]lrp.EgressRule{rule}, both)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s", rule, err, want)
		}
	}
	many := slices.Repeat([]lrp.EgressRule{{Protocol: "all", Destinations: to}}, MaxRules+1)
	if _, err := Compile(many, both); err == nil || !strings.Contains(err.Error(), `egress_rules is "4097": want at most 4096 rules`) {
		t.Error(err)
	}
	long := []lrp.EgressRule{{Protocol: "all", Destinations: []string{strings.Repeat("1.1.1.1,", MaxDestinations) + "1.1.1.1"}}}
	if _, err := Compile(long, both); err == nil || !strings.Contains(err.Error(), "want at most 65536 destinations") {
		t.Error(err)
	}
	for _, bad := range []string{"127.0.0.1", "::", "fe80::1", "224.0.0.1"} {
		if _, err := Compile(nil, []netip.Addr{netip.MustParseAddr(bad)}); err == nil || !strings.Contains(err.Error(), `addresses[0] is "`+bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	_, err := Config{DNS: []string{"x"}, Deny: []string{"y"}, Allow: []string{"z"}}.Compile()
	for _, want := range []string{`dns[0] is "x"`, `deny[0] is "y"`, `allow[0] is "z"`, `log_rate is "0": want 1 to 10000`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := Defaults().Compile(); err != nil {
		t.Error(err)
	}
}
