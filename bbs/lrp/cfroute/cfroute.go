// Package cfroute reads and writes the HTTP routes of a DesiredLRP: the value of its router group
// cf-router (routing reference A.2). It is a CORE. The BBS asks it whether routes make sense, the
// route-emitter what to register, and the operator's program what to write.
package cfroute

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Group is the router group whose value this package reads.
const Group = "cf-router"

// Route is one HTTP route: requests for any of the hostnames go to a port of the container.
type Route struct {
	// Hostnames are HOST or HOST/PATH, where HOST may start with a "*." label.
	Hostnames []string
	// Port is the port in the container, not that on the cell.
	Port uint32
	// RouteServiceURL is the https URL of a service that sees each request first; empty: none.
	RouteServiceURL string
	// IsolationSegment names the routers that serve the route; empty: the shared ones.
	IsolationSegment string
	// Protocol is what the instances speak: http1 or http2; empty: http1. Other values are passed on.
	Protocol string
	// Options are passed on to the router byte for byte; nil: none.
	Options json.RawMessage
}

// wireRoute is a Route as JSON. Writers send null for an absent text, so texts are pointers.
type wireRoute struct {
	Hostnames        []string        `json:"hostnames"`
	Port             uint32          `json:"port"`
	RouteServiceURL  *string         `json:"route_service_url"`
	IsolationSegment *string         `json:"isolation_segment"`
	Protocol         *string         `json:"protocol,omitempty"`
	Options          json.RawMessage `json:"options,omitempty"`
}

// Parse reads the value of the router group. An absent value, null and an empty list all mean that
// there are no routes; null members mean that a member is absent; unknown members are ignored, since
// newer writers may send them. It returns an error when the value is not a list of routes.
func Parse(value []byte) ([]Route, error) {
	if len(bytes.TrimSpace(value)) == 0 {
		return nil, nil
	}
	var list []wireRoute
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, fmt.Errorf("parse %s: %w", Group, err)
	}
	var routes []Route
	for _, w := range list {
		routes = append(routes, Route{
			Hostnames: w.Hostnames, Port: w.Port,
			RouteServiceURL: text(w.RouteServiceURL), IsolationSegment: text(w.IsolationSegment),
			Protocol: text(w.Protocol), Options: present(w.Options),
		})
	}
	return routes, nil
}

// FromRoutes reads the HTTP routes of a DesiredLRP's routes.
func FromRoutes(routes map[string][]byte) ([]Route, error) { return Parse(routes[Group]) }

// Marshal writes the value of the router group. No routes are an empty list, which removes all
// routes wherever it arrives. It returns an error when the options of a route are not JSON.
func Marshal(routes []Route) ([]byte, error) {
	list := make([]wireRoute, 0, len(routes))
	for _, r := range routes {
		hostnames := r.Hostnames
		if hostnames == nil {
			hostnames = []string{} // readers expect a list
		}
		list = append(list, wireRoute{
			Hostnames: hostnames, Port: r.Port,
			RouteServiceURL: optional(r.RouteServiceURL), IsolationSegment: optional(r.IsolationSegment),
			Protocol: optional(r.Protocol), Options: present(r.Options),
		})
	}
	value, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", Group, err)
	}
	return value, nil
}

// text returns the text that p points to; null is empty.
func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// optional is the inverse of text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// present returns raw unless it is null, which means absent.
func present(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	return raw
}
