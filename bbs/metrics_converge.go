package bbs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/bbs/converge"
	"muster/bbs/internal/callback"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/bbs/task"
)

// The kinds of passes of convergence.
const (
	quietTick = "quiet" // a look that found that nothing changed
	fullPass  = "full"  // a comparison of everything
	cellsPass = "cells" // of what is on cells that came or went
)

// convergence is what the replica that converges counts. The gauges are those of its newest full
// comparison; they are reset when its term ends, so that the sum over all replicas is that of the leader.
type convergence struct {
	leading         prometheus.Gauge
	convergeSeconds *prometheus.HistogramVec // by kind
	convergeLast    *prometheus.GaugeVec     // by kind
	convergeSteps   *prometheus.CounterVec   // by event
	convergeRefused *prometheus.CounterVec   // by event
	tasksPruned     prometheus.Counter
	tasksKicked     prometheus.Counter
	callbackSeconds *prometheus.HistogramVec // by outcome

	lrps            *prometheus.GaugeVec // by state: the ordinary ones
	suspects        *prometheus.GaugeVec // by state
	evacuating      *prometheus.GaugeVec // by state
	lrpsDesired     prometheus.Gauge
	lrpsMissing     prometheus.Gauge
	lrpsExtra       prometheus.Gauge
	crashingDesired prometheus.Gauge
	cells           *prometheus.GaugeVec // by present or lost
	domains         *prometheus.GaugeVec // by domain
	tasks           *prometheus.GaugeVec // by state
}

func newConvergence() convergence {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return convergence{
		leading: gauge("bbs_leading", "1 while this replica converges, else 0."),
		convergeSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bbs_converge_seconds",
			Help:    "Time of convergence, steps included: of a look that nothing changed (quiet), a comparison of everything (full), and of what is on cells that came or went (cells). Its count is the number of runs.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"kind"}),
		convergeLast:    gauges("bbs_converge_last_seconds", "Time of the newest run of convergence, by kind.", "kind"),
		convergeSteps:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bbs_converge_steps_total", Help: "Steps that convergence took, by event."}, []string{"event"}),
		convergeRefused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bbs_converge_refused_total", Help: "Steps of convergence that were refused because the world had moved on, by event."}, []string{"event"}),
		tasksPruned:     counter("bbs_tasks_pruned_total", "Completed tasks that convergence forgot."),
		tasksKicked:     counter("bbs_tasks_kicked_total", "Tasks whose owners convergence let be told again."),
		callbackSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bbs_task_callback_seconds", Help: "Time of callbacks of completed tasks, by outcome.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"outcome"}),
		lrps:            gauges("bbs_lrps", "Ordinary ActualLRPs, by state.", "state"),
		suspects:        gauges("bbs_lrps_suspect", "ActualLRPs of cells that fell silent, by state.", "state"),
		evacuating:      gauges("bbs_lrps_evacuating", "ActualLRPs of cells that are drained, by state.", "state"),
		lrpsDesired:     gauge("bbs_lrps_desired", "Instances that are desired."),
		lrpsMissing:     gauge("bbs_lrps_missing", "Desired instances without a record, before it was created."),
		lrpsExtra:       gauge("bbs_lrps_extra", "Instances that nobody wants, before they were told to stop."),
		crashingDesired: gauge("bbs_desired_lrps_crashing", "DesiredLRPs with an instance that waits for its back-off."),
		cells:           gauges("bbs_cells", "Cells, present or lost.", "presence"),
		domains:         gauges("bbs_domain_fresh", "1 for each domain that is fresh.", "domain"),
		tasks:           gauges("bbs_tasks", "Tasks, by state.", "state"),
	}
}

// all lists them.
func (m *convergence) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.leading, m.convergeSeconds, m.convergeLast, m.convergeSteps, m.convergeRefused, m.tasksPruned, m.tasksKicked, m.callbackSeconds, m.lrps, m.suspects, m.evacuating,
		m.lrpsDesired, m.lrpsMissing, m.lrpsExtra, m.crashingDesired, m.cells, m.domains, m.tasks,
	}
}

// reset takes back what a comparison showed: whoever leads now shows it.
func (m *convergence) reset() {
	for _, g := range []prometheus.Gauge{m.leading, m.lrpsDesired, m.lrpsMissing, m.lrpsExtra, m.crashingDesired} {
		g.Set(0)
	}
	for _, g := range []*prometheus.GaugeVec{m.convergeLast, m.lrps, m.suspects, m.evacuating, m.cells, m.domains, m.tasks} {
		g.Reset()
	}
}

func (m *convergence) converged(kind string, took time.Duration) {
	m.convergeSeconds.WithLabelValues(kind).Observe(took.Seconds())
	m.convergeLast.WithLabelValues(kind).Set(took.Seconds())
}

func (m *convergence) calledBack(o callback.Outcome, took time.Duration) {
	m.callbackSeconds.WithLabelValues(string(o)).Observe(took.Seconds())
}

// counted shows what a full comparison found.
func (m *convergence) counted(found store.Comparison, steps []converge.Step, taskSteps []task.Step) {
	for presence, gauge := range map[lrp.Presence]*prometheus.GaugeVec{lrp.Ordinary: m.lrps, lrp.Suspect: m.suspects, lrp.Evacuating: m.evacuating} {
		for _, state := range []lrp.State{lrp.Unclaimed, lrp.Claimed, lrp.Running, lrp.Crashed} {
			if presence == lrp.Ordinary || state == lrp.Claimed || state == lrp.Running {
				gauge.WithLabelValues(string(state)).Set(float64(found.Counts.Actuals[store.ActualKind{Presence: presence, State: state}]))
			}
		}
	}
	m.lrpsDesired.Set(float64(found.Counts.Desired))
	planned := map[lrp.EventName]int{}
	for _, s := range steps {
		planned[s.Event.Name]++
	}
	m.lrpsMissing.Set(float64(planned[lrp.Create]))
	m.lrpsExtra.Set(float64(planned[lrp.Retire]))
	crashing := map[lrp.ProcessGUID]bool{}
	for _, a := range found.Crashed {
		crashing[a.Process] = true
	}
	m.crashingDesired.Set(float64(len(crashing)))
	present := 0
	for _, sight := range found.Cells.Cells {
		if sight.LostAt.IsZero() {
			present++
		}
	}
	m.cells.WithLabelValues("present").Set(float64(present))
	m.cells.WithLabelValues("lost").Set(float64(len(found.Cells.Cells) - present))
	m.domains.Reset()
	for _, d := range found.Fresh {
		m.domains.WithLabelValues(string(d)).Set(1)
	}
	m.countedTasks(found.Counts.Tasks, taskSteps)
}

func (m *convergence) countedTasks(byState map[task.State]int64, steps []task.Step) {
	for state, name := range map[task.State]string{
		task.Pending: "pending", task.Running: "running", task.Completed: "completed", task.Resolving: "resolving",
	} {
		m.tasks.WithLabelValues(name).Set(float64(byState[state]))
	}
	for _, s := range steps {
		switch s.Event.Name {
		case task.Forget:
			m.tasksPruned.Inc()
		case task.Kick:
			m.tasksKicked.Inc()
		}
	}
}
