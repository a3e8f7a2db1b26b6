package firewall

import (
	"errors"
	"fmt"
	"slices"
)

// Config is what the operator of a cell says about all of its containers.
type Config struct {
	DNS       []string `json:"dns" help:"resolvers that every container may ask, TCP and UDP port 53"`
	Deny      []string `json:"deny" help:"addresses, CIDR blocks and ranges A-B that no container reaches, whatever its rules say: metadata services, the networks of the control plane"`
	Allow     []string `json:"allow" help:"addresses, CIDR blocks and ranges A-B that every container reaches without a rule; what is denied too stays denied"`
	AllowHost bool     `json:"allow_host" help:"let rules open addresses of the cell itself; false: containers reach nothing of it but a resolver"`
	// LogRate bounds the lines that a container causes with rules that log.
	LogRate int `json:"log_rate" help:"connections logged per second for each rule of a container that logs, 1 to 10000; larger: fuller logs, and more of the kernel's log taken by one container"`
}

// Defaults denies link-local addresses, where clouds have their metadata services.
func Defaults() Config {
	return Config{Deny: []string{"169.254.0.0/16", "fe80::/10", "fd00:ec2::254"}, LogRate: 10}
}

// maxLogRate bounds Config.LogRate.
const maxLogRate = 10_000

// Policy is a compiled Config.
type Policy struct {
	First     []Rule // before those of a container: resolvers, then what is denied
	Last      []Rule // after them: what is allowed
	AllowHost bool
	LogRate   int // a second
}

// Compile compiles a configuration. The error names all fields that are wrong.
func (c Config) Compile() (Policy, error) {
	var in compiler
	if c.LogRate < 1 || c.LogRate > maxLogRate {
		in.bad("log_rate", fmt.Sprint(c.LogRate), fmt.Sprintf("want 1 to %d", maxLogRate))
	}
	p := Policy{AllowHost: c.AllowHost, LogRate: c.LogRate}
	dns := in.optional("dns", c.DNS)
	for _, protocol := range []Protocol{UDP, TCP} {
		p.First = append(p.First, perFamily(Rule{Verdict: Accept, Protocol: protocol, Ports: []Ports{{53, 53}}}, true, dns)...)
	}
	p.First = append(p.First, perFamily(Rule{Verdict: Reject}, true, in.optional("deny", c.Deny))...)
	p.Last = perFamily(Rule{Verdict: Accept}, true, in.optional("allow", c.Allow))
	return p, errors.Join(in.errs...)
}

// optional reads destinations of which there may be none.
func (c *compiler) optional(field string, list []string) []Span {
	if len(list) == 0 {
		return nil
	}
	return c.spans(field, list)
}

// Decision is what becomes of a packet, and whether the kernel logs it.
type Decision struct {
	Verdict Verdict
	Log     bool
}

// Decide says what becomes of the first packet of a connection from a container with a set.
func (p Policy) Decide(s Set, packet Packet) Decision {
	if !s.has(packet.To.Is6()) {
		return Decision{}
	}
	if slices.Contains(s.Addresses, packet.To) {
		return Decision{Verdict: Accept}
	}
	lists := [][]Rule{p.First, s.Rules, p.Last}
	if packet.ToHost && !p.AllowHost {
		lists = lists[:1]
	}
	for _, r := range slices.Concat(lists...) {
		if r.Matches(packet) {
			return Decision{r.Verdict, r.Log}
		}
	}
	return Decision{}
}
