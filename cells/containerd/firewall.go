package containerd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/firewall"
	"muster/cells/firewall/nft"
)

// lostTimeout bounds the question whether a container that has lost its rules still runs: others wait for it.
const lostTimeout = 5 * time.Second

// guard keeps the rules for what the containers of a cell may reach. A container without rules reaches
// nothing.
type guard struct {
	cfg Config

	mu        sync.Mutex // held while the rules of a container change
	rules     *nft.Firewall
	resolvers []string // of containers, as the policy has them
}

func newGuard(cfg Config) *guard { return &guard{cfg: cfg} }

// ready makes what all containers share.
func (g *guard) ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open()
}

// open opens the tables of the cell, anew when the cell got other resolvers; mu is held.
func (g *guard) open() error {
	resolvers, err := resolvers(g.cfg.DNS)
	if err != nil {
		return err
	}
	if g.rules != nil && slices.Equal(resolvers, g.resolvers) {
		return nil
	}
	cfg := g.cfg.Firewall
	cfg.DNS = slices.Concat(cfg.DNS, resolvers)
	policy, err := cfg.Compile()
	if err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	rules, err := nft.Open(nft.Config{Table: g.cfg.Namespace, Bridge: g.cfg.Bridge, Policy: policy})
	if err != nil {
		return err
	}
	g.rules, g.resolvers = rules, resolvers
	return nil
}

// resolvers returns the resolvers that containers are told of.
func resolvers(servers []string) ([]string, error) {
	text, err := resolvConf(servers)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && a.Zone() == "" { // a zone means nothing in a container
			out = append(out, a.String())
		}
	}
	return out, nil
}

// apply gives a container its rules.
func (g *guard) apply(id engine.ID, got endpoint, egress []lrp.EgressRule) error {
	_, err := g.applyIf(id, got, egress, func() bool { return true })
	return err
}

// applyIf gives a container its rules, if it is to have them by the time it is its turn, and tells whether.
func (g *guard) applyIf(id engine.ID, got endpoint, egress []lrp.EgressRule, due func() bool) (bool, error) {
	set, err := firewall.Compile(egress, got.addresses)
	if err != nil {
		return false, fmt.Errorf("firewall of container %s: %w", id, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !due() {
		return false, nil
	}
	if err := g.open(); err != nil {
		return false, err
	}
	err = g.rules.Apply(id, got.link, set)
	return err == nil, err
}

// remove removes the rules of a container whose processes have ended.
func (g *guard) remove(id engine.ID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rules == nil { // a clean-up makes no tables
		if known, err := nft.Containers(g.cfg.Namespace); err != nil || !slices.Contains(known, id) {
			return err
		}
		if err := g.open(); err != nil {
			return err
		}
	}
	return g.rules.Remove(id)
}

// list returns the containers that have rules.
func (g *guard) list() ([]engine.ID, error) { return nft.Containers(g.cfg.Namespace) }

// removeAll removes the tables of the cell, which has no containers any more.
func (g *guard) removeAll() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules = nil
	return nft.Destroy(g.cfg.Namespace)
}

// endpoint is what the network gave a container.
type endpoint struct {
	addresses []netip.Addr // an IPv4 address first
	link      nft.Link
}

// endpoint reads the result of the CNI plugins.
func (n *network) endpoint(id engine.ID, result types.Result) (endpoint, error) {
	full, err := types100.NewResultFromResult(result)
	if err != nil {
		return endpoint{}, fmt.Errorf("network of container %s: %w", id, err)
	}
	var e endpoint
	for _, ip := range full.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			e.addresses = append(e.addresses, a.Unmap())
		}
	}
	slices.SortStableFunc(e.addresses, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	if len(e.addresses) == 0 || !e.addresses[0].Is4() {
		return endpoint{}, fmt.Errorf("network of container %s: the CNI plugins gave it no IPv4 address", id)
	}
	for _, i := range full.Interfaces {
		switch {
		case i.Sandbox != "" && i.Name == insideName:
			if e.link.MAC, err = net.ParseMAC(i.Mac); err != nil {
				return endpoint{}, fmt.Errorf("network of container %s: device %s: %w", id, i.Name, err)
			}
		case i.Sandbox == "" && i.Name != n.cfg.Bridge && e.link.Device == "":
			e.link.Device = i.Name
		}
	}
	if e.link.Device == "" || e.link.MAC == nil {
		return endpoint{}, fmt.Errorf("network of container %s: the CNI plugins do not say which devices it has", id)
	}
	return e, nil
}

// attached returns what attach returned, in this life or an earlier one.
func (n *network) attached(id engine.ID, wanted asked) (endpoint, error) {
	list, err := n.list()
	if err != nil {
		return endpoint{}, err
	}
	result, err := n.cni.GetNetworkListCachedResult(list, n.arguments(id, wanted))
	if err != nil {
		return endpoint{}, fmt.Errorf("network of container %s: %w", id, err)
	}
	if result == nil {
		return endpoint{}, fmt.Errorf("network of container %s: what the CNI plugins gave it is not known any more", id)
	}
	return n.endpoint(id, result)
}

// protect gives a container that was just connected its rules. Nothing runs in it yet.
func (e *Engine) protect(id engine.ID, got endpoint, egress []lrp.EgressRule) error {
	defer e.step(id, "firewall")()
	return e.guard.apply(id, got, egress)
}

// protectAgain gives containers their rules that have none, because somebody removed them, or because an
// earlier version made the container.
func (e *Engine) protectAgain(ctx context.Context, all []engine.Container, ruled []engine.ID) {
	if e.lock == nil {
		return // another one's cell
	}
	for _, c := range all {
		if c.Status != engine.Created && c.Status != engine.Running || slices.Contains(ruled, c.ID) {
			continue
		}
		switch did, err := e.reapply(ctx, c.ID); {
		case err != nil:
			e.log.Error("a container has lost its rules and cannot be given them", "container", c.ID, "error", err)
		case did:
			e.log.Warn("a container had lost its rules and was given them again", "container", c.ID)
		}
	}
}

func (e *Engine) reapply(ctx context.Context, id engine.ID) (bool, error) {
	var wanted asked
	e.paths.read(id, specFile, &wanted) // there is one: the container is complete
	got, err := e.network.attached(id, wanted)
	if err != nil {
		return false, err
	}
	return e.guard.applyIf(id, got, wanted.Egress, func() bool { return e.alive(ctx, id) })
}

// alive tells whether a container has a process. Nobody removes its rules, and its address is its own, until
// that has ended.
func (e *Engine) alive(ctx context.Context, id engine.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, lostTimeout)
	defer cancel()
	answer, err := e.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: string(id)})
	return err == nil && (answer.Process.Status == task.Status_CREATED || answer.Process.Status == task.Status_RUNNING)
}
