// Package emitter is the daemon that tells routers where instances are: it follows the BBS, keeps the
// routing table (table), and publishes what changes at once and everything now and then.
//
//	bbs ──list, watch──► follow ──► table ──► publish ──NATS──► routers
//	                                  ▲
//	routers ──greeting, interval──► broadcast
//
// It keeps nothing on disk, and needs nobody: two of them say the same.
package emitter

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"muster/bbs/bbsclient"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/route-emitter/internal/publish"
	"muster/route-emitter/table"
)

// confirmAfter is how soon a list is made again that would have removed much at once.
const confirmAfter = 5 * time.Second

// Run is the daemon; it returns when ctx ends or a part fails.
func Run(ctx context.Context, log *slog.Logger, cfg *Config) error {
	toBBS, err := cfg.TLS.Client(identity.BBS)
	if err != nil {
		return err
	}
	conn, err := daemon.DialGRPC(cfg.BBSAddress, toBBS)
	if err != nil {
		return err
	}
	defer conn.Close()
	o := publish.Options{
		Addresses: cfg.NATSAddresses, Username: cfg.NATSUsername, Password: string(cfg.NATSPassword),
		Jitter: cfg.JitterFactor, Log: log,
	}
	if cfg.NATSTLS {
		if o.TLS, err = cfg.TLS.Client(identity.NATS); err != nil {
			return err
		}
	}
	routers, err := publish.Connect(o)
	if err != nil {
		return err
	}
	defer routers.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	e := &emitter{
		bbs: bbsclient.New(conn), routers: routers, metrics: newMetrics(registry), log: log,
		table: table.New(table.Options{
			DirectInstanceRoutes: cfg.DirectInstanceRoutes, UnregisterRepeats: cfg.UnregistrationSendCount,
			GuardShare: cfg.MassRemovalShare, GuardMinimum: cfg.MassRemovalMinimum,
		}),
	}
	var group daemon.Group
	group.Add("debug", daemon.Debug(cfg.DebugAddress, registry, e.healthy))
	group.Add("greet routers", func(ctx context.Context) error { return routers.Run(ctx, e.broadcast) })
	group.Add("repeat unregisters", func(ctx context.Context) error { return e.repeat(ctx, time.Duration(cfg.UnregistrationInterval)) })
	group.Add("follow the BBS", func(ctx context.Context) error { return e.follow(ctx, time.Duration(cfg.SyncInterval)) })
	// Nobody calls an emitter; where its health and metrics are is worth knowing.
	if err := cfg.Register(&group, log, "route-emitter", cfg.DebugAddress); err != nil {
		return err
	}
	return group.Run(ctx)
}

type emitter struct {
	bbs     *bbsclient.Client
	routers *publish.Conn
	metrics *metrics
	log     *slog.Logger
	synced  atomic.Bool

	// mu makes one step of deciding and publishing, so that messages leave in the order of the
	// decisions.
	mu    sync.Mutex
	table *table.Table
}

func (e *emitter) healthy() error {
	switch {
	case !e.routers.Connected():
		return errors.New("not connected to NATS")
	case !e.synced.Load():
		return errors.New("the BBS was not listed yet")
	}
	return nil
}

// change applies a change to the table and tells the routers.
func (e *emitter) change(log *slog.Logger, apply func(*table.Table) table.Output) table.Output {
	e.mu.Lock()
	out := apply(e.table)
	err := e.routers.Publish(out.Messages)
	e.metrics.routes.Set(float64(e.table.Count()))
	e.mu.Unlock()

	registered, unregistered := count(out.Messages)
	e.metrics.changed(out, registered, unregistered)
	if registered+unregistered > 0 {
		log.Info("routes changed", "registered", registered, "unregistered", unregistered)
	}
	if err != nil {
		log.Warn("routers could not be told; they will be when NATS is back", "error", err)
	}
	for _, c := range out.Collisions {
		log.Warn("two instances at one address", "host", c.Host, "port", c.Port, "tls_port", c.TLSPort, "was", c.Was, "is", c.Is)
	}
	for _, i := range out.Invalid {
		log.Warn("routes cannot be read; the process has none", "process_guid", i.Process, "error", i.Err)
	}
	return out
}

// count returns the number of URIs that are registered and unregistered.
func count(ms []table.Message) (registered, unregistered int) {
	for _, m := range ms {
		if m.Kind == table.Register {
			registered += len(m.Body.URIs)
		} else {
			unregistered += len(m.Body.URIs)
		}
	}
	return registered, unregistered
}

// broadcast says everything that is registered.
func (e *emitter) broadcast() {
	if !e.synced.Load() {
		return // nothing is known yet; the first list says everything by itself
	}
	began := time.Now()
	e.mu.Lock()
	ms := e.table.Registrations()
	err := e.routers.Publish(ms)
	e.mu.Unlock()
	if err != nil {
		e.log.Warn("routes could not be said again", "error", err)
		return
	}
	n, _ := count(ms)
	e.metrics.broadcast(len(ms), n)
	e.log.Debug("said all routes", "routes", n, "messages", len(ms), "took", time.Since(began))
}

// repeat says unregisters again until ctx ends.
func (e *emitter) repeat(ctx context.Context, interval time.Duration) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if !e.routers.Connected() {
			continue // they would be lost, and their number is limited
		}
		e.mu.Lock()
		ms := e.table.Repeat()
		err := e.routers.Publish(ms)
		e.mu.Unlock()
		if err != nil {
			e.log.Warn("unregisters could not be repeated", "error", err)
		}
	}
}

// follow keeps the table in line with the BBS until ctx ends.
func (e *emitter) follow(ctx context.Context, interval time.Duration) error {
	for ctx.Err() == nil {
		fctx, listAgain := context.WithCancel(ctx)
		var confirm *time.Timer
		err := e.bbs.Follow(fctx, bbsclient.FollowOptions{
			Relist: interval, Log: e.log, Apply: e.apply,
			List: func(ctx context.Context) (uint64, error) {
				revision, withheld, err := e.list(ctx)
				if withheld > 0 && confirm == nil {
					confirm = time.AfterFunc(confirmAfter, listAgain)
				}
				return revision, err
			},
		})
		listAgain()
		if confirm != nil {
			confirm.Stop()
		}
		if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}

// list reads everything at once and swaps the table; when any part cannot be had, it stays as it is.
func (e *emitter) list(ctx context.Context) (revision uint64, withheld int, err error) {
	began := time.Now()
	var s table.Snapshot
	var revisions [3]uint64
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		s.Desired, revisions[0], err = e.bbs.RoutingInfos(gctx, bbsclient.DesiredFilter{})
		return err
	})
	g.Go(func() (err error) {
		s.Actuals, revisions[1], err = e.bbs.Actuals(gctx, bbsclient.ActualFilter{})
		return err
	})
	g.Go(func() (err error) {
		s.Fresh, revisions[2], err = e.bbs.Domains(gctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	out := e.change(e.log, func(t *table.Table) table.Output { return t.Swap(s) })
	e.synced.Store(true)
	e.metrics.syncTime.Observe(time.Since(began).Seconds())
	if out.Withheld > 0 {
		e.log.Error("the BBS lists much less than before; routes are kept until it is confirmed", "withheld", out.Withheld, "again_in", confirmAfter)
	}
	e.log.Debug("listed", "processes", len(s.Desired), "instances", len(s.Actuals), "fresh_domains", len(s.Fresh), "took", time.Since(began))
	return min(revisions[0], revisions[1], revisions[2]), out.Withheld, nil
}

// apply tells the table what changed.
func (e *emitter) apply(events []bbsclient.Event) {
	for _, ev := range events {
		switch {
		case ev.Desired != nil && ev.Desired.After != nil:
			d := *ev.Desired.After
			e.change(e.log.With("process_guid", d.Process), func(t *table.Table) table.Output { return t.SetDesired(d) })
		case ev.Desired != nil && ev.Desired.Before != nil:
			d := *ev.Desired.Before
			e.change(e.log.With("process_guid", d.Process), func(t *table.Table) table.Output { return t.RemoveDesired(d) })
		case ev.Actual != nil:
			a := ev.Actual.After
			if a == nil {
				a = ev.Actual.Before
			}
			if a == nil {
				continue
			}
			log := e.log.With("process_guid", a.Process, "index", a.Index, "instance_guid", a.Instance, "cell_id", a.Cell)
			out := e.change(log, func(t *table.Table) table.Output { return t.Change(*ev.Actual) })
			if len(out.Messages) > 0 {
				e.metrics.latency.Observe(max(time.Since(ev.At), 0).Seconds())
			}
		}
	}
}
