package bbs

import (
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"muster/bbs/internal/callback"
	"muster/bbs/internal/store"
	"muster/bbs/task"
)

// taskMetrics are what the replica that converges counts of tasks, as the log tells of them.
type taskMetrics struct {
	tasksStarted, tasksSucceeded, tasksFailed *prometheus.CounterVec // by cell

	callbacksDropped prometheus.Counter
	callbacks        *atomic.Pointer[callback.Pool] // of this term; nil: none
}

func newTaskMetrics() taskMetrics {
	byCell := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"cell_id"})
	}
	return taskMetrics{
		tasksStarted:     byCell("bbs_tasks_started_total", "Tasks that a cell began to run."),
		tasksSucceeded:   byCell("bbs_tasks_succeeded_total", "Tasks that ended as they should, by the cell that ran them."),
		tasksFailed:      byCell("bbs_tasks_failed_total", "Tasks that failed, by the cell that ran them; without one, they never ran."),
		callbacksDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "bbs_task_callbacks_dropped_total", Help: "Callbacks of completed tasks that found no room to wait; convergence begins them again."}),
		callbacks:        &atomic.Pointer[callback.Pool]{},
	}
}

func (m taskMetrics) all() []prometheus.Collector {
	ofPool := func(name, help string, value func(*callback.Pool) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if p := m.callbacks.Load(); p != nil {
				return float64(value(p))
			}
			return 0
		})
	}
	return []prometheus.Collector{
		m.tasksStarted, m.tasksSucceeded, m.tasksFailed, m.callbacksDropped,
		ofPool("bbs_task_callbacks_waiting", "Callbacks of completed tasks that wait for a worker.", (*callback.Pool).Waiting),
		ofPool("bbs_task_callbacks_active", "Callbacks of completed tasks that are under way.", (*callback.Pool).Active),
	}
}

// changed counts what a change did to a task.
func (m taskMetrics) changed(c *task.Change) {
	switch {
	case c.Before == nil || c.After == nil:
	case c.Before.State == task.Pending && c.After.State == task.Running:
		m.tasksStarted.WithLabelValues(string(c.After.Cell)).Inc()
	case c.After.State != task.Completed || c.Before.State == task.Resolving: // it has been over already
	case c.After.Failed:
		m.tasksFailed.WithLabelValues(string(c.Before.Cell)).Inc()
	default:
		m.tasksSucceeded.WithLabelValues(string(c.Before.Cell)).Inc()
	}
}

// partMetrics are what a replica counts of its parts: the writer, the lease, and the start.
type partMetrics struct {
	batchRetries, batchFailures prometheus.Counter
	hubLag                      prometheus.Gauge
	leaseTermsLost              prometheus.Counter
	leaseRenewalsFailed         prometheus.Counter
	migrationSeconds            prometheus.Gauge
	resealSeconds               prometheus.Gauge
}

func newPartMetrics() partMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	return partMetrics{
		batchRetries:        counter("bbs_batch_retries_total", "Attempts to commit a batch that failed and were made again."),
		batchFailures:       counter("bbs_batch_failures_total", "Batches that were given up: their callers were told that the database does not answer."),
		hubLag:              gauge("bbs_hub_lag", "Revisions that the log was ahead of what watches were given when it was looked at last."),
		leaseTermsLost:      counter("bbs_lease_terms_lost_total", "Terms of leadership that ended because the lease was lost or could not be renewed in time."),
		leaseRenewalsFailed: counter("bbs_lease_renewals_failed_total", "Attempts to renew the lease that failed."),
		migrationSeconds:    gauge("bbs_migration_seconds", "Time that migrating the database took at the start."),
		resealSeconds:       gauge("bbs_reseal_seconds", "Time of the newest run that sealed values with another key."),
	}
}

func (m partMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.batchRetries, m.batchFailures, m.hubLag, m.leaseTermsLost, m.leaseRenewalsFailed, m.migrationSeconds, m.resealSeconds,
	}
}

// lagged notes how far the log is ahead of the hub.
func (m *metrics) lagged(revision, newest uint64) {
	m.hubLag.Set(float64(revision - min(newest, revision)))
}

// watchStore shows how many calls wait for the writers of a store.
func (m *metrics) watchStore(s *store.Store) {
	for queue, waiting := range map[string]func(store.Waiting) int{
		"calls":  func(w store.Waiting) int { return w.Calls },
		"signs":  func(w store.Waiting) int { return w.Signs },
		"chunks": func(w store.Waiting) int { return w.Chunks },
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "bbs_queue_length", ConstLabels: prometheus.Labels{"queue": queue},
			Help: "What waits for a writer: single calls, signs of life of cells, or parts of bulk calls.",
		}, func() float64 { return float64(waiting(s.Waiting())) }))
	}
}

// watchPools shows how the connections to the database are used.
func (m *metrics) watchPools(pools store.Pools) {
	for name, pool := range map[string]*pgxpool.Pool{"read": pools.Read, "write": pools.Write} {
		labels := prometheus.Labels{"pool": name}
		gauge := func(name, help string, value func(*pgxpool.Stat) int32) {
			m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels},
				func() float64 { return float64(value(pool.Stat())) }))
		}
		gauge("bbs_db_connections_max", "Connections that a pool may have.", (*pgxpool.Stat).MaxConns)
		gauge("bbs_db_connections_open", "Connections that a pool has.", (*pgxpool.Stat).TotalConns)
		gauge("bbs_db_connections_in_use", "Connections of a pool that are in use.", (*pgxpool.Stat).AcquiredConns)
		counter := func(name, help string, value func(*pgxpool.Stat) float64) {
			m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
				func() float64 { return value(pool.Stat()) }))
		}
		counter("bbs_db_waits_total", "Times that a connection had to be waited for.",
			func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) })
		counter("bbs_db_wait_seconds_total", "Time that was spent waiting for connections.",
			func(s *pgxpool.Stat) float64 { return s.EmptyAcquireWaitTime().Seconds() })
	}
}
