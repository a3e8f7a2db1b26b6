package consul

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/hashicorp/consul/api"

	"muster/internal/daemon"
)

// Config says how to reach Consul.
type Config struct {
	Address   string        `json:"address" help:"host:port of the Consul agent"`
	Scheme    string        `json:"scheme" help:"http or https"`
	CA        string        `json:"ca_file" help:"with https: PEM file with the CAs of the agent; empty: those of the system"`
	Cert      string        `json:"cert_file" help:"with https: PEM file with the certificate to show; empty: none"`
	Key       string        `json:"key_file" help:"with https: PEM file with its key"`
	Token     daemon.Secret `json:"token" help:"ACL token; empty: none. It needs to write keys below the prefix, sessions, and services"`
	Advertise string        `json:"advertise" help:"host or IP address under which others reach this process; empty: that of its listener, or the first address of this machine if it listens on all"`
	Prefix    string        `json:"prefix" help:"where all keys are, and how the names of services begin: a-z, 0-9, - and inner /; two installations on one Consul need different ones"`
}

// Defaults returns the configuration for an agent on this machine.
func Defaults() Config {
	return Config{Address: "127.0.0.1:8500", Scheme: "http", Prefix: "muster"}
}

// Problems returns everything that is wrong; prefix begins the names of the fields.
func (c *Config) Problems(prefix string) []error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		errs = append(errs, fmt.Errorf("%saddress %q: want host:port", prefix, c.Address))
	}
	if c.Scheme != "http" && c.Scheme != "https" {
		errs = append(errs, fmt.Errorf("%sscheme %q: want http or https", prefix, c.Scheme))
	}
	if c.Scheme == "http" && (c.CA != "" || c.Cert != "" || c.Key != "") {
		errs = append(errs, fmt.Errorf("%sscheme is http, but there are files for https", prefix))
	}
	if (c.Cert == "") != (c.Key == "") {
		errs = append(errs, fmt.Errorf("%scert_file and key_file: want both or none", prefix))
	}
	if !plain(c.Prefix) {
		errs = append(errs, fmt.Errorf("%sprefix %q: want 1 to 64 bytes of a-z, 0-9, - and inner /", prefix, c.Prefix))
	}
	return errs
}

func plain(prefix string) bool {
	const most = 64
	return prefix != "" && len(prefix) <= most && !strings.HasPrefix(prefix, "/") && !strings.HasSuffix(prefix, "/") &&
		!strings.Contains(prefix, "//") && strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789-/") == ""
}

// Client returns a client; nothing is sent yet.
func (c *Config) Client() (*api.Client, error) {
	if errs := c.Problems("consul."); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	client, err := api.NewClient(&api.Config{
		Address: c.Address, Scheme: c.Scheme, Token: string(c.Token),
		TLSConfig: api.TLSConfig{CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client of Consul at %s: %w", c.Address, err)
	}
	return client, nil
}
