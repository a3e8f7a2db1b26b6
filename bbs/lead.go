package bbs

import (
	"context"
	"fmt"
	"os"
	"time"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/internal/consul"
	"muster/internal/lease"
	"muster/internal/lease/leases"
)

// witnessTime bounds one question to the second witness.
const witnessTime = 2 * time.Second

// converge campaigns for the lease and converges while it is held, until ctx ends.
func (r *replica) converge(ctx context.Context, st *store.Store) error {
	keeper, closeKeeper, err := leases.Open(ctx, r.cfg.Config, string(r.cfg.DatabaseURL))
	if err != nil {
		return err
	}
	defer closeKeeper()
	witness, err := r.witness()
	if err != nil {
		return err
	}
	return lease.Lead(ctx, r.log, keeper, lease.Campaign{
		Name: convergeLease, Holder: r.holder(), TTL: r.cfg.TTL(),
		Lost: r.metrics.leaseTermsLost.Inc, NotRenewed: r.metrics.leaseRenewalsFailed.Inc,
		// What the database has seen counts, whatever became of the lease store.
		Floor: func(ctx context.Context) (uint64, error) { return st.Token(ctx, convergeLease) },
		Work: func(ctx context.Context, token uint64) error {
			// Anew with each term: certificates are replaced while we run.
			receivers, err := r.cfg.TLS.ClientByName()
			if err != nil {
				return fmt.Errorf("load certificates for callbacks: %w", err)
			}
			options := ConvergeOptions{
				Interval: time.Duration(r.cfg.ConvergeInterval), Grace: time.Duration(r.cfg.LostCellGrace),
				Tasks: r.cfg.taskPolicy(), Witness: witness, Heard: r.hearing, TLS: receivers,
				CallbackWorkers: r.cfg.TaskCallbackWorkers, CallbackTimeout: time.Duration(r.cfg.CallbackTimeout),
			}
			return newConverger(r.log, st, r.hub, r.metrics, options, store.Fence{Lease: convergeLease, Token: token}).run(ctx)
		},
	})
}

// witness asks Consul which cells are there; nil when there is none.
func (r *replica) witness() (Witness, error) {
	if !r.cfg.UsesConsul() {
		return nil, nil
	}
	directory, err := consul.Open(r.cfg.Consul)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (map[lrp.CellID]bool, bool) {
		ctx, cancel := context.WithTimeout(ctx, witnessTime)
		defer cancel()
		keys, err := directory.Witness(ctx)
		switch {
		case err != nil:
			r.log.Warn("which cells are there is not known to the second witness", "error", err)
			return nil, false
		case len(keys) == 0: // it was wiped, perhaps; without any cell nothing would be destroyed anyway
			return nil, false
		}
		present := make(map[lrp.CellID]bool, len(keys))
		for id := range keys {
			present[lrp.CellID(id)] = true
		}
		return present, true
	}, nil
}

// holder names this replica, for people.
func (r *replica) holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s %s %d", r.addr, host, os.Getpid())
}
