// Package ports decides how the ports of an instance can be reached: which ports the TLS proxy gets beside
// those that the app listens on, how many host ports that takes, and what is reported of it all. It is a
// CORE: plain data in, plain data out.
package ports

import (
	"encoding/json"
	"fmt"
	"slices"

	"muster/bbs/lrp"
)

const (
	// FirstProxy is the first container port that the TLS proxy may get.
	FirstProxy = 61001
	// ContainerTLS is the container port where other containers reach DefaultHTTP of an app with TLS. No app
	// may ask for it, and no host port leads there.
	ContainerTLS = 61443
	// DefaultHTTP is the port that also gets ContainerTLS.
	DefaultHTTP = 8080
	// Max bounds the different ports of one instance.
	Max = 256
)

// Rules say which ports there are beside those that were asked for.
type Rules struct {
	// TLS gives each port a port of the proxy.
	TLS bool
	// OnlyTLS leaves host ports to the proxy; it needs TLS.
	OnlyTLS bool
}

// Layout returns how the ports that an app asks for are reached inside its container, each asked for once,
// in that order; DefaultHTTP comes twice with TLS. Its host ports are still 0.
func Layout(asked []uint32, rules Rules) ([]lrp.PortMapping, error) {
	var app []uint32
	for _, p := range asked {
		switch {
		case p < 1 || p > 65535:
			return nil, fmt.Errorf("ports: %d: want 1 to 65535", p)
		case p == ContainerTLS:
			return nil, fmt.Errorf("port %d is reserved for container networking", p)
		case !slices.Contains(app, p):
			app = append(app, p)
		}
	}
	if len(app) > Max {
		return nil, fmt.Errorf("ports: %d different ones: at most %d", len(app), Max)
	}
	var all []lrp.PortMapping
	next := uint32(FirstProxy)
	for _, p := range app {
		m := lrp.PortMapping{ContainerPort: p}
		if rules.TLS {
			for next == ContainerTLS || slices.Contains(app, next) {
				next++
			}
			m.ContainerTLSProxyPort = next
			next++
		}
		all = append(all, m)
		if rules.TLS && p == DefaultHTTP {
			all = append(all, lrp.PortMapping{ContainerPort: p, ContainerTLSProxyPort: ContainerTLS})
		}
	}
	return all, nil
}

// HostPorts returns how many host ports a layout takes.
func HostPorts(layout []lrp.PortMapping, rules Rules) int {
	n := 0
	visit(slices.Clone(layout), rules, func(*uint32) { n++ })
	return n
}

// WithHostPorts returns a layout with its host ports filled in, in this order: for each port of the app its
// own unless only the proxy gets any, and then that of its proxy. There must be as many as HostPorts says.
func WithHostPorts(layout []lrp.PortMapping, rules Rules, host []uint16) ([]lrp.PortMapping, error) {
	if n := HostPorts(layout, rules); n != len(host) {
		return nil, fmt.Errorf("%d host ports for an instance that takes %d", len(host), n)
	}
	all := slices.Clone(layout)
	visit(all, rules, func(p *uint32) { *p, host = uint32(host[0]), host[1:] })
	return all, nil
}

// visit calls each for every host port of a layout, in order. The second mapping of a port repeats its host port.
func visit(layout []lrp.PortMapping, rules Rules, each func(*uint32)) {
	for i := range layout {
		m := &layout[i]
		if m.ContainerTLSProxyPort == ContainerTLS {
			if i > 0 {
				m.HostPort = layout[i-1].HostPort
			}
			continue
		}
		if !rules.OnlyTLS {
			each(&m.HostPort)
		}
		if m.ContainerTLSProxyPort != 0 {
			each(&m.HostTLSProxyPort)
		}
	}
}

// Env returns the variables that tell an app at which ports of its cell it is reached. address is that of the
// cell. CF_INSTANCE_PORT and CF_INSTANCE_ADDR are empty without ports, and absent when the first has no host port.
func Env(address string, all []lrp.PortMapping) []string {
	type mapping struct {
		External    uint32 `json:"external,omitempty"`
		Internal    uint32 `json:"internal"`
		ExternalTLS uint32 `json:"external_tls_proxy,omitempty"`
		InternalTLS uint32 `json:"internal_tls_proxy,omitempty"`
	}
	list := []mapping{}
	for _, m := range all {
		list = append(list, mapping{m.HostPort, m.ContainerPort, m.HostTLSProxyPort, m.ContainerTLSProxyPort})
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic("ports: encode numbers: " + err.Error())
	}
	var env []string
	switch {
	case len(all) == 0:
		env = append(env, "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=")
	case all[0].HostPort != 0:
		host := fmt.Sprint(all[0].HostPort)
		env = append(env, "CF_INSTANCE_PORT="+host, "CF_INSTANCE_ADDR="+address+":"+host)
	}
	return append(env, "CF_INSTANCE_PORTS="+string(text))
}
