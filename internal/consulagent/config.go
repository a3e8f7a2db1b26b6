package consulagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// node is the name of the one node.
const node = "muster"

// loopback is where everything listens.
const loopback = "127.0.0.1"

// Config says how a single server runs.
type Config struct {
	// Dir is where it keeps everything.
	Dir string
	// HTTP, RPC and Serf are its ports on loopback; the last two only it itself uses.
	HTTP, RPC, Serf int
	// Token, if set, is the one ACL token that may do anything; without it nobody may do anything. Empty: no
	// ACLs, and whoever reaches loopback may do anything. A UUID.
	Token string
	// MinSessionTTL replaces Consul's shortest TTL of a session, 10 s; 0: does not.
	MinSessionTTL time.Duration
}

// Address is where the agent's API is.
func (c Config) Address() string { return net.JoinHostPort(loopback, strconv.Itoa(c.HTTP)) }

// JSON returns the content of the configuration file: the agent is run as "consul agent -config-file FILE".
func (c Config) JSON() ([]byte, error) {
	m := map[string]any{
		"node_name": node, "datacenter": "dc1", "data_dir": filepath.Join(c.Dir, "data"), "pid_file": c.PIDFile(),
		"server": true, "bootstrap_expect": 1, "bind_addr": loopback, "client_addr": loopback, "advertise_addr": loopback,
		"ports": map[string]int{"http": c.HTTP, "server": c.RPC, "serf_lan": c.Serf,
			"https": -1, "dns": -1, "grpc": -1, "serf_wan": -1},
		"performance":        map[string]int{"raft_multiplier": 1}, // no network between servers: elect at once
		"connect":            map[string]bool{"enabled": false},
		"log_level":          "warn",
		"rejoin_after_leave": true, "leave_on_terminate": false, "skip_leave_on_interrupt": true,
		"disable_update_check": true, "disable_remote_exec": true,
	}
	if c.MinSessionTTL > 0 {
		m["session_ttl_min"] = c.MinSessionTTL.String()
	}
	if c.Token != "" {
		m["acl"] = map[string]any{"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"initial_management": c.Token, "agent": c.Token}}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the configuration of Consul: %w", err)
	}
	return append(text, '\n'), nil
}

// PIDFile is where the agent writes its process number.
func (c Config) PIDFile() string { return filepath.Join(c.Dir, "consul.pid") }

// Client returns a client with the token.
func (c Config) Client() (*api.Client, error) {
	client, err := api.NewClient(&api.Config{Address: c.Address(), Scheme: "http", Token: c.Token})
	if err != nil {
		return nil, fmt.Errorf("make a client of Consul: %w", err)
	}
	return client, nil
}

// Check asks once whether the agent is ready: it leads, and knows its node, without which there are no sessions.
func (c Config) Check(ctx context.Context) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	answer, _, err := client.Catalog().Node(node, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("ask Consul at %s: %w", c.Address(), err)
	}
	if answer == nil || answer.Node == nil {
		return errors.New("Consul does not know its own node yet")
	}
	return nil
}

// FreePorts returns a configuration with ports that were free a moment ago.
func (c Config) FreePorts() (Config, error) {
	for _, p := range []*int{&c.HTTP, &c.RPC, &c.Serf} {
		l, err := net.Listen("tcp", loopback+":0")
		if err != nil {
			return c, fmt.Errorf("find a free port for Consul: %w", err)
		}
		defer l.Close() // only after all were chosen
		*p = l.Addr().(*net.TCPAddr).Port
	}
	return c, nil
}
