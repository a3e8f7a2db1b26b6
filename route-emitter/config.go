package emitter

import (
	"errors"
	"fmt"
	"time"

	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/lease"
)

// Config is the configuration of a route-emitter.
type Config struct {
	daemon.Common
	lease.Config
	TLS        identity.Files `json:"tls"`
	BBSAddress string         `json:"bbs_address" help:"host:port of the BBS"`

	NATSAddresses []string      `json:"nats_addresses" help:"host:port of each NATS server"`
	NATSTLS       bool          `json:"nats_tls_enabled" help:"whether NATS is spoken to over mutual TLS; without it anybody on the network can change routes"`
	NATSUsername  string        `json:"nats_username" help:"user at NATS; empty: none"`
	NATSPassword  daemon.Secret `json:"nats_password" help:"password at NATS"`

	DirectInstanceRoutes bool            `json:"register_direct_instance_routes" help:"route to the address of the container instead of that of its cell, where the instance leaves it open; routers must reach the container network"`
	SyncInterval         daemon.Duration `json:"sync_interval" help:"time between full lists of the BBS, 1s to 1h; lower costs the BBS more, higher lets a missed change live longer"`
	JitterFactor         float64         `json:"jitter_factor" help:"share of the register interval, 0 to 1, over which answers to a starting router are spread; lower fills its table sooner, higher is gentler to it"`

	UnregistrationInterval  daemon.Duration `json:"unregistration_interval" help:"time between repeats of an unregister, 1s to 1h; lower corrects a router that missed it sooner, higher costs fewer messages"`
	UnregistrationSendCount int             `json:"unregistration_send_count" help:"how often an unregister is repeated, 0 to 1000; lower may leave a router with a dead route, higher costs memory and messages"`

	MassRemovalShare   float64 `json:"mass_removal_share" help:"share of all routes, 0 to 1, that a full list may remove without two more lists agreeing; lower guards better against a BBS that lost data, 1 trusts it always"`
	MassRemovalMinimum int     `json:"mass_removal_minimum" help:"number of routes up to which a full list is always believed, 0 or more"`
}

// Defaults returns the default configuration. TLS and the addresses have to be filled in.
func Defaults() *Config {
	return &Config{
		Common:     daemon.Common{LogLevel: "info", DebugAddress: "127.0.0.1:17009"},
		Config:     lease.Defaults(),
		BBSAddress: "127.0.0.1:8888", NATSAddresses: []string{"127.0.0.1:4222"}, NATSTLS: true,
		SyncInterval: daemon.Duration(time.Minute), JitterFactor: 0.2,
		UnregistrationInterval: daemon.Duration(30 * time.Second), UnregistrationSendCount: 20,
		MassRemovalShare: 0.5, MassRemovalMinimum: 20,
	}
}

// Validate returns every problem of the configuration at once.
func (c *Config) Validate() error {
	errs := append(c.Problems(), c.TLS.Problems("tls.")...)
	errs = append(errs, c.LeaseProblems()...)
	if c.BBSAddress == "" {
		errs = append(errs, errors.New("bbs_address is empty: want host:port"))
	}
	if len(c.NATSAddresses) == 0 {
		errs = append(errs, errors.New("nats_addresses is empty: want at least one host:port"))
	}
	for _, m := range []struct {
		name  string
		value daemon.Duration
	}{{"sync_interval", c.SyncInterval}, {"unregistration_interval", c.UnregistrationInterval}} {
		if d := time.Duration(m.value); d < time.Second || d > time.Hour {
			errs = append(errs, fmt.Errorf("%s %v: want 1s to 1h", m.name, d))
		}
	}
	for _, m := range []struct {
		name  string
		value float64
	}{{"jitter_factor", c.JitterFactor}, {"mass_removal_share", c.MassRemovalShare}} {
		if !(m.value >= 0 && m.value <= 1) { // NaN too
			errs = append(errs, fmt.Errorf("%s %v: want 0 to 1", m.name, m.value))
		}
	}
	if n := c.UnregistrationSendCount; n < 0 || n > 1000 {
		errs = append(errs, fmt.Errorf("unregistration_send_count %d: want 0 to 1000", n))
	}
	if c.MassRemovalMinimum < 0 {
		errs = append(errs, fmt.Errorf("mass_removal_minimum %d: want 0 or more", c.MassRemovalMinimum))
	}
	return errors.Join(errs...)
}
