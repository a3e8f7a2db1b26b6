package round

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/auctioneer/backlog"
	"muster/cells"
	"muster/internal/daemon"
)

// Metrics are the numbers of a loop.
type Metrics struct {
	instances, tasks               kind
	stateErrors, orderErrors       prometheus.Counter
	waiting, coming, cells         prometheus.Gauge
	roundTime, orderTime, waitTime prometheus.Histogram
}

// kind counts work of one kind.
type kind struct{ started, failed prometheus.Counter }

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := daemon.Metrics{Registerer: r, Namespace: "auctioneer"}
	return &Metrics{
		instances: kind{
			m.Counter("lrp_auctions_started_total", "Instances that a cell accepted."),
			m.Counter("lrp_auctions_failed_total", "Instances that were not placed, or refused by the chosen cell, per try."),
		},
		tasks: kind{
			m.Counter("task_auctions_started_total", "Tasks that a cell accepted."),
			m.Counter("task_auctions_failed_total", "Tasks that were not placed, or refused by the chosen cell, per try."),
		},
		stateErrors: m.Counter("failed_cell_state_requests_total", "Times the state of a cell could not be watched."),
		orderErrors: m.Counter("failed_orders_total", "Calls to cells that ended without an answer."),
		waiting:     m.Gauge("waiting_instances", "Instances and tasks without a cell."),
		coming:      m.Gauge("coming_instances", "Instances and tasks ordered from a cell that the BBS does not show as claimed yet."),
		cells:       m.Gauge("cells", "Cells whose state is known."),
		roundTime:   m.Seconds("auction_duration_seconds", "Time to decide one auction."),
		orderTime:   m.Seconds("order_duration_seconds", "Time of one call that orders work from a cell."),
		waitTime:    m.Seconds("placement_wait_seconds", "Time from the wish for an instance, or its last change, to the order."),
	}
}

func (m *Metrics) world(waiting, coming, cells int) {
	m.waiting.Set(float64(waiting))
	m.coming.Set(float64(coming))
	m.cells.Set(float64(cells))
}

func (m *Metrics) round(r backlog.Round, took time.Duration) {
	for _, refused := range r.Refused {
		m.of(refused.Work.Task).failed.Inc()
	}
	m.roundTime.Observe(took.Seconds())
}

func (m *Metrics) waited(d time.Duration) { m.waitTime.Observe(max(d, 0).Seconds()) }

func (m *Metrics) performed(o backlog.Order, refused []cells.Refusal, err error, took time.Duration) {
	m.orderTime.Observe(took.Seconds())
	if err != nil {
		m.orderErrors.Inc()
		return
	}
	instances, tasks := len(o.Instances), len(o.Tasks)
	for _, r := range refused {
		m.of(r.Task).failed.Inc()
		if r.Task != nil {
			tasks--
		} else {
			instances--
		}
	}
	m.instances.started.Add(float64(max(instances, 0)))
	m.tasks.started.Add(float64(max(tasks, 0)))
}

// of returns the counters of instances, or those of tasks.
func (m *Metrics) of(t *cells.Task) kind {
	if t != nil {
		return m.tasks
	}
	return m.instances
}
