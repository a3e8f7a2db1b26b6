package bbs

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/bbs/internal/store"
	"muster/internal/wait"
)

// rotateEvery is how often it is looked whether values are to be sealed with another key.
const rotateEvery = 10 * time.Second

// encryptionMetrics are what a replica counts about sealed values.
type encryptionMetrics struct {
	unreadableRows *prometheus.CounterVec // by table
	resealedRows   *prometheus.CounterVec // by table
	keysInUse      prometheus.Gauge
}

func newEncryptionMetrics() encryptionMetrics {
	return encryptionMetrics{
		unreadableRows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bbs_unreadable_rows_total",
			Help: "Times that a row was met which cannot be read: it is kept and left out of lists. By table."}, []string{"table"}),
		resealedRows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bbs_resealed_rows_total",
			Help: "Rows that were sealed again with another key. By table."}, []string{"table"}),
		keysInUse: prometheus.NewGauge(prometheus.GaugeOpts{Name: "bbs_encryption_keys_in_use",
			Help: "Keys that stored values are or may be sealed with; 1 once a rotation is complete."}),
	}
}

func (m encryptionMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.unreadableRows, m.resealedRows, m.keysInUse}
}

func (m encryptionMetrics) unreadable(table string) { m.unreadableRows.WithLabelValues(table).Inc() }

func (m encryptionMetrics) resealed(table string, rows int) {
	m.resealedRows.WithLabelValues(table).Add(float64(rows))
}

// rotate replaces other keys by the active one, in the background.
func (r *replica) rotate(ctx context.Context, st *store.Store) error {
	told := rotationLog{log: r.log}
	for {
		start := time.Now()
		report, err := st.Rotate(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			r.log.Warn("replace encryption keys", "error", err)
		default:
			r.metrics.keysInUse.Set(float64(1 + len(report.InUse)))
			if report.Resealed > 0 {
				r.metrics.resealSeconds.Set(time.Since(start).Seconds())
			}
			told.tell(report)
		}
		if !wait.For(ctx, rotateEvery) {
			return ctx.Err()
		}
	}
}

// rotationLog tells what changes about the keys, and does not repeat itself.
type rotationLog struct {
	log     *slog.Logger
	waiting string // which keys were said to be in use still
}

func (l *rotationLog) tell(r store.Rotation) {
	for _, label := range r.Retired {
		if label == "" {
			l.log.Info("values that were stored in plain text are encrypted now")
			continue
		}
		l.log.Info("encryption key retired: it can be removed from encryption.keys", "label", label)
	}
	slices.Sort(r.InUse)
	waiting := strings.Join(r.InUse, ",")
	if waiting == l.waiting {
		return
	}
	l.waiting = waiting
	for _, label := range r.InUse {
		if n := r.Unreadable[label]; n > 0 {
			l.log.Error("encryption key stays in use: some values sealed with it cannot be opened; they are named in the log", "label", label, "values", n)
			continue
		}
		l.log.Info("encryption key is still in use, by this or another replica", "label", label)
	}
}
