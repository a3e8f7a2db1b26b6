package emitter

import (
	"github.com/prometheus/client_golang/prometheus"

	"muster/route-emitter/table"
)

// metrics are the numbers of an emitter.
type metrics struct {
	registered, unregistered, synced, messages, collisions, invalid prometheus.Counter
	routes, routesSaid                                              prometheus.Gauge
	syncTime, latency                                               prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "route_emitter", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "route_emitter", Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	seconds := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "route_emitter", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18)})
		r.MustRegister(h)
		return h
	}
	return &metrics{
		registered:   counter("routes_registered_total", "URIs registered because something changed."),
		unregistered: counter("routes_unregistered_total", "URIs unregistered because something changed."),
		synced:       counter("routes_synced_total", "URIs registered in broadcasts."),
		messages:     counter("http_route_nats_messages_emitted_total", "Messages about HTTP routes, of changes and broadcasts."),
		collisions:   counter("address_collisions_total", "Times two instances claimed one address."),
		invalid:      counter("invalid_routes_total", "Versions of DesiredLRPs whose routes could not be read."),
		routes:       gauge("http_route_count", "Pairs of URI and endpoint in the table."),
		routesSaid:   gauge("routes", "Pairs of URI and endpoint in the last broadcast."),
		syncTime:     seconds("sync_duration_seconds", "Time of a full list that was applied."),
		latency:      seconds("change_latency_seconds", "Time from the commit of a change of an instance to its messages."),
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
