package round

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/auctioneer/backlog"
	"muster/internal/daemon"
)

// Metrics are the numbers of a loop.
type Metrics struct {
	started, failed, stateErrors, orderErrors prometheus.Counter
	waiting, coming, cells                    prometheus.Gauge
	roundTime, orderTime, waitTime            prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := daemon.Metrics{Registerer: r, Namespace: "auctioneer"}
	return &Metrics{
		started:     m.Counter("lrp_auctions_started_total", "Instances that a cell accepted."),
		failed:      m.Counter("lrp_auctions_failed_total", "Instances that were not placed, or refused by the chosen cell, per try."),
		stateErrors: m.Counter("failed_cell_state_requests_total", "Times the state of a cell could not be watched."),
		orderErrors: m.Counter("failed_orders_total", "Calls to cells that ended without an answer."),
		waiting:     m.Gauge("waiting_instances", "Instances without a cell."),
		coming:      m.Gauge("coming_instances", "Instances ordered from a cell that the BBS does not show as claimed yet."),
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
	m.failed.Add(float64(len(r.Refused)))
	m.roundTime.Observe(took.Seconds())
}

func (m *Metrics) waited(d time.Duration) { m.waitTime.Observe(max(d, 0).Seconds()) }

func (m *Metrics) performed(ordered, refused int, err error, took time.Duration) {
	m.orderTime.Observe(took.Seconds())
	if err != nil {
		m.orderErrors.Inc()
		return
	}
	m.started.Add(float64(ordered - refused))
	m.failed.Add(float64(refused))
}
