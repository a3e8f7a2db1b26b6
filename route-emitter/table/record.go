package table

import (
	"encoding/json"
	"math"
	"strconv"

	"muster/bbs/lrp"
	"muster/bbs/lrp/cfroute"
)

// place is one of the records that a process can have: an index and a presence. The BBS keeps one
// record for each, whose tag grows while instances come and go.
type place struct {
	index    int32
	presence lrp.Presence
}

// record is the newest that is known of a place; a record without endpoint is kept for its tag.
type record struct {
	tag      lrp.ModificationTag
	endpoint *endpoint // nil: nothing to route to
}

// endpoint is an instance that can be routed to.
type endpoint struct {
	instance lrp.InstanceGUID
	index    int32
	net      lrp.NetInfo
	zone     string
	sinceNS  int64

	// tags are those of an instance for one version of its DesiredLRP: encoding them is most of
	// the work, and most changes concern other instances.
	tags    string
	tagsFor *desired
}

// endpointOf returns nil unless requests may go to the instance.
func endpointOf(a *lrp.Actual) *endpoint {
	if a.State != lrp.Running || !a.Routable || a.Retiring {
		return nil
	}
	return &endpoint{instance: a.Instance, index: a.Index, net: a.NetInfo, zone: a.AvailabilityZone, sinceNS: a.Since.UnixNano()}
}

// desired is the newest that is known of a DesiredLRP; absent ones are kept for their tag.
type desired struct {
	tag        lrp.ModificationTag
	absent     bool
	domain     lrp.Domain
	instances  int32
	logGUID    string
	routes     []cfroute.Route
	metricTags map[string]lrp.MetricTag
}

// process is everything known of one process.
type process struct {
	desired *desired // nil: nothing known
	records map[place]record
	entries map[target]entry // registered now
	known   map[string]bool  // instances that could be routed to at the last update
}

// live returns the instances that can be routed to.
func (p *process) live() map[string]bool {
	instances := map[string]bool{}
	for _, r := range p.records {
		if r.endpoint != nil {
			instances[string(r.endpoint.instance)] = true
		}
	}
	return instances
}

// componentTag says who registered a route.
const componentTag = "route-emitter"

// compute returns what should be registered for a process.
func (t *Table) compute(p *process) map[target]entry {
	d := p.desired
	if d == nil || d.absent || len(d.routes) == 0 {
		return nil
	}
	entries := map[target]entry{}
	// Ordinary instances come last and win over another record of the same instance.
	for _, presence := range []lrp.Presence{lrp.Suspect, lrp.Evacuating, lrp.Ordinary} {
		for at, r := range p.records {
			if at.presence != presence || r.endpoint == nil || at.index >= d.instances {
				continue
			}
			t.addEntries(entries, d, r.endpoint)
		}
	}
	return entries
}

func (t *Table) addEntries(entries map[target]entry, d *desired, ep *endpoint) {
	if ep.tagsFor != d {
		ep.tags, ep.tagsFor = tagsOf(d, ep), d
	}
	for _, r := range d.routes {
		addr, ok := t.addressOf(ep, r.Port)
		if !ok {
			continue
		}
		a := attributes{
			protocol: r.Protocol, app: d.logGUID, instance: string(ep.instance), index: strconv.Itoa(int(ep.index)),
			segment: r.IsolationSegment, routeService: r.RouteServiceURL, zone: ep.zone,
			options: string(r.Options), tags: ep.tags,
		}
		for _, uri := range r.Hostnames {
			k := target{addr, uri}
			// Two routes with one hostname and port, or two instances at one address, as happens
			// while a port changes hands: one of them, always the same, is registered.
			if old, ok := entries[k]; !ok || preferred(entry{target: k, attributes: a}, ep, old) {
				entries[k] = entry{target: k, attributes: a, updatedAtNS: ep.sinceNS}
			}
		}
	}
}

// preferred tells whether an entry replaces an older candidate for the same target: the instance that
// changed last, since it is the one that got the address; among equals a fixed order.
func preferred(e entry, ep *endpoint, old entry) bool {
	if ep.sinceNS != old.updatedAtNS {
		return ep.sinceNS > old.updatedAtNS
	}
	e.updatedAtNS = old.updatedAtNS
	return compareEntries(e, old) < 0
}

// addressOf returns where a container port of an instance can be reached.
func (t *Table) addressOf(ep *endpoint, containerPort uint32) (address, bool) {
	direct := t.options.DirectInstanceRoutes
	switch ep.net.Preferred {
	case lrp.PreferInstance:
		direct = true
	case lrp.PreferHost:
		direct = false
	}
	for _, m := range ep.net.Ports {
		if m.ContainerPort != containerPort {
			continue
		}
		host, port, tlsPort := ep.net.Address, m.HostPort, m.HostTLSProxyPort
		if direct {
			host, port, tlsPort = ep.net.InstanceAddress, m.ContainerPort, m.ContainerTLSProxyPort
		}
		if host == "" || port > math.MaxUint16 || tlsPort > math.MaxUint16 || port == 0 && tlsPort == 0 {
			return address{}, false
		}
		return address{host, uint16(port), uint16(tlsPort)}, true
	}
	return address{}, false
}

// tagsOf returns the metric tags of an instance as JSON, dynamic values filled in.
func tagsOf(d *desired, ep *endpoint) string {
	tags := make(map[string]string, len(d.metricTags)+1)
	for name, tag := range d.metricTags {
		switch tag.Dynamic {
		case lrp.TagIndex:
			tags[name] = strconv.Itoa(int(ep.index))
		case lrp.TagInstanceGUID:
			tags[name] = string(ep.instance)
		default:
			tags[name] = tag.Static
		}
	}
	tags["component"] = componentTag
	text, err := json.Marshal(tags) // keys come out sorted
	if err != nil {
		panic("table: encode tags: " + err.Error())
	}
	return string(text)
}
