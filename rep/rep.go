package rep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster/bbs/bbsclient"
	"muster/cells"
	"muster/cells/containerd"
	"muster/cells/engine"
	"muster/cells/fetch"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/rep/internal/probe"
	"muster/rep/internal/runner"
	"muster/rep/internal/server"
	"muster/rep/recipe"
)

const (
	// probePool bounds the health checks that are under way on the cell.
	probePool = 64
	// pingEvery is the time between looks whether the engine answers; pingTimeout bounds one.
	pingEvery   = time.Second
	pingTimeout = 5 * time.Second
)

// Run is the daemon: it runs until ctx ends or a part of it fails, and returns only after all its
// goroutines have. It leaves the containers running.
func Run(ctx context.Context, log *slog.Logger, cfg *Config) error {
	log = log.With("cell_id", string(cfg.CellID))
	eng, runEngine, closeEngine, err := openEngine(cfg, log)
	if err != nil {
		return err
	}
	defer closeEngine()
	clientTLS, err := cfg.TLS.Client(identity.BBS)
	if err != nil {
		return err
	}
	serverTLS, err := cfg.TLS.Server(server.Roles()...)
	if err != nil {
		return err
	}
	conn, err := daemon.DialGRPC(cfg.BBSAddress, clientTLS)
	if err != nil {
		return err
	}
	defer conn.Close()
	bbs := bbsclient.New(conn)

	if err := waitForEngine(ctx, eng, log); err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen on listen_address: %w", err)
	}
	defer l.Close() // of no effect once it is served
	cellConfig, err := cfg.cell(l.Addr())
	if err != nil {
		return err
	}
	files, err := fetch.Open(cfg.downloads(log))
	if err != nil {
		return err
	}
	defer files.Close()
	closeBelongings, err := cfg.openBelongings(&cellConfig, files)
	if err != nil {
		return err
	}
	defer closeBelongings()
	registry := prometheus.NewRegistry()
	cell := runner.New(cellConfig, eng, bbs, runner.NewMetrics(registry), log)
	registry.MustRegister(runner.NewCollector(cell), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := cell.Adopt(ctx); err != nil {
		return err
	}
	files.Settle()
	grpcServer := daemon.NewGRPCServer(serverTLS, server.Options()...)
	server.New(cell).Register(grpcServer.Server)

	var g daemon.Group
	g.Add("debug listener", daemon.Debug(cfg.DebugAddress, registry, func() error { return healthy(cell) }))
	g.Add("container engine", runEngine)
	g.Add("instances", cell.Run)
	g.Add("engine watch", func(ctx context.Context) error { return watchEngine(ctx, eng, cell, log) })
	g.Add("gRPC listener", func(ctx context.Context) error { return daemon.ServeGRPC(ctx, l, grpcServer) })
	g.Add("BBS follower", func(ctx context.Context) error {
		return bbs.Follow(ctx, bbsclient.FollowOptions{
			Filter: bbsclient.WatchFilter{Cell: cfg.CellID}, Relist: time.Duration(cfg.CompareInterval),
			List: cell.List, Apply: cell.Hear, Log: log,
		})
	})
	g.Add("heartbeat", heartbeat{
		bbs: bbs, presence: cellConfig.Presence, log: log,
		every: time.Duration(cfg.HeartbeatInterval), ttl: time.Duration(cfg.PresenceTTL),
	}.run)
	if err := register(cfg, &g, log, cellConfig.Presence); err != nil {
		return err
	}
	log.Info("cell is up", "address", l.Addr().String(), "capacity", cellConfig.Presence.Capacity)
	if cfg.Ready != nil {
		cfg.Ready(l.Addr())
	}
	return g.Run(ctx)
}

// register makes the cell known in Consul, when there is one: as present, beside its heartbeats, and where its rep is.
func register(cfg *Config, g *daemon.Group, log *slog.Logger, p cells.Presence) error {
	u, err := url.Parse(p.RepURL)
	if err != nil {
		return fmt.Errorf("rep_url: %w", err)
	}
	if err := cfg.Announce(g, log, string(cfg.CellID), []byte(p.RepURL)); err != nil {
		return err
	}
	return cfg.Register(g, log, "rep", u.Host)
}

// openEngine returns the engine, what has to run beside it, and what closes it.
func openEngine(cfg *Config, log *slog.Logger) (engine.Engine, func(context.Context) error, func(), error) {
	if cfg.Engine != nil {
		return cfg.Engine, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, func() {}, nil
	}
	ec := cfg.engineConfig()
	ec.Log = log
	e, err := containerd.New(ec)
	if err != nil {
		return nil, nil, nil, err
	}
	closeEngine := func() {
		if err := e.Close(); err != nil {
			log.Warn("container engine not closed", "error", err)
		}
	}
	if err := e.Own(); err != nil {
		closeEngine()
		return nil, nil, nil, err
	}
	return e, e.Run, closeEngine, nil
}

// cell returns the configuration of the instances' part.
func (c *Config) cell(listening net.Addr) (runner.Config, error) {
	capacity, err := c.capacity()
	if err != nil {
		return runner.Config{}, err
	}
	first, last, err := ports(c.PortRange)
	if err != nil {
		return runner.Config{}, fmt.Errorf("port_range: %w", err)
	}
	repURL := c.RepURL
	if repURL == "" {
		_, port, err := net.SplitHostPort(listening.String())
		if err != nil {
			return runner.Config{}, fmt.Errorf("find out the port of listen_address: %w", err)
		}
		repURL = "https://" + net.JoinHostPort(c.ExternalAddress, port)
	}
	dial := c.Dial
	if dial == nil {
		var d net.Dialer
		dial = d.DialContext
	}
	return runner.Config{
		Presence: cells.Presence{
			Cell: c.CellID, RepURL: repURL, Zone: c.Zone, Capacity: capacity, RootFSProviders: c.providers(),
			PlacementTags: c.PlacementTags, OptionalPlacementTags: c.OptionalPlacementTags,
		},
		Index: c.CellIndex, PreferInstance: c.PreferInstanceAddress,
		Recipe: recipe.Cell{
			Address: c.ExternalAddress, Graceful: time.Duration(c.GracefulInterval), LogLines: c.MaxLogLines,
			StartCheckEvery: time.Duration(c.StartCheckInterval), CheckEvery: time.Duration(c.CheckInterval),
		},
		FirstPort: first, LastPort: last,
		CreateTimeout: time.Duration(c.CreateTimeout), ReapEvery: time.Duration(c.ReapInterval),
		Probe: probe.Settings{
			Timeout: time.Duration(c.CheckTimeout), Interval: time.Duration(c.CheckInterval), StartupMax: time.Duration(c.StartCheckInterval),
			Dial: dial, Pool: make(chan struct{}, probePool),
		},
	}, nil
}

func healthy(cell *runner.Cell) error {
	if state, _ := cell.State(); state.UnhealthyReason != "" {
		return errors.New(state.UnhealthyReason)
	}
	return nil
}

// waitForEngine returns when the engine answers: without it nothing can be adopted.
func waitForEngine(ctx context.Context, eng engine.Engine, log *slog.Logger) error {
	for {
		err := ping(ctx, eng)
		if err == nil {
			return nil
		}
		log.Warn("waiting for the container engine", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func ping(ctx context.Context, eng engine.Engine) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return eng.Ping(ctx)
}

// watchEngine lets the cell take no work while the engine does not answer. Instances are left alone.
func watchEngine(ctx context.Context, eng engine.Engine, cell *runner.Cell, log *slog.Logger) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for well := true; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		err := ping(ctx, eng)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil:
			cell.EngineAnswers() // also when somebody else has found it away meanwhile
			if !well {
				log.Info("the container engine answers again")
			}
		default:
			cell.EngineAway(err)
			if well {
				log.Error("the container engine does not answer", "error", err)
			}
		}
		well = err == nil
	}
}

// heartbeat keeps the presence of the cell.
type heartbeat struct {
	bbs        *bbsclient.Client
	presence   cells.Presence
	every, ttl time.Duration
	log        *slog.Logger
}

// run beats until ctx ends. A beat that fails is made good by the next; losing presence stops nothing.
func (h heartbeat) run(ctx context.Context) error {
	ticker := time.NewTicker(h.every)
	defer ticker.Stop()
	for alive, first := false, true; ; first = false {
		err := h.beat(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err != nil && (alive || first):
			h.log.Warn("heartbeat not answered", "error", err)
		case err == nil && !alive:
			h.log.Info("cell is present")
		}
		alive = err == nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (h heartbeat) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.ttl)
	defer cancel()
	return h.bbs.Heartbeat(ctx, h.presence, h.ttl)
}
