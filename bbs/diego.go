package bbs

import (
	"context"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"muster/bbs/internal/door"
)

// diegoDoor is the door for Diego's clients and where it listens.
type diegoDoor struct {
	*door.Door
	listener net.Listener
}

// openDoor makes the door and listens; nil: Diego's clients are not served.
func (r *replica) openDoor() (*diegoDoor, error) {
	if r.cfg.Diego.ListenAddress == "" {
		return nil, nil
	}
	gate, err := r.cfg.Diego.gate(r.cfg.TLS)
	if err != nil {
		return nil, fmt.Errorf("diego: %w", err)
	}
	d, err := door.New(door.Options{Log: r.log, Server: r.server, Hub: r.hub, Gate: gate})
	if err != nil {
		return nil, err
	}
	r.metrics.registry.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "bbs_diego_streams", Help: "Streams of events to Diego's clients that are open."},
		func() float64 { return float64(d.Streams()) }))
	l, err := net.Listen("tcp", r.cfg.Diego.ListenAddress)
	if err != nil {
		return nil, fmt.Errorf("listen on diego.listen_address: %w", err)
	}
	return &diegoDoor{d, l}, nil
}

// serve answers Diego's clients until ctx ends.
func (d *diegoDoor) serve(ctx context.Context) error { return d.Serve(ctx, d.listener) }
