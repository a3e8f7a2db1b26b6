// Package meter counts what the router does. Connections add to one of a few shards, so that counting
// is a handful of uncontended atomic additions a request; the sums are made when Prometheus asks.
package meter

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter names one number that only grows.
type Counter uint8

// The counters.
const (
	Requests Counter = iota // attempts sent to a backend
	Responses2xx
	Responses3xx
	Responses4xx
	Responses5xx
	ResponsesOther
	Rejected
	BadGateways
	BackendExhausted
	BackendInvalidID
	BackendInvalidCert
	BackendHandshakeFailed
	WebSocketUpgrades
	WebSocketFailures
	Retries
	ClientGone
	BytesIn
	BytesOut
	RegistryMessages
	UnregistryMessages
	BadMessages
	RoutesPruned
	counters
)

var names = [counters]struct{ name, status, help string }{
	Requests:               {"gorouter_total_requests", "", "Requests sent to backends, each attempt counted."},
	Responses2xx:           {"gorouter_responses", "2xx", ""},
	Responses3xx:           {"gorouter_responses", "3xx", ""},
	Responses4xx:           {"gorouter_responses", "4xx", ""},
	Responses5xx:           {"gorouter_responses", "5xx", ""},
	ResponsesOther:         {"gorouter_responses", "xxx", ""},
	Rejected:               {"gorouter_rejected_requests", "", "Requests refused by the router: no host, no route."},
	BadGateways:            {"gorouter_bad_gateways", "", "Requests answered 502."},
	BackendExhausted:       {"gorouter_backend_exhausted_conns", "", "Requests refused because every endpoint had all it may have in hand."},
	BackendInvalidID:       {"gorouter_backend_invalid_id", "", "Requests answered 503 because the endpoint was not the instance that was registered."},
	BackendInvalidCert:     {"gorouter_backend_invalid_tls_cert", "", "Requests answered 526 because the endpoint's certificate was not trusted."},
	BackendHandshakeFailed: {"gorouter_backend_tls_handshake_failed", "", "Requests answered 525 because the endpoint spoke no TLS, or none that fits."},
	WebSocketUpgrades:      {"gorouter_websocket_upgrades", "", "WebSockets opened."},
	WebSocketFailures:      {"gorouter_websocket_failures", "", "WebSockets asked for that no backend could open."},
	Retries:                {"gorouter_retries", "", "Attempts after the first of a request."},
	ClientGone:             {"gorouter_client_cancelled", "", "Requests whose client left before the response was complete."},
	BytesIn:                {"gorouter_request_body_bytes", "", "Bytes of request bodies."},
	BytesOut:               {"gorouter_response_body_bytes", "", "Bytes of response bodies."},
	RegistryMessages:       {"gorouter_registry_messages", "", "router.register messages taken in."},
	UnregistryMessages:     {"gorouter_unregistry_messages", "", "router.unregister messages taken in."},
	BadMessages:            {"gorouter_rejected_messages", "", "Route messages that could not be understood."},
	RoutesPruned:           {"gorouter_routes_pruned", "", "Endpoints removed because nobody registered them again."},
}

// buckets are the upper bounds of the latency histograms, in milliseconds.
var buckets = [...]float64{1, 2, 4, 6, 8, 10, 20, 40, 50, 100, 500, 1000}

// Shard is what one set of connections adds to.
type Shard struct {
	counts  [counters]atomic.Uint64
	latency histogram // receipt to end of response
	own     histogram // the part of it that was not spent on the backend or a slow client
	_       [64]byte  // shards do not share a cache line
}

type histogram struct {
	buckets [len(buckets) + 1]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

// Add adds to a counter.
func (s *Shard) Add(c Counter, n uint64) { s.counts[c].Add(n) }

// Done counts a response of an endpoint, how long it took and how much of that was the router's.
func (s *Shard) Done(status int, latency, own time.Duration) {
	class := ResponsesOther
	if status >= 200 && status < 600 {
		class = Responses2xx + Counter(status/100-2)
	}
	s.counts[class].Add(1)
	s.latency.observe(latency)
	s.own.observe(own)
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for ms := float64(d) / 1e6; i < len(buckets) && ms > buckets[i]; i++ {
	}
	h.buckets[i].Add(1)
	h.sum.Add(uint64(max(d, 0)))
}

// shards is how many there are: more than the cores of most machines.
const shards = 64

// Meter is all shards together, and gauges read when asked. It is a prometheus.Collector.
type Meter struct {
	shards [shards]Shard
	next   atomic.Uint32
	gauges []gauge
}

type gauge struct {
	desc *prometheus.Desc
	read func() float64
}

// Shard returns one of the shards, in turn.
func (m *Meter) Shard() *Shard { return &m.shards[m.next.Add(1)%shards] }

// Gauge adds a number that is read when asked for. Not to be called once the meter is in use.
func (m *Meter) Gauge(name, help string, read func() float64) {
	m.gauges = append(m.gauges, gauge{prometheus.NewDesc(name, help, nil, nil), read})
}

// Total returns the sum of a counter.
func (m *Meter) Total(c Counter) (n uint64) {
	for i := range m.shards {
		n += m.shards[i].counts[c].Load()
	}
	return n
}

// Describe describes nothing beforehand: the collector is unchecked, as its gauges differ.
func (m *Meter) Describe(chan<- *prometheus.Desc) {}

// Collect sends the sums.
func (m *Meter) Collect(out chan<- prometheus.Metric) {
	for c, n := range names {
		var labels, values []string
		help := n.help
		if n.status != "" {
			labels, values, help = []string{"status_group"}, []string{n.status}, "Responses of backends, by class of status."
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(n.name, help, labels, nil), prometheus.CounterValue, float64(m.Total(Counter(c))), values...)
	}
	for _, g := range m.gauges {
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.read())
	}
	m.collect(out, "gorouter_latency_ms", "From receipt of a request to the end of its response.", func(s *Shard) *histogram { return &s.latency })
	m.collect(out, "gorouter_gorouter_time_ms", "The part of the latency that was spent in the router itself.", func(s *Shard) *histogram { return &s.own })
}

func (m *Meter) collect(out chan<- prometheus.Metric, name, help string, of func(*Shard) *histogram) {
	cumulative := make(map[float64]uint64, len(buckets))
	var count, sum uint64
	for b := range len(buckets) + 1 {
		for i := range m.shards {
			count += of(&m.shards[i]).buckets[b].Load()
		}
		if b < len(buckets) {
			cumulative[buckets[b]] = count
		}
	}
	for i := range m.shards {
		sum += of(&m.shards[i]).sum.Load()
	}
	out <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, nil, nil), count, float64(sum)/1e6, cumulative)
}
