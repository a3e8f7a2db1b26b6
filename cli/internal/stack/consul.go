package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/internal/consul"
	"muster/internal/consulagent"
	"muster/internal/daemon"
	"muster/internal/lease"
)

// Of the private Consul alone: there is no network between it and the daemons, so a leader that died can be replaced
// sooner than Consul's own shortest TTL, 10 s, allows. It takes up to twice the TTL.
const (
	consulMinTTL   = time.Second
	consulLeaseTTL = 2 * time.Second
)

// consulPart is the name of the private Consul among the parts.
const consulPart = "consul"

func (s *Stack) usesConsul() bool { return s.Lease == lease.Consul }

// chooseLease applies --lease.
func (u *upper) chooseLease() error {
	switch u.options.Lease {
	case "":
	case lease.Postgres, lease.Consul:
		u.Lease = u.options.Lease
	default:
		return fmt.Errorf("--lease %q: want %s or %s", u.options.Lease, lease.Postgres, lease.Consul)
	}
	return nil
}

// consul makes sure that the private Consul runs when it is used.
func (u *upper) consul(ctx context.Context) error {
	if !u.usesConsul() {
		return nil
	}
	return u.part(ctx, consulPart)
}

// stopUnusedConsul stops the private Consul when nobody uses it any more.
func (u *upper) stopUnusedConsul(ctx context.Context) error {
	if u.usesConsul() {
		return nil
	}
	running, err := find(u.StateDir)
	if err != nil {
		return err
	}
	for _, p := range running[consulPart] {
		if err := stop(ctx, p, u.StateDir); err != nil {
			return err
		}
	}
	return nil
}

// agent says how the private Consul runs.
func (s *Stack) agent() (consulagent.Config, error) {
	token, err := s.consulToken()
	return consulagent.Config{
		Dir: s.path(consulPart), HTTP: s.Ports["consul"], RPC: s.Ports["consul-rpc"], Serf: s.Ports["consul-serf"], Token: token,
		MinSessionTTL: consulMinTTL,
	}, err
}

// consulToken returns what whoever talks to the private Consul has to show; only root can read it.
func (s *Stack) consulToken() (string, error) {
	name := s.path(consulPart, "token")
	text, err := os.ReadFile(name)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(s.path(consulPart), 0o700); err != nil {
		return "", err
	}
	token := uuid.NewString()
	return token, writeFile(name, []byte(token+"\n"), 0o600)
}

// checkConsul asks the private Consul once whether it is ready.
func (s *Stack) checkConsul(ctx context.Context) error {
	a, err := s.agent()
	if err != nil {
		return err
	}
	return a.Check(ctx)
}

// consulProgram returns the program of Consul, which is built the first time.
func (u *upper) consulProgram(ctx context.Context) (string, error) {
	say := func(what string) { u.report.say(consulPart, what) }
	path, err := consulagent.Binary(ctx, say, u.options.BinDir, ".")
	if err != nil {
		return "", err
	}
	// The kernel tells the name of a program without links.
	return filepath.EvalSymlinks(path)
}

// consulSpec says how the private Consul is run.
func (u *upper) consulSpec(ctx context.Context, d daemonSpec) (daemonSpec, error) {
	a, err := u.agent()
	if err != nil {
		return d, err
	}
	if d.exe, err = u.consulProgram(ctx); err != nil {
		return d, err
	}
	if d.config, err = a.JSON(); err != nil {
		return d, err
	}
	name := u.path("config", "consul.json")
	d.args = []string{"agent", "-config-file", name}
	return d, writeFile(name, d.config, 0o600)
}

// leaseConfig is the part of every daemon's configuration that says who leads.
func (u *upper) leaseConfig() (lease.Config, error) {
	c := lease.Defaults()
	if !u.usesConsul() {
		return c, nil
	}
	token, err := u.consulToken()
	c.Kind, c.LeaseTTL = lease.Consul, daemon.Duration(consulLeaseTTL)
	c.Consul = consul.Config{Address: u.address("consul"), Scheme: "http", Prefix: "muster", Token: daemon.Secret(token)}
	return c, err
}
