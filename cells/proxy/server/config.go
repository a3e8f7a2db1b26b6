package server

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"muster/cells/proxy"
	"muster/cells/proxy/internal/relay"
	"muster/internal/daemon"
)

// Config is the configuration of cell-proxy.
type Config struct {
	daemon.Common
	Dir      string `json:"dir" help:"directory of the proxy, absolute; it belongs to one cell, and to root"`
	TakeOver bool   `json:"takeover" help:"take the sockets over from the process that has the directory, if there is one, instead of giving up; that process lets its connections end"`

	MaxConnections   int             `json:"max_connections" help:"connections of one container at once, 1 to 65536; further ones are closed at once; more: one app can hold more memory, some 30 KiB each"`
	MaxTotal         int             `json:"max_total_connections" help:"connections of all containers at once, 1 to 1048576; each takes two file descriptors"`
	HandshakeTimeout daemon.Duration `json:"handshake_timeout" help:"how long a TLS handshake may take, 100ms to 1m; longer lets slow and silent clients hold connections"`
	ConnectTimeout   daemon.Duration `json:"connect_timeout" help:"how long connecting to the container may take, 10ms to 10s; shorter: routers turn to another instance sooner"`
	IdleTimeout      daemon.Duration `json:"idle_timeout" help:"how long a connection may be without a byte either way, 10ms to 168h; shorter than what apps are used to cuts their quiet connections"`
	DrainTimeout     daemon.Duration `json:"drain_timeout" help:"how long connections may go on in a process that has handed over, up to 24h; longer: old processes stay longer after an upgrade"`
	StopTimeout      daemon.Duration `json:"stop_timeout" help:"how long connections may go on after SIGTERM, up to 1h"`

	ClientCA    string   `json:"client_ca_file" help:"PEM file with the CAs of clients, where certificates of clients are asked for; read again when it changes; empty: no client is accepted there"`
	ClientNames []string `json:"client_names" help:"names of clients, of which one must be in the certificate, exactly, as a DNS name, URI, IP or email address; empty: any will do"`
}

// Defaults returns the configuration that a file and flags change.
func Defaults() *Config {
	return &Config{
		Common:         daemon.Common{LogLevel: "info"},
		MaxConnections: 10000, MaxTotal: 100000,
		HandshakeTimeout: daemon.Duration(5 * time.Second), ConnectTimeout: daemon.Duration(250 * time.Millisecond),
		IdleTimeout: daemon.Duration(time.Hour), DrainTimeout: daemon.Duration(15 * time.Minute), StopTimeout: daemon.Duration(10 * time.Second),
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	errs := c.Problems()
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !filepath.IsAbs(c.Dir) || len(filepath.Join(c.Dir, proxy.HandoverFile)) > proxy.MaxSocketPath {
		bad("dir %q: want an absolute path of at most %d bytes", c.Dir, proxy.MaxSocketPath-len(proxy.HandoverFile)-1)
	}
	number := func(name string, v, low, high int) {
		if v < low || v > high {
			bad("%s %d: want %d to %d", name, v, low, high)
		}
	}
	number("max_connections", c.MaxConnections, 1, 1<<16)
	number("max_total_connections", c.MaxTotal, 1, 1<<20)
	within := func(name string, v daemon.Duration, low, high time.Duration) {
		if d := time.Duration(v); d < low || d > high {
			bad("%s %v: want %v to %v", name, d, low, high)
		}
	}
	within("handshake_timeout", c.HandshakeTimeout, 100*time.Millisecond, time.Minute)
	within("connect_timeout", c.ConnectTimeout, 10*time.Millisecond, 10*time.Second)
	within("idle_timeout", c.IdleTimeout, 10*time.Millisecond, 168*time.Hour)
	within("drain_timeout", c.DrainTimeout, 0, 24*time.Hour)
	within("stop_timeout", c.StopTimeout, 0, time.Hour)
	if c.ClientCA == "" && len(c.ClientNames) > 0 {
		bad("client_ca_file is empty: name the PEM file of the CA that signed the certificates of client_names")
	}
	if _, err := c.clients().Load(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) clients() relay.Clients { return relay.Clients{CA: c.ClientCA, Names: c.ClientNames} }

func (c *Config) relay() relay.Config {
	return relay.Config{
		MaxConnections: c.MaxConnections, MaxTotal: c.MaxTotal,
		HandshakeTimeout: time.Duration(c.HandshakeTimeout), ConnectTimeout: time.Duration(c.ConnectTimeout), IdleTimeout: time.Duration(c.IdleTimeout),
		Clients: c.clients(),
	}
}
