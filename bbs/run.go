package bbs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/server"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/internal/daemon"
	"muster/internal/wait"
	bbsv1 "muster/proto/bbs/v1"
)

// Times of a replica.
const (
	// openPause is the wait between attempts to get at the database at the start.
	openPause = 500 * time.Millisecond
	// pingTime bounds one question whether the database answers, and one look for silent cells.
	pingTime = 2 * time.Second
)

// replica is one running BBS.
type replica struct {
	cfg     *Config
	log     *slog.Logger
	hub     *hub.Hub
	server  *server.Server
	health  *health.Server
	metrics *metrics
	heard   atomic.Pointer[time.Time] // since when heartbeats can be stored; nil: they cannot
	state   atomic.Pointer[error]     // why it is not healthy; nil: it is
	addr    net.Addr                  // where calls are answered
	door    *diegoDoor                // nil: Diego's clients are not served
}

// Run runs a replica until ctx ends. It listens at once and answers UNAVAILABLE until the database
// is there and migrated.
func Run(ctx context.Context, log *slog.Logger, cfg *Config) error {
	tls, err := cfg.TLS.Server()
	if err != nil {
		return err
	}
	sealer, err := cfg.Encryption.sealer()
	if err != nil {
		return err
	}
	pools, err := store.OpenPools(ctx, string(cfg.DatabaseURL), cfg.DatabaseConnections)
	if err != nil {
		return err
	}
	defer pools.Close()
	r := &replica{cfg: cfg, log: log, health: health.NewServer()}
	r.hub = hub.New(log, time.Duration(cfg.Bookmark))
	r.metrics = newMetrics(r.hub)
	r.server = server.New(server.Options{Log: log, Called: r.metrics.called})
	st, err := store.New(store.Options{Pools: pools, Log: log, Sealer: sealer, Unreadable: r.metrics.unreadable, Resealed: r.metrics.resealed, Published: r.hub.Publish, Committed: r.metrics.committed, Retried: r.metrics.batchRetries.Inc, Failed: r.metrics.batchFailures.Inc, TaskPolicy: cfg.taskPolicy()})
	if err != nil {
		return err
	}
	r.metrics.watchPools(pools)
	r.metrics.watchStore(st)
	g := daemon.NewGRPCServer(tls, r.server.Interceptors()...)
	bbsv1.RegisterBBSServiceServer(g, r.server)
	healthv1.RegisterHealthServer(g, r.health)
	reflection.Register(g)
	r.unhealthy(errors.New("starting"))

	l, err := net.Listen("tcp", cfg.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen on listen_address: %w", err)
	}
	r.addr = l.Addr()
	if r.door, err = r.openDoor(); err != nil {
		return errors.Join(err, l.Close())
	}
	// Stopped in reverse order: first no more calls, last the writer.
	var group daemon.Group
	group.Add("store", st.Run)
	group.Add("records", func(ctx context.Context) error { return r.serve(ctx, st) })
	group.Add("debug", daemon.Debug(cfg.DebugAddress, r.metrics.registry, r.healthy))
	group.Add("grpc", func(ctx context.Context) error { return daemon.ServeGRPC(ctx, l, g) })
	if r.door != nil {
		group.Add("diego", r.door.serve)
	}
	if err := cfg.Register(&group, log, "bbs", l.Addr().String()); err != nil {
		return err
	}
	return group.Run(ctx)
}

// serve gets the database ready and then runs everything that works on the records.
func (r *replica) serve(ctx context.Context, st *store.Store) error {
	keys, err := r.open(ctx, st)
	if err != nil {
		return err
	}
	r.server.Open(st, r.hub)
	r.unhealthy(nil)
	r.log.Info("answering calls", "address", r.addr.String(), "revision", r.hub.Newest())
	if r.door != nil && r.cfg.DiegoReady != nil {
		r.cfg.DiegoReady(r.door.listener.Addr())
	}
	if r.cfg.Ready != nil {
		r.cfg.Ready(r.addr)
	}

	var group daemon.Group
	group.Add("keys", keys.Run)
	group.Add("hub", r.hub.Run)
	if r.door != nil {
		group.Add("diego streams", r.door.Run)
	}
	group.Add("presence", func(ctx context.Context) error { return r.presence(ctx, st) })
	group.Add("rotation", func(ctx context.Context) error { return r.rotate(ctx, st) })
	group.Add("pruner", func(ctx context.Context) error { return r.prune(ctx, st) })
	group.Add("converger", func(ctx context.Context) error { return r.converge(ctx, st) })
	return group.Run(ctx)
}

// open gets the database ready and starts the hub, as often as it takes, unless the database refuses
// this program or its keys.
func (r *replica) open(ctx context.Context, st *store.Store) (*store.Enrolment, error) {
	for {
		keys, err := r.tryOpen(ctx, st)
		switch {
		case err == nil:
			return keys, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, store.ErrRefused):
			return nil, err
		}
		r.unhealthy(err)
		r.log.Warn("the database is not ready", "error", err, "pause", openPause)
		if !wait.For(ctx, openPause) {
			return nil, ctx.Err()
		}
	}
}

func (r *replica) tryOpen(ctx context.Context, st *store.Store) (*store.Enrolment, error) {
	start := time.Now()
	if err := store.Migrate(ctx, string(r.cfg.DatabaseURL)); err != nil {
		return nil, err
	}
	r.metrics.migrationSeconds.Set(time.Since(start).Seconds())
	keys, err := st.Enrol(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.hub.Start(ctx, st); err != nil {
		keys.Close()
		return nil, err
	}
	return keys, nil
}

// presence asks the database again and again whether it answers, and declares
// cells lost that went silent.
// How long it has answered without interruption bounds what silence can mean: nobody is declared
// silent while, or right after, nobody could be heard.
func (r *replica) presence(ctx context.Context, st *store.Store) error {
	r.hears(time.Now())
	for wait.For(ctx, time.Duration(r.cfg.SweepInterval)) {
		err := r.ping(ctx, st)
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // that is why, not the database
		case err != nil:
			r.heard.Store(nil)
			r.unhealthy(err)
			continue
		case r.heard.Load() == nil:
			r.hears(time.Now())
		}
		r.unhealthy(nil)
		// Half of it: cells get as long again to come back as they have to fall silent.
		lost, err := r.sweep(ctx, st, time.Since(*r.heard.Load())/2)
		for _, id := range lost {
			r.metrics.cellsLost.Inc()
			r.log.Warn("cell lost: no heartbeat in time", "cell_id", id)
		}
		if err != nil && ctx.Err() == nil {
			r.log.Warn("look for silent cells", "error", err)
		}
	}
	return ctx.Err()
}

func (r *replica) hears(since time.Time) { r.heard.Store(&since) }

// hearing returns since when heartbeats can be stored without interruption; zero: they cannot.
func (r *replica) hearing() time.Time {
	if since := r.heard.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

// sweep gives up in time to notice that the database does not answer.
func (r *replica) sweep(ctx context.Context, st *store.Store, heard time.Duration) ([]lrp.CellID, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	return st.Sweep(ctx, heard)
}

func (r *replica) ping(ctx context.Context, st *store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	revision, err := st.Revision(ctx)
	if err == nil {
		r.metrics.lagged(revision, r.hub.Newest())
	}
	return err
}

// unhealthy says why the replica cannot do its work; nil: it can.
func (r *replica) unhealthy(why error) {
	was := r.state.Swap(&why)
	if was != nil && (*was == nil) == (why == nil) {
		return
	}
	status := healthv1.HealthCheckResponse_SERVING
	if why != nil {
		status = healthv1.HealthCheckResponse_NOT_SERVING
	}
	r.health.SetServingStatus("", status)
	r.health.SetServingStatus(bbsv1.BBSService_ServiceDesc.ServiceName, status)
	switch {
	case was == nil: // it begins
	case why == nil:
		r.log.Info("serving: the database answers")
	default:
		r.log.Warn("not serving: the database does not answer", "error", why)
	}
}

func (r *replica) healthy() error { return *r.state.Load() }

func (r *replica) prune(ctx context.Context, st *store.Store) error {
	for wait.For(ctx, time.Duration(r.cfg.PruneEvery)) {
		n, err := st.Prune(ctx, time.Duration(r.cfg.EventAge), r.cfg.EventCount)
		r.metrics.eventsPruned.Add(float64(n))
		if err != nil && ctx.Err() == nil {
			r.log.Warn("cut the log", "error", err)
		}
	}
	return ctx.Err()
}
