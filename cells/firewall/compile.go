package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"muster/bbs/lrp"
)

// Bounds of the rules of one container.
const (
	MaxRules        = 4_096
	MaxDestinations = 65_536 // of all rules together, elements of comma lists counted one by one
)

// Set is the compiled rules of one container.
type Set struct {
	Addresses []netip.Addr // its own; at least one
	Rules     []Rule       // the first that matches accepts; nothing else of the recipe does
}

// Compile compiles the egress rules of a container with these addresses. The error names all fields
// that are wrong.
func Compile(rules []lrp.EgressRule, addresses []netip.Addr) (Set, error) {
	var c compiler
	set := Set{Addresses: c.addresses(addresses), Rules: c.rules(rules)}
	if len(c.errs) > 0 {
		return Set{}, errors.Join(c.errs...)
	}
	set.Rules = merge(slices.DeleteFunc(set.Rules, func(r Rule) bool { return !set.has(r.Is6()) }))
	return set, nil
}

// Check tells what is wrong with egress rules, whoever gets them.
func Check(rules []lrp.EgressRule) error {
	var c compiler
	c.rules(rules)
	return errors.Join(c.errs...)
}

// rules compiles the rules of a recipe. Later rules go in front of earlier ones, which matters only
// for what is logged.
func (c *compiler) rules(rules []lrp.EgressRule) []Rule {
	if len(rules) > MaxRules {
		c.bad("egress_rules", fmt.Sprint(len(rules)), fmt.Sprintf("want at most %d rules", MaxRules))
		return nil
	}
	total := 0
	for _, r := range rules {
		for _, d := range r.Destinations {
			total += 1 + strings.Count(d, ",")
		}
	}
	if total > MaxDestinations {
		c.bad("egress_rules", fmt.Sprint(total), fmt.Sprintf("want at most %d destinations in all", MaxDestinations))
		return nil
	}
	var out []Rule
	first := len(c.errs)
	for i, r := range slices.Backward(rules) {
		out = append(out, c.rule(fmt.Sprintf("egress_rules[%d]", i), r)...)
	}
	slices.Reverse(c.errs[first:])
	return out
}

// has tells whether the container has an address of a family.
func (s Set) has(is6 bool) bool {
	return slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool { return a.Is6() == is6 })
}

// compiler collects what is wrong.
type compiler struct{ errs []error }

func (c *compiler) bad(field, value, want string) {
	c.errs = append(c.errs, fmt.Errorf("%s is %q: %s", field, value, want))
}

func (c *compiler) addresses(list []netip.Addr) []netip.Addr {
	if len(list) == 0 {
		c.bad("addresses", "", "want at least one address of the container")
	}
	out := make([]netip.Addr, len(list))
	for i, a := range list {
		out[i] = a.Unmap()
		if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Unmap().IsLinkLocalUnicast() {
			c.bad(fmt.Sprintf("addresses[%d]", i), a.String(), "want an address that other machines can answer to")
		}
	}
	return out
}

// protocols are the names of protocols in recipes.
var protocols = map[string]Protocol{"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPv6, "all": Any}

// rule compiles one rule: into none when nothing can match it, into one for each family otherwise.
func (c *compiler) rule(field string, r lrp.EgressRule) []Rule {
	protocol, known := protocols[r.Protocol]
	if !known {
		c.bad(field+".protocol", r.Protocol, "want tcp, udp, icmp, icmpv6 or all")
	}
	base := Rule{Verdict: Accept, Log: r.Log, Protocol: protocol}
	possible := true
	switch protocol {
	case TCP, UDP:
		base.Ports, possible = c.ports(field, r)
	case ICMP, ICMPv6:
		base.Message = c.message(field, r)
	}
	return perFamily(base, possible, c.spans(field+".destinations", r.Destinations))
}

// perFamily returns a rule for each family that has destinations and that the protocol is of.
func perFamily(base Rule, possible bool, spans []Span) []Rule {
	var four, six []Span
	for _, s := range spans {
		if s.First.Is4() {
			four = append(four, s)
		} else {
			six = append(six, s)
		}
	}
	var out []Rule
	if possible && len(four) > 0 && base.Protocol != ICMPv6 {
		base.To = join(four)
		out = append(out, base)
	}
	if possible && len(six) > 0 && base.Protocol != ICMP {
		base.To = join(six)
		out = append(out, base)
	}
	return out
}

// spans reads destinations; each element may be a comma list.
func (c *compiler) spans(field string, list []string) []Span {
	if len(list) == 0 {
		c.bad(field, "", "want at least one")
	}
	var out []Span
	for i, element := range list {
		for _, piece := range strings.Split(element, ",") {
			s, ok := destination(piece)
			if !ok {
				c.bad(fmt.Sprintf("%s[%d]", field, i), element, "want IP addresses, CIDR blocks and ranges A-B of one family with A at most B, joined by commas")
				break
			}
			out = append(out, s)
		}
	}
	return out
}

// maxPort is the last port that there is.
const maxPort = 65_535

// ports reads the ports of a rule. Those that do not exist allow nothing; possible tells whether any do.
func (c *compiler) ports(field string, r lrp.EgressRule) (ports []Ports, possible bool) {
	add := func(first, last uint32) {
		if first <= maxPort {
			ports = append(ports, Ports{uint16(first), uint16(min(last, maxPort))})
		}
	}
	switch {
	case (len(r.Ports) > 0) == (r.PortRange != nil):
		c.bad(field+".ports", fmt.Sprint(r.Ports), "want either ports or port_range for protocol "+r.Protocol)
	case r.PortRange != nil:
		if r.PortRange.Start < 1 || r.PortRange.Start > r.PortRange.End {
			c.bad(field+".port_range", fmt.Sprintf("%d-%d", r.PortRange.Start, r.PortRange.End), "want a start of at least 1 and at most the end")
		}
		add(r.PortRange.Start, r.PortRange.End)
	}
	for i, p := range r.Ports {
		if p < 1 {
			c.bad(fmt.Sprintf("%s.ports[%d]", field, i), fmt.Sprint(p), "want at least 1")
		}
		add(p, p)
	}
	return joinPorts(ports), len(ports) > 0
}

// maxMessage is the last type, and the last code, of ICMP.
const maxMessage = 255

func (c *compiler) message(field string, r lrp.EgressRule) Message {
	if r.ICMP == nil {
		c.bad(field+".icmp_info", "", "want a type and a code for protocol "+r.Protocol)
		return Message{}
	}
	for _, m := range []struct {
		name  string
		value int32
	}{{"type", r.ICMP.Type}, {"code", r.ICMP.Code}} {
		if m.value < AnyICMP || m.value > maxMessage {
			c.bad(field+".icmp_info."+m.name, fmt.Sprint(m.value), fmt.Sprintf("want 0 to %d, or -1 for any", maxMessage))
		}
	}
	return Message{int16(r.ICMP.Type), int16(r.ICMP.Code)}
}
