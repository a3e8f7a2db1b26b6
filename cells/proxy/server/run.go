// Package server is the process cell-proxy: the relay with what keeps it going.
//
//	Dir/lock            held by the process that has the directory, from its start until it has handed over
//	Dir/control.sock    HTTP: /v1/self, /v1/alive, /v1/containers, /metrics
//	Dir/handover.sock   where a successor asks for the sockets
//	Dir/containers/     what is to be done, a file for each container
//
// A process that starts with nobody there opens its sockets as the files say. A successor gets them, the lock
// and both sockets above from the process that is there: the very same sockets, so that nothing that waits in
// them is lost. From the moment it is asked until its successor says that it is ready, the old process takes
// no more orders; they wait in the control socket. Then it stops accepting and lets its connections end. If the
// successor does not get that far, the old process goes on.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster/cells/proxy"
	"muster/cells/proxy/internal/relay"
	"muster/cells/proxy/internal/state"
	"muster/internal/daemon"
)

// debugRetry is how often the debug address is tried while the process before still has it.
const debugRetry = time.Second

// errHandedOver ends the work of a process that has a successor.
var errHandedOver = errors.New("handed over")

// assembled is the daemon, put together.
type assembled struct {
	cfg     *Config
	log     *slog.Logger
	relay   *relay.Relay
	state   state.Dir
	held    *held
	metrics *prometheus.Registry
}

// Run runs the proxy until ctx ends or a successor has taken over, and its connections have then ended. It
// returns after every goroutine it started.
func Run(ctx context.Context, log *slog.Logger, cfg *Config) error {
	p, err := newProcess(cfg, log)
	if err != nil {
		return err
	}
	var g daemon.Group
	g.Add("relay", p.relay.Run)
	g.Add("debug", p.debug)
	g.Add("control", p.serve)
	err = g.Run(ctx)
	drain := time.Duration(cfg.StopTimeout)
	if errors.Is(err, errHandedOver) {
		err, drain = nil, time.Duration(cfg.DrainTimeout)
	}
	p.relay.Release()
	p.held.close()
	log.Info("not accepting any more", "connections", p.relay.Connections(), "wait", drain)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	p.relay.Drain(end)
	return err
}

func newProcess(cfg *Config, log *slog.Logger) (*assembled, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r, err := relay.New(cfg.relay(), log, relay.NewMeter(reg))
	if err != nil {
		return nil, err
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "cell_proxy", Name: "connections", Help: "Connections that are open.",
	}, func() float64 { return float64(r.Connections()) }))
	h, err := hold(cfg)
	if err != nil {
		return nil, err
	}
	p := &assembled{cfg: cfg, log: log, relay: r, held: h, metrics: reg}
	if p.state, err = state.Open(h.path(proxy.ContainersDir)); err != nil {
		h.close()
		return nil, err
	}
	containers, problems := p.state.Load()
	for _, err := range problems {
		log.Error("container left out", "error", err)
	}
	for _, c := range containers {
		r.Restore(c, h.inherited)
	}
	log.Info("accepting", "containers", len(containers), "sockets_taken_over", len(h.inherited))
	if err := h.confirm(); err != nil {
		r.Release()
		h.close()
		return nil, err
	}
	return p, nil
}

// debug serves the debug address, which the process before may have for a moment yet.
func (p *assembled) debug(ctx context.Context) error {
	healthy := func() error { return nil }
	serve := daemon.Debug(p.cfg.DebugAddress, p.metrics, healthy)
	for {
		err := serve(ctx)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		select {
		case <-time.After(debugRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

// arguments returns the command line without what only says how the process began.
func arguments() []string {
	var args []string
	for _, a := range os.Args[1:] {
		if a != "-takeover" && a != "--takeover" {
			args = append(args, a)
		}
	}
	return args
}

func failed(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }
