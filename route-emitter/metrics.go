package emitter

import (
	"github.com/prometheus/client_golang/prometheus"

	"muster/internal/daemon"
	"muster/route-emitter/table"
)

// metrics are the numbers of an emitter.
type metrics struct {
	registered, unregistered, synced, messages, collisions, invalid prometheus.Counter
	routes, routesSaid                                              prometheus.Gauge
	syncTime, latency                                               prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := daemon.Metrics{Registerer: r, Namespace: "route_emitter"}
	return &metrics{
		registered:   m.Counter("routes_registered_total", "URIs registered because something changed."),
		unregistered: m.Counter("routes_unregistered_total", "URIs unregistered because something changed."),
		synced:       m.Counter("routes_synced_total", "URIs registered in broadcasts."),
		messages:     m.Counter("http_route_nats_messages_emitted_total", "Messages about HTTP routes, of changes and broadcasts."),
		collisions:   m.Counter("address_collisions_total", "Times two instances claimed one address."),
		invalid:      m.Counter("invalid_routes_total", "Versions of DesiredLRPs whose routes could not be read."),
		routes:       m.Gauge("http_route_count", "Pairs of URI and endpoint in the table."),
		routesSaid:   m.Gauge("routes", "Pairs of URI and endpoint in the last broadcast."),
		syncTime:     m.Seconds("sync_duration_seconds", "Time of a full list that was applied."),
		latency:      m.Seconds("change_latency_seconds", "Time from the commit of a change of an instance to its messages."),
	}
}

func (m *metrics) changed(out table.Output, registered, unregistered int) {
	m.registered.Add(float64(registered))
	m.unregistered.Add(float64(unregistered))
	m.messages.Add(float64(len(out.Messages)))
	m.collisions.Add(float64(len(out.Collisions)))
	m.invalid.Add(float64(len(out.Invalid)))
}

func (m *metrics) broadcast(messages, uris int) {
	m.synced.Add(float64(uris))
	m.messages.Add(float64(messages))
	m.routesSaid.Set(float64(uris))
}
