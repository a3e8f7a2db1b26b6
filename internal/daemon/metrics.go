package daemon

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics makes and registers the metrics of one daemon, all in its namespace.
type Metrics struct {
	Registerer prometheus.Registerer
	Namespace  string
}

// Counter makes a counter.
func (m Metrics) Counter(name, help string) prometheus.Counter {
	return promauto.With(m.Registerer).NewCounter(prometheus.CounterOpts{Namespace: m.Namespace, Name: name, Help: help})
}

// Gauge makes a gauge.
func (m Metrics) Gauge(name, help string) prometheus.Gauge {
	return promauto.With(m.Registerer).NewGauge(prometheus.GaugeOpts{Namespace: m.Namespace, Name: name, Help: help})
}

// Seconds makes a histogram of durations from half a millisecond to a minute.
func (m Metrics) Seconds(name, help string) prometheus.Histogram {
	return promauto.With(m.Registerer).NewHistogram(prometheus.HistogramOpts{
		Namespace: m.Namespace, Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
	})
}
