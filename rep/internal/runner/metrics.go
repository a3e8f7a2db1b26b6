package runner

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/container"
	"muster/rep/align"
)

// Metrics count what a cell does.
type Metrics struct {
	Accepted, Refused, Adopted, Orphans, DestroyFailures prometheus.Counter
	Ended                                                *prometheus.CounterVec   // by how
	Calls                                                *prometheus.CounterVec   // by event and outcome
	Steps                                                *prometheus.HistogramVec // by step
	Destroy, Compare                                     prometheus.Histogram
	Adopt                                                prometheus.Gauge
}

// buckets suit what takes between a millisecond and a minute, in seconds.
var buckets = prometheus.ExponentialBuckets(0.001, 2, 17)

// NewMetrics returns metrics that are registered.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		Accepted:        counter("rep_work_accepted_total", "Instances that were taken on."),
		Refused:         counter("rep_work_refused_total", "Instances that were refused."),
		Adopted:         counter("rep_containers_adopted_total", "Containers taken over from an earlier rep."),
		Orphans:         counter("rep_orphans_removed_total", "Records without a container that were removed."),
		DestroyFailures: counter("rep_destroy_failures_total", "Attempts to destroy a container that failed."),
		Ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rep_containers_ended_total",
			Help: "Containers that ended, by how: stopped, failed or exited (with status 0)."}, []string{"how"}),
		Calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rep_bbs_reports_total",
			Help: "Reports to the BBS by event and outcome: granted, refused or unanswered."}, []string{"event", "outcome"}),
		Steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rep_start_seconds", Buckets: buckets,
			Help: "Time of each step to a running instance; total is from accepted to running."}, []string{"step"}),
		Destroy: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rep_destroy_seconds", Buckets: buckets, Help: "Time to destroy a container."}),
		Compare: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rep_compare_seconds", Buckets: buckets, Help: "Time of a full comparison with the BBS."}),
	}
	m.Adopt = prometheus.NewGauge(prometheus.GaugeOpts{Name: "rep_adopt_seconds", Help: "Time it took to take over the containers of earlier reps, at the start."})
	reg.MustRegister(m.Adopt, m.Accepted, m.Refused, m.Adopted, m.Orphans, m.DestroyFailures, m.Ended, m.Calls, m.Steps, m.Destroy, m.Compare)
	return m
}

func (m *Metrics) step(name string, begin time.Time) {
	m.Steps.WithLabelValues(name).Observe(time.Since(begin).Seconds())
}

func (m *Metrics) completed(r container.Result) {
	how := "exited"
	switch {
	case r.Stopped:
		how = "stopped"
	case r.Failed:
		how = "failed"
	}
	m.Ended.WithLabelValues(how).Inc()
}

func (m *Metrics) call(move align.Move, err error) {
	outcome := "granted"
	var refusal *lrp.Refusal
	switch {
	case errors.As(err, &refusal):
		outcome = "refused"
	case err != nil:
		outcome = "unanswered"
	}
	m.Calls.WithLabelValues(string(move), outcome).Inc()
}

// Collector shows the containers by state and the capacity of a cell.
type Collector struct {
	cell                 *Cell
	containers, capacity *prometheus.Desc
}

// NewCollector returns the collector of a cell.
func NewCollector(c *Cell) *Collector {
	return &Collector{
		cell:       c,
		containers: prometheus.NewDesc("rep_containers", "Containers on the cell by state.", []string{"state"}, nil),
		capacity:   prometheus.NewDesc("rep_capacity", "Capacity of the cell: memory and disk in MiB, containers.", []string{"resource", "kind"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.containers; ch <- c.capacity }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	records, _ := c.cell.Records()
	byState := map[container.State]int{}
	for _, r := range records {
		byState[r.State]++
	}
	for _, s := range container.States {
		ch <- prometheus.MustNewConstMetric(c.containers, prometheus.GaugeValue, float64(byState[s]), string(s))
	}
	state, _ := c.cell.State()
	show := func(kind string, r cells.Resources) {
		for resource, v := range map[string]int32{"memory": r.MemoryMB, "disk": r.DiskMB, "containers": r.Containers} {
			ch <- prometheus.MustNewConstMetric(c.capacity, prometheus.GaugeValue, float64(v), resource, kind)
		}
	}
	show("total", state.Capacity)
	show("available", state.Available)
}
