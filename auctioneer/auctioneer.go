// Package auctioneer is the daemon that gives work to cells: it knows from the BBS which slots and tasks
// wait, from the cells what they have, decides (auction, backlog), and orders the work from the cells. It
// keeps nothing: what is lost with it is found again in the BBS and in the states of the cells.
//
//	  bbs ──list, watch──► round.Follow ─┐                       ┌─► Perform ──────► rep of the chosen cell
//	                                     ├─► round.Run (backlog) ┤
//	every rep ──WatchState──► follow ────┘                       └─► Fail, Reject ─► bbs, with the reason, when nothing fits
package auctioneer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster/auctioneer/auction"
	"muster/auctioneer/backlog"
	"muster/auctioneer/internal/round"
	"muster/bbs/bbsclient"
	"muster/cells"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/lease"
	"muster/internal/lease/leases"
	"muster/rep/repclient"
)

// Config is the configuration of an auctioneer.
type Config struct {
	daemon.Common
	lease.Config
	TLS        identity.Files `json:"tls"`
	BBSAddress string         `json:"bbs_address" help:"host:port of the BBS"`
	// Only one auctioneer gives out work; others follow what happens, and take over.
	LeaseDatabaseURL daemon.Secret `json:"lease_database_url" help:"with lease postgres: the PostgreSQL that says which auctioneer works, such as that of the BBS; empty: this is the only auctioneer"`

	StartingContainerWeight float64 `json:"starting_container_weight" help:"added to a cell's score for each container starting on it, 0 to 1000; higher spreads bursts of starts more evenly, lower follows free resources more closely"`
	BinPackFirstFitWeight   float64 `json:"bin_pack_first_fit_weight" help:"added to a cell's score for each position in its zone, 0 to 1000; 0 spreads, higher fills the first cells before others and puts more instances at risk of one cell"`
	MaxStarting             int32   `json:"starting_container_count_maximum" help:"containers that may be starting at once on all cells together; 0: no bound; lower protects registries and disks after an outage, higher recovers faster"`

	PerformTimeout daemon.Duration `json:"perform_timeout" help:"longest wait for a cell to answer an order, 100ms to 1m; lower notices dead cells sooner, too low makes slow ones look dead and their work wait"`
	ClaimWait      daemon.Duration `json:"claim_wait" help:"longest wait for the claim of ordered work before it is placed anew, 100ms to 5m; lower recovers lost work sooner, too low starts containers in vain"`
	SyncInterval   daemon.Duration `json:"sync_interval" help:"time between full lists of the BBS, 1s to 1h; lower costs the BBS more, higher lets a missed change live longer"`
	RetryInterval  daemon.Duration `json:"retry_interval" help:"longest time between two tries to place work when the cells do not change, 1s to 1h; lower costs time in auctions, higher is a slower safety net"`
}

// Defaults returns the default configuration. TLS and BBSAddress have to be filled in.
func Defaults() *Config {
	l := backlog.DefaultLimits()
	return &Config{
		Common:                  daemon.Common{LogLevel: "info", DebugAddress: "127.0.0.1:17001"},
		Config:                  lease.Defaults(),
		BBSAddress:              "127.0.0.1:8888",
		StartingContainerWeight: 0.25,
		PerformTimeout:          daemon.Duration(l.PerformTimeout), ClaimWait: daemon.Duration(l.ClaimWait),
		SyncInterval: daemon.Duration(time.Minute), RetryInterval: daemon.Duration(l.RetryInterval),
	}
}

// Validate returns every problem of the configuration at once.
func (c *Config) Validate() error {
	errs := append(c.Problems(), c.TLS.Problems("tls.")...)
	errs = append(errs, c.LeaseProblems()...)
	if c.UsesConsul() && c.LeaseDatabaseURL != "" {
		errs = append(errs, errors.New("lease_database_url is set, but lease is consul: which is meant?"))
	}
	if _, err := pgxpool.ParseConfig(string(c.LeaseDatabaseURL)); c.LeaseDatabaseURL != "" && err != nil {
		errs = append(errs, errors.New("lease_database_url is not a PostgreSQL URL such as postgres://USER:PASSWORD@HOST:PORT/NAME"))
	}
	if c.BBSAddress == "" {
		errs = append(errs, errors.New("bbs_address is empty: want host:port"))
	}
	for _, m := range []struct {
		name  string
		value float64
	}{{"starting_container_weight", c.StartingContainerWeight}, {"bin_pack_first_fit_weight", c.BinPackFirstFitWeight}} {
		if !(m.value >= 0 && m.value <= 1000) { // NaN too
			errs = append(errs, fmt.Errorf("%s %v: want 0 to 1000", m.name, m.value))
		}
	}
	if c.MaxStarting < 0 {
		errs = append(errs, fmt.Errorf("starting_container_count_maximum %d: want 0 (no bound) or more", c.MaxStarting))
	}
	for _, m := range []struct {
		name      string
		value     daemon.Duration
		low, high time.Duration
	}{
		{"perform_timeout", c.PerformTimeout, 100 * time.Millisecond, time.Minute},
		{"claim_wait", c.ClaimWait, 100 * time.Millisecond, 5 * time.Minute},
		{"sync_interval", c.SyncInterval, time.Second, time.Hour},
		{"retry_interval", c.RetryInterval, time.Second, time.Hour},
	} {
		if d := time.Duration(m.value); d < m.low || d > m.high {
			errs = append(errs, fmt.Errorf("%s %v: want %v to %v", m.name, d, m.low, m.high))
		}
	}
	return errors.Join(errs...)
}

// Run is the daemon; it returns when ctx ends or a part fails.
func Run(ctx context.Context, log *slog.Logger, cfg *Config) error {
	toBBS, err := cfg.TLS.Client(identity.BBS)
	if err != nil {
		return err
	}
	toRep, err := cfg.TLS.Client(identity.Rep)
	if err != nil {
		return err
	}
	conn, err := daemon.DialGRPC(cfg.BBSAddress, toBBS)
	if err != nil {
		return err
	}
	defer conn.Close()

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	limits := backlog.DefaultLimits()
	limits.PerformTimeout, limits.ClaimWait = time.Duration(cfg.PerformTimeout), time.Duration(cfg.ClaimWait)
	limits.RetryInterval = time.Duration(cfg.RetryInterval)
	loop := round.New(round.Options{
		BBS:  bbsclient.New(conn),
		Dial: func(p cells.Presence) (*repclient.Client, func(), error) { return dialCell(p, toRep) },
		Backlog: backlog.New(limits, auction.Weights{
			Starting: cfg.StartingContainerWeight, BinPack: cfg.BinPackFirstFitWeight, MaxStarting: cfg.MaxStarting,
		}),
		PerformTimeout: limits.PerformTimeout, Relist: time.Duration(cfg.SyncInterval),
		Metrics: round.NewMetrics(metrics), Log: log,
	})

	var group daemon.Group
	group.Add("debug", daemon.Debug(cfg.DebugAddress, metrics, func() error { return nil }))
	group.Add("auctions", loop.Run)
	group.Add("follow the BBS", loop.Follow)
	closeLease, err := lead(ctx, &group, log, cfg, loop)
	if err != nil {
		return err
	}
	defer closeLease()
	// Nobody calls an auctioneer; where its health and metrics are is worth knowing.
	if err := cfg.Register(&group, log, "auctioneer", cfg.DebugAddress); err != nil {
		return err
	}
	return group.Run(ctx)
}

// leaseName is what auctioneers compete for.
const leaseName = "auctioneer"

// lead adds the part that lets the loop give out work while this auctioneer is the one to do so. The token goes
// nowhere: an order is only a hint, and that of an auctioneer who should have stopped ends at the claim of the cell,
// which the BBS grants once.
func lead(ctx context.Context, group *daemon.Group, log *slog.Logger, cfg *Config, loop *round.Loop) (closeLease func(), err error) {
	if !cfg.UsesConsul() && cfg.LeaseDatabaseURL == "" {
		group.Add("work", loop.Work)
		return func() {}, nil
	}
	store, closeStore, err := leases.Open(ctx, cfg.Config, string(cfg.LeaseDatabaseURL))
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	campaign := lease.Campaign{
		Name: leaseName, Holder: fmt.Sprintf("%s, process %d", host, os.Getpid()), TTL: cfg.TTL(),
		Work: func(ctx context.Context, _ uint64) error { return loop.Work(ctx) },
	}
	group.Add("work", func(ctx context.Context) error { return lease.Lead(ctx, log, store, campaign) })
	return closeStore, nil
}

// dialCell connects to the rep of a cell, and believes only one that is of this cell.
func dialCell(p cells.Presence, base *tls.Config) (*repclient.Client, func(), error) {
	u, err := url.Parse(p.RepURL)
	if err != nil || u.Scheme != "https" || u.Port() == "" {
		return nil, nil, fmt.Errorf("rep_url %q of cell %s: want https://HOST:PORT", p.RepURL, p.Cell)
	}
	config := base.Clone()
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := base.VerifyConnection(cs); err != nil {
			return err
		}
		id, err := identity.Of(cs.PeerCertificates[0])
		if err != nil {
			return err
		}
		if id.Cell != string(p.Cell) {
			return fmt.Errorf("peer at %s is %s, want cell %s", u.Host, id, p.Cell)
		}
		return nil
	}
	conn, err := daemon.DialGRPC(u.Host, config)
	if err != nil {
		return nil, nil, err
	}
	return repclient.New(conn), func() { conn.Close() }, nil
}
