package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"muster/internal/consul"
	"muster/internal/daemon"
)

// The kinds of stores that a configuration can name.
const (
	Postgres = "postgres"
	Consul   = "consul"
)

// Config is the part of a daemon's configuration that says where leases, presence and addresses are kept;
// embed it without a json tag.
type Config struct {
	Kind     string          `json:"lease" help:"postgres or consul: what decides who leads; with consul, presence and addresses of components are registered there too"`
	LeaseTTL daemon.Duration `json:"lease_ttl" help:"how long a lease or presence lasts without renewal, 500ms to 10m, with consul 10s to 10m (or as its session_ttl_min); up: a dead leader is replaced later; down: a shorter outage of the store interrupts the work; 0: 3s with postgres, 10s with consul"`
	Consul   consul.Config   `json:"consul"`
}

// Defaults of the TTL: Consul does not accept less than 10 s by its own default.
const (
	defaultTTL       = 3 * time.Second
	defaultConsulTTL = 10 * time.Second
)

// Defaults returns the configuration of one machine, without Consul.
func Defaults() Config { return Config{Kind: Postgres, Consul: consul.Defaults()} }

// UsesConsul tells whether there is a Consul.
func (c *Config) UsesConsul() bool { return c.Kind == Consul }

// TTL returns the TTL, which is the default of its kind unless it is set.
func (c *Config) TTL() time.Duration {
	switch {
	case c.LeaseTTL != 0:
		return time.Duration(c.LeaseTTL)
	case c.UsesConsul():
		return defaultConsulTTL
	}
	return defaultTTL
}

// LeaseProblems returns everything that is wrong with this part.
func (c *Config) LeaseProblems() []error {
	var errs []error
	if c.Kind != Postgres && c.Kind != Consul {
		errs = append(errs, fmt.Errorf("lease %q: want %s or %s", c.Kind, Postgres, Consul))
	}
	if ttl := c.TTL(); ttl < MinTTL || ttl > MaxTTL {
		errs = append(errs, fmt.Errorf("lease_ttl %v: want %v to %v", ttl, MinTTL, MaxTTL))
	}
	if c.UsesConsul() {
		errs = append(errs, c.Consul.Problems("consul.")...)
	} else if c.Consul.Token != "" {
		errs = append(errs, errors.New("consul.token is set, but lease is not consul: which is meant?"))
	}
	return errs
}

// Register adds a part to a daemon's group that keeps it registered in Consul, when there is one. listener is where
// it can be reached; empty: nowhere, and nothing is registered.
func (c *Config) Register(group *daemon.Group, log *slog.Logger, component, listener string) error {
	if !c.UsesConsul() || listener == "" {
		return nil
	}
	address, err := c.Consul.AddressOf(listener)
	if err != nil {
		return fmt.Errorf("register in Consul: %w", err)
	}
	directory, err := consul.Open(c.Consul)
	if err != nil {
		return err
	}
	group.Add("registration", func(ctx context.Context) error {
		return directory.Register(ctx, log, consul.Service{Component: component, Address: address, TTL: c.TTL()})
	})
	return nil
}

// Announce adds a part to a daemon's group that keeps a key present in Consul, when there is one.
func (c *Config) Announce(group *daemon.Group, log *slog.Logger, key string, value []byte) error {
	if !c.UsesConsul() {
		return nil
	}
	directory, err := consul.Open(c.Consul)
	if err != nil {
		return err
	}
	group.Add("presence in Consul", func(ctx context.Context) error {
		return directory.Announce(ctx, log, consul.Presence{Key: key, Value: value, TTL: c.TTL()})
	})
	return nil
}
