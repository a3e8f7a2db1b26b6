package firewall

import (
	"fmt"
	"slices"
)

// merge puts rules together that differ only in their destinations, or only in their ports. All of
// them accept, so their order does not matter but for those that log; these stay where they are
// among those that do not.
func merge(rules []Rule) []Rule {
	var out []Rule
	for len(rules) > 0 {
		n := slices.IndexFunc(rules, func(r Rule) bool { return r.Log != rules[0].Log })
		if n < 0 {
			n = len(rules)
		}
		run := group(rules[:n], func(r Rule) string { return r.kind() + fmt.Sprint(r.Ports) }, joinDestinations)
		out = append(out, group(run, func(r Rule) string { return r.kind() + fmt.Sprint(r.To) }, joinAllPorts)...)
		rules = rules[n:]
	}
	return out
}

// kind is what two rules must have in common to become one.
func (r Rule) kind() string { return fmt.Sprint(r.Protocol, r.Message, r.Is6()) }

// group makes one rule of all that have a key in common, where the first of them is.
func group(rules []Rule, key func(Rule) string, one func([]Rule) Rule) []Rule {
	members := map[string][]Rule{}
	var order []string
	for _, r := range rules {
		k := key(r)
		if members[k] == nil {
			order = append(order, k)
		}
		members[k] = append(members[k], r)
	}
	out := make([]Rule, len(order))
	for i, k := range order {
		out[i] = one(members[k])
	}
	return out
}

func joinDestinations(rules []Rule) Rule {
	var all []Span
	for _, r := range rules {
		all = append(all, r.To...)
	}
	rules[0].To = join(all)
	return rules[0]
}

func joinAllPorts(rules []Rule) Rule {
	var all []Ports
	for _, r := range rules {
		all = append(all, r.Ports...)
	}
	if len(all) > 0 {
		rules[0].Ports = joinPorts(all)
	}
	return rules[0]
}
