// Package gorouter is the HTTP router: it learns routes from NATS and passes requests on to the
// instances of apps.
//
//	NATS ──► subscribe ──► registry ──► routes.Table (immutable) ──► proxy ──► backends
//	                                          │                       ▲ │
//	operators ──► status /health /routes ◄────┘       clients ────────┘ └──► accesslog, meter
//
// The table is the only thing the two halves share: the registry makes a new one for each batch of
// messages, and requests use whichever is there when they begin.
package gorouter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster/gorouter/http1"
	"muster/gorouter/internal/accesslog"
	"muster/gorouter/internal/meter"
	"muster/gorouter/internal/proxy"
	"muster/gorouter/internal/status"
	"muster/gorouter/internal/subscribe"
	"muster/gorouter/routes"
	"muster/internal/daemon"
	"muster/internal/identity"
)

// The states of the router; it only goes forward.
const (
	initializing int32 = iota
	healthy
	degraded
)

// router is the assembled daemon.
type router struct {
	cfg      *Config
	log      *slog.Logger
	state    atomic.Int32
	greeted  chan struct{} // closed by the first greeting
	proxy    *proxy.Server
	registry *registry
	dropped  atomic.Uint64 // times NATS dropped messages
}

// Run runs the router until ctx ends or it has drained. It returns after every goroutine it started.
func Run(ctx context.Context, log *slog.Logger, cfg *Config) error {
	access, closeLog, err := openLog(cfg.AccessLog)
	if err != nil {
		return err
	}
	defer closeLog()
	var natsTLS *tls.Config
	if !cfg.NATSPlaintext {
		if natsTLS, err = cfg.TLS.Client(identity.NATS); err != nil {
			return err
		}
	}
	pcfg, err := cfg.proxy()
	if err != nil {
		return err
	}
	statusListener, err := net.Listen("tcp", cfg.StatusAddress)
	if err != nil {
		return fmt.Errorf("listen on status_address: %w", err)
	}
	defer statusListener.Close()

	m := &meter.Meter{}
	lines := accesslog.New(access, log)
	r := &router{cfg: cfg, log: log, greeted: make(chan struct{}), proxy: proxy.New(pcfg, log, lines, m)}
	r.registry = newRegistry(cfg, log, m.Shard(), r.proxy)
	metrics := r.gauges(m, lines)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var g daemon.Group
	g.Add("access log", lines.Run)
	g.Add("debug", daemon.Debug(cfg.DebugAddress, metrics, r.health))
	g.Add("status", func(ctx context.Context) error {
		h := status.Handler(func() bool { return r.state.Load() == healthy }, r.registry.table.Load)
		return daemon.ServeHTTP(ctx, statusListener, h)
	})
	g.Add("subscribe", func(ctx context.Context) error { return subscribe.Run(ctx, log, r.subscription(natsTLS)) })
	g.Add("http", func(ctx context.Context) error { return r.serve(ctx, statusListener.Addr()) })
	g.Add("drain", func(ctx context.Context) error { return r.waitForDrain(ctx, stop) })
	if err := cfg.Register(&g, log, "gorouter", cfg.HTTPAddress); err != nil {
		return err
	}
	return g.Run(ctx)
}

func newRegistry(cfg *Config, log *slog.Logger, shard *meter.Shard, p *proxy.Server) *registry {
	reg := &registry{
		log: log, meter: shard, make: p.Backend, set: p.SetTable, now: time.Now,
		backends: map[proxy.ID]*held{}, heard: newHeard(time.Duration(cfg.StaleThreshold)), pruneEvery: time.Duration(cfg.PruneInterval), away: true,
	}
	reg.show(routes.New[*proxy.Turn, *proxy.Backend](routes.Rules{
		StaleAfter: time.Duration(cfg.StaleThreshold), TLSStaleFactor: cfg.TLSStaleFactor, KeepEmpty: time.Duration(cfg.EmptyPoolTimeout),
	}))
	return reg
}

func (c *Config) proxy() (proxy.Config, error) {
	p := proxy.Config{
		Limits:      http1.Limits{HeadBytes: c.MaxHeaderBytes, Fields: c.MaxHeaders},
		MaxAttempts: c.MaxAttempts, MaxInFlight: c.MaxConns, MaxIdle: c.MaxIdleConns,
		FailedFor: time.Duration(c.EndpointRetryAfter), DialTimeout: time.Duration(c.EndpointDialTimeout), TLSTimeout: time.Duration(c.TLSHandshakeTimeout),
		RequestTimeout: time.Duration(c.RequestTimeout), HeadTimeout: time.Duration(c.ReadHeaderTimeout),
		ClientIdle: time.Duration(c.FrontendIdleTimeout), BackendIdle: time.Duration(c.BackendIdleTimeout),
		EmptyIs503: c.EmptyPool503, ForceHTTPS: c.ForceHTTPS, SanitizeProto: c.SanitizeProto,
	}
	if c.BackendCertFile != "" {
		var err error
		if p.BackendCert, err = identity.KeyPair(c.BackendCertFile, c.BackendKeyFile); err != nil {
			return p, fmt.Errorf("backend_cert_file and backend_key_file: %w", err)
		}
	}
	if c.BackendCAFile == "" {
		return p, nil
	}
	pem, err := os.ReadFile(c.BackendCAFile)
	if err != nil {
		return p, fmt.Errorf("read backend_ca_file: %w", err)
	}
	if p.BackendCAs, err = x509.SystemCertPool(); err != nil {
		p.BackendCAs = x509.NewCertPool() // a machine without CAs of its own trusts the given ones
	}
	if !p.BackendCAs.AppendCertsFromPEM(pem) {
		return p, fmt.Errorf("backend_ca_file %s holds no certificate", c.BackendCAFile)
	}
	return p, nil
}

func openLog(name string) (io.Writer, func(), error) {
	switch name {
	case "":
		return nil, func() {}, nil
	case "-":
		return os.Stdout, func() {}, nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("open access_log: %w", err)
	}
	return f, func() { f.Close() }, nil
}

// gauges adds what is read when asked for.
func (r *router) gauges(m *meter.Meter, lines *accesslog.Log) *prometheus.Registry {
	m.Gauge("gorouter_total_routes", "Routes in the table.", func() float64 { return float64(r.registry.table.Load().Routes()) })
	m.Gauge("gorouter_total_endpoints", "Endpoints in the table, each counted for every route.", func() float64 { return float64(r.registry.table.Load().Endpoints()) })
	m.Gauge("gorouter_connections", "Connected clients.", func() float64 { return float64(r.proxy.Connections()) })
	m.Gauge("gorouter_access_log_dropped_lines", "Lines dropped because the log could not be written fast enough.", func() float64 { return float64(lines.Dropped()) })
	m.Gauge("gorouter_nats_overflows", "Times NATS dropped messages because the router was too slow.", func() float64 { return float64(r.dropped.Load()) })
	m.Gauge("gorouter_ms_since_last_registry_update", "Milliseconds since a route message arrived; -1: none has.", func() float64 {
		at := r.registry.changed.Load()
		if at == 0 {
			return -1
		}
		return float64(time.Now().UnixNano()-at) / 1e6
	})
	reg := prometheus.NewRegistry()
	reg.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func (r *router) health() error {
	if s := r.state.Load(); s != healthy {
		return fmt.Errorf("router is %s", [...]string{"waiting for routes", "healthy", "draining"}[s])
	}
	return nil
}

func (r *router) subscription(natsTLS *tls.Config) subscribe.Config {
	first := true
	return subscribe.Config{
		URLs: r.cfg.NATSURLs, TLS: natsTLS,
		Greeting: subscribe.Greeting{
			ID: "0-" + uuid.NewString(), Hosts: hosts(),
			RegisterSeconds: int(time.Duration(r.cfg.RegisterInterval).Seconds()), PruneSeconds: int(time.Duration(r.cfg.StaleThreshold).Seconds()),
		},
		Connected: func() {
			if first {
				first = false
				close(r.greeted)
			}
		},
		Messages: r.registry.messages,
		Tick:     r.registry.tick,
		Dropped:  func() { r.dropped.Add(1) },
	}
}

// hosts returns this machine's addresses, for the greeting.
func hosts() []string {
	out := []string{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			out = append(out, p.Addr().String())
		}
	}
	return out
}

// serve waits until routes had time to arrive, and then accepts clients until ctx ends.
func (r *router) serve(ctx context.Context, statusAddr net.Addr) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.greeted:
	}
	delay := time.NewTimer(time.Duration(r.cfg.StartResponseDelay))
	defer delay.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-delay.C:
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.cfg.HTTPAddress)
	if err != nil {
		return fmt.Errorf("listen on http_address: %w", err)
	}
	r.state.CompareAndSwap(initializing, healthy)
	r.log.Info("accepting clients", "address", l.Addr().String(), "routes", r.registry.table.Load().Routes())
	if r.cfg.Ready != nil {
		r.cfg.Ready(l.Addr(), statusAddr)
	}
	stopped := context.AfterFunc(ctx, func() { r.state.Store(degraded) })
	defer stopped()
	return r.proxy.Serve(ctx, l, time.Duration(r.cfg.DrainTimeout))
}

// waitForDrain ends the router after the load balancers had time to see that it is going.
func (r *router) waitForDrain(ctx context.Context, stop func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.cfg.Drain:
	}
	r.state.Store(degraded)
	r.log.Info("draining", "wait", time.Duration(r.cfg.DrainWait))
	wait := time.NewTimer(time.Duration(r.cfg.DrainWait))
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-wait.C:
		stop()
		<-ctx.Done()
	}
	return nil
}
