package relay

import (
	"github.com/prometheus/client_golang/prometheus"

	"muster/internal/daemon"
)

// Meter counts what the relay does.
type Meter struct {
	Accepted, Refused, AcceptErrors prometheus.Counter
	Handshakes, Unreachable         prometheus.Counter
	BytesIn, BytesOut               prometheus.Counter
}

// NewMeter registers the counters.
func NewMeter(reg prometheus.Registerer) *Meter {
	m := daemon.Metrics{Registerer: reg, Namespace: "cell_proxy"}
	return &Meter{
		Accepted:     m.Counter("connections_total", "Connections accepted."),
		Refused:      m.Counter("refused_connections_total", "Connections closed at once, because there were as many as there may be."),
		AcceptErrors: m.Counter("accept_errors_total", "Times a connection could not be accepted, for want of file descriptors or memory."),
		Handshakes:   m.Counter("failed_handshakes_total", "Connections that ended in the TLS handshake."),
		Unreachable:  m.Counter("unreachable_containers_total", "Connections closed because the container does not listen."),
		BytesIn:      m.Counter("received_bytes_total", "Bytes from clients to containers."),
		BytesOut:     m.Counter("sent_bytes_total", "Bytes from containers to clients."),
	}
}
