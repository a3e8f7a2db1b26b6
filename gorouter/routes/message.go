package routes

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Info is what a registration says about an endpoint.
type Info struct {
	// Address is host:port; the port is the one with TLS when TLS is set.
	Address string
	TLS     bool
	// ServerName is what the endpoint's certificate must be for, with TLS.
	ServerName    string
	App           string
	InstanceID    string
	InstanceIndex string
	Protocol      string
	Segment       string
	RouteService  string
	Zone          string
	// Algorithm is the load balancing the route asks for.
	Algorithm string
	// UpdatedNS is when the instance changed, in nanoseconds since 1970; 0 when not said.
	UpdatedNS int64
	Tags      map[string]string
}

// same compares what makes a registration news; the zone does not, nor do tags here.
func (i Info) same(o Info) bool {
	return i.Address == o.Address && i.TLS == o.TLS && i.ServerName == o.ServerName && i.App == o.App &&
		i.InstanceID == o.InstanceID && i.InstanceIndex == o.InstanceIndex && i.Protocol == o.Protocol &&
		i.Segment == o.Segment && i.RouteService == o.RouteService && i.Algorithm == o.Algorithm && i.UpdatedNS == o.UpdatedNS
}

// Message is a router.register or router.unregister message.
type Message struct {
	Info
	URIs       []string
	StaleAfter time.Duration
}

// Limits of a message.
const (
	// MaxURIs bounds its routes.
	MaxURIs = 10000
	// MaxURIBytes bounds one of them: each segment of a path is a level of the table.
	MaxURIBytes = 4096
)

type wireMessage struct {
	Host         string            `json:"host"`
	Port         uint16            `json:"port"`
	TLSPort      uint16            `json:"tls_port"`
	URIs         []string          `json:"uris"`
	Protocol     string            `json:"protocol"`
	App          string            `json:"app"`
	InstanceID   string            `json:"private_instance_id"`
	Index        string            `json:"private_instance_index"`
	ServerName   string            `json:"server_cert_domain_san"`
	Segment      string            `json:"isolation_segment"`
	RouteService string            `json:"route_service_url"`
	Tags         map[string]string `json:"tags"`
	UpdatedNS    int64             `json:"endpoint_updated_at_ns"`
	Zone         string            `json:"availability_zone"`
	StaleSeconds int               `json:"stale_threshold_in_seconds"`
	// Options are read apart: an option that cannot be understood must not cost the route.
	Options json.RawMessage `json:"options"`
}

// ParseMessage reads the payload of router.register or router.unregister. Unknown fields and unusable
// options are ignored; a field of a wrong type, a port out of range, a route service without https, or
// a missing address refuses the message as a whole. No URIs is a message that does nothing.
func ParseMessage(payload []byte) (Message, error) {
	var w wireMessage
	if err := json.Unmarshal(payload, &w); err != nil {
		return Message{}, fmt.Errorf("parse route message: %w", err)
	}
	port := w.Port
	if w.TLSPort != 0 {
		port = w.TLSPort
	}
	switch {
	case w.Host == "":
		return Message{}, fmt.Errorf("route message without host: name the endpoint's address")
	case port == 0:
		return Message{}, fmt.Errorf("route message for host %q without port or tls_port: name one in 1…65535", w.Host)
	case w.RouteService != "" && !strings.HasPrefix(w.RouteService, "https"):
		return Message{}, fmt.Errorf("route_service_url %q: want https", w.RouteService)
	case len(w.URIs) > MaxURIs:
		return Message{}, fmt.Errorf("route message with %d uris: at most %d", len(w.URIs), MaxURIs)
	}
	for _, u := range w.URIs {
		if len(u) > MaxURIBytes {
			return Message{}, fmt.Errorf("route message with a uri of %d bytes, %q…: at most %d", len(u), u[:64], MaxURIBytes)
		}
	}
	// These become lines of request heads.
	for _, s := range []string{w.Host, w.App, w.InstanceID, w.Index, w.ServerName} {
		if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return Message{}, fmt.Errorf("route message: %q holds a control character", s)
		}
	}
	if w.Protocol == "" {
		w.Protocol = "http1"
	}
	var options struct {
		LoadBalancing string `json:"loadbalancing"`
	}
	if len(w.Options) > 0 && json.Unmarshal(w.Options, &options) != nil {
		options.LoadBalancing = ""
	}
	m := Message{URIs: w.URIs, StaleAfter: time.Duration(max(w.StaleSeconds, 0)) * time.Second}
	m.Info = Info{
		Address: join(w.Host, port), TLS: w.TLSPort != 0, ServerName: w.ServerName,
		App: w.App, InstanceID: w.InstanceID, InstanceIndex: w.Index, Protocol: w.Protocol, Segment: w.Segment,
		RouteService: w.RouteService, Zone: w.Zone, Algorithm: options.LoadBalancing, UpdatedNS: w.UpdatedNS, Tags: w.Tags,
	}
	return m, nil
}

func join(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(port))
}
