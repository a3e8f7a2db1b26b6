package table

import (
	"cmp"
	"encoding/json"
	"slices"
)

// Kind is what a message asks of a router.
type Kind string

// The kinds; the texts are the subjects of the messages.
const (
	Register   Kind = "router.register"
	Unregister Kind = "router.unregister"
)

// maxURIs bounds the URIs of one message, so that it stays well below what NATS carries.
const maxURIs = 256

// Message is one message for all routers.
type Message struct {
	Kind Kind
	Body Registration
}

// Registration is the body of a message; names and types are those that routers expect.
type Registration struct {
	Host                 string            `json:"host"`
	Port                 uint16            `json:"port"`
	TLSPort              uint16            `json:"tls_port,omitempty"`
	URIs                 []string          `json:"uris"`
	Protocol             string            `json:"protocol,omitempty"`
	App                  string            `json:"app,omitempty"`
	PrivateInstanceID    string            `json:"private_instance_id,omitempty"`
	PrivateInstanceIndex string            `json:"private_instance_index,omitempty"` // a number, as text
	ServerCertDomainSAN  string            `json:"server_cert_domain_san,omitempty"`
	IsolationSegment     string            `json:"isolation_segment,omitempty"`
	RouteServiceURL      string            `json:"route_service_url,omitempty"`
	EndpointUpdatedAtNS  int64             `json:"endpoint_updated_at_ns,omitempty"`
	Tags                 map[string]string `json:"tags,omitempty"`
	AvailabilityZone     string            `json:"availability_zone,omitempty"`
	Options              json.RawMessage   `json:"options,omitempty"`
}

// address is where an endpoint listens; routers match unregisters by it.
type address struct {
	host    string
	port    uint16
	tlsPort uint16
}

// target is a URI at an address: what a router registers or forgets.
type target struct {
	address
	uri string
}

// attributes is everything else that a router is told, in a form that compares with ==.
type attributes struct {
	protocol, app, instance, index, segment, routeService, zone string
	options                                                     string // raw JSON
	tags                                                        string // JSON with sorted keys
}

// entry is one registration of one URI.
type entry struct {
	target
	attributes
	updatedAtNS int64 // only when the endpoint is new
}

// messages turns entries into messages: URIs that differ in nothing else share one.
func messages(kind Kind, entries []entry) []Message {
	slices.SortFunc(entries, compareEntries)
	var out []Message
	for i, e := range entries {
		if i > 0 && sameButURI(entries[i-1], e) {
			last := &out[len(out)-1].Body
			if len(last.URIs) < maxURIs {
				last.URIs = append(last.URIs, e.uri)
				continue
			}
		}
		out = append(out, Message{Kind: kind, Body: e.body()})
	}
	return out
}

func sameButURI(a, b entry) bool {
	return a.address == b.address && a.attributes == b.attributes && a.updatedAtNS == b.updatedAtNS
}

// compareEntries orders entries so that those of one message stand together, always in the same way.
func compareEntries(a, b entry) int {
	return cmp.Or(
		cmp.Compare(a.app, b.app), cmp.Compare(a.instance, b.instance), cmp.Compare(a.index, b.index),
		cmp.Compare(a.host, b.host), cmp.Compare(a.port, b.port), cmp.Compare(a.tlsPort, b.tlsPort),
		cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.segment, b.segment), cmp.Compare(a.routeService, b.routeService),
		cmp.Compare(a.zone, b.zone), cmp.Compare(a.options, b.options), cmp.Compare(a.tags, b.tags),
		cmp.Compare(a.updatedAtNS, b.updatedAtNS), cmp.Compare(a.uri, b.uri),
	)
}

func (e entry) body() Registration {
	r := Registration{
		Host: e.host, Port: e.port, TLSPort: e.tlsPort, URIs: []string{e.uri},
		Protocol: e.protocol, App: e.app,
		PrivateInstanceID: e.instance, PrivateInstanceIndex: e.index, ServerCertDomainSAN: e.instance,
		IsolationSegment: e.segment, RouteServiceURL: e.routeService,
		EndpointUpdatedAtNS: e.updatedAtNS, AvailabilityZone: e.zone,
	}
	if e.options != "" {
		r.Options = json.RawMessage(e.options)
	}
	if err := json.Unmarshal([]byte(e.tags), &r.Tags); err != nil {
		panic("table: tags that were encoded here do not decode: " + err.Error())
	}
	return r
}
