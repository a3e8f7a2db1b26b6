package bbs

import (
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/store"
)

// metrics are what a replica counts.
type metrics struct {
	registry *prometheus.Registry

	commits      prometheus.Counter
	batchCalls   prometheus.Histogram
	batchSeconds prometheus.Histogram
	events       prometheus.Counter
	calls        *prometheus.HistogramVec // by rpc and code

	convergence
	cellsLost    prometheus.Counter
	eventsPruned prometheus.Counter
	encryptionMetrics
	taskMetrics
	partMetrics
}

func newMetrics(h *hub.Hub) *metrics {
	m := &metrics{
		registry:     prometheus.NewRegistry(),
		commits:      prometheus.NewCounter(prometheus.CounterOpts{Name: "bbs_commits_total", Help: "Batches of calls that were committed."}),
		batchCalls:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bbs_batch_calls", Help: "Calls in one committed batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		batchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bbs_batch_seconds", Help: "Time of one batch, attempts included.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		events:       prometheus.NewCounter(prometheus.CounterOpts{Name: "bbs_events_total", Help: "Changes that were committed."}),
		calls:        prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bbs_call_seconds", Help: "Time of calls, by rpc and status code.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"rpc", "code"}),

		convergence:       newConvergence(),
		encryptionMetrics: newEncryptionMetrics(),
		taskMetrics:       newTaskMetrics(),
		partMetrics:       newPartMetrics(),
		cellsLost:         prometheus.NewCounter(prometheus.CounterOpts{Name: "bbs_cells_lost_total", Help: "Cells that this replica declared lost because they went silent."}),
		eventsPruned:      prometheus.NewCounter(prometheus.CounterOpts{Name: "bbs_events_pruned_total", Help: "Entries that were cut from the log."}),
	}
	m.registry.MustRegister(m.commits, m.batchCalls, m.batchSeconds, m.events, m.calls,
		m.cellsLost, m.eventsPruned, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "bbs_watches", Help: "Watches that are open and at the end of the log."},
			func() float64 { return float64(h.Watches()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "bbs_revision", Help: "Newest revision that watches were given."},
			func() float64 { return float64(h.Newest()) }))
	m.registry.MustRegister(m.convergence.all()...)
	m.registry.MustRegister(m.encryptionMetrics.all()...)
	m.registry.MustRegister(m.taskMetrics.all()...)
	m.registry.MustRegister(m.partMetrics.all()...)
	return m
}

func (m *metrics) committed(c store.Commit) {
	m.commits.Inc()
	m.batchCalls.Observe(float64(c.Calls))
	m.batchSeconds.Observe(c.Took.Seconds())
	m.events.Add(float64(c.Events))
}

func (m *metrics) called(method string, code codes.Code, took time.Duration) {
	m.calls.WithLabelValues(path.Base(method), code.String()).Observe(took.Seconds())
}
