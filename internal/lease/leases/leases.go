// Package leases opens the lease store that a configuration names.
package leases

import (
	"context"
	"fmt"

	"muster/internal/lease"
	"muster/internal/lease/consullease"
	"muster/internal/lease/pglease"
)

// Open returns the lease store of a configuration, and what closes it. databaseURL is that of the PostgreSQL
// to use with "lease: postgres"; it is connected to when it is needed, so that a store that is away at the
// start is only waited for.
func Open(ctx context.Context, cfg lease.Config, databaseURL string) (lease.Store, func(), error) {
	if cfg.UsesConsul() {
		client, err := cfg.Consul.Client()
		if err != nil {
			return nil, nil, err
		}
		return consullease.New(client, cfg.Consul.Prefix), func() {}, nil
	}
	s, err := pglease.Open(ctx, databaseURL)
	if err != nil {
		return nil, nil, fmt.Errorf("open the lease store: %w", err)
	}
	return s, s.Close, nil
}
