package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/portmap"
)

// cniPlugins are the plugins that must be installed.
var cniPlugins = [...]string{"bridge", "host-local"}

// further is what is looked at in the configuration of a further plugin.
type further struct {
	Type string `json:"type"`
}

// morePlugins reads the configurations of further plugins.
func (c Config) morePlugins() ([]json.RawMessage, error) {
	var out []json.RawMessage
	for i, file := range c.CNIPlugins {
		bad := func(why string) error { return fmt.Errorf("cni_plugins[%d] is %q: %s", i, file, why) }
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, bad(err.Error())
		}
		var p further
		if err := json.Unmarshal(text, &p); err != nil {
			return nil, bad("want the JSON object of one plugin: " + err.Error())
		}
		if p.Type == "" || filepath.Base(p.Type) != p.Type {
			return nil, bad(fmt.Sprintf("its type is %q: want the name of a program in cni_bin_dir", p.Type))
		}
		if _, err := os.Stat(filepath.Join(c.CNIBinDir, p.Type)); err != nil {
			return nil, bad(fmt.Sprintf("its type is %q, and no such program is in cni_bin_dir %s", p.Type, c.CNIBinDir))
		}
		out = append(out, text)
	}
	return out, nil
}

// insideName is the network device of a container.
const insideName = "eth0"

// network attaches containers to a cell's bridge with CNI, and maps their ports with cells/portmap: the portmap
// plugin runs iptables twenty times for each container. Traffic that leaves the subnet is
// masqueraded by one rule for the whole cell instead of the bridge plugin's rules per container:
// that saves several runs of iptables at each start, and those rules stay behind when a namespace
// is gone before its network is undone.
type network struct {
	cfg   Config
	paths paths
	cni   *libcni.CNIConfig
	ports *portmap.Mapper

	mu      sync.Mutex
	ready   *libcni.NetworkConfigList // nil until the rule is there
	settled bool                      // plugins of earlier lives have ended
}

func newNetwork(cfg Config) (*network, error) {
	p := paths{cfg.StateDir}
	ports, err := cfg.PortMapper()
	if err != nil {
		return nil, err
	}
	return &network{cfg: cfg, paths: p, cni: libcni.NewCNIConfigWithCacheDir([]string{cfg.CNIBinDir}, p.cniCache(), nil), ports: ports}, nil
}

// PortMapper returns what maps the host ports of a cell.
func (c Config) PortMapper() (*portmap.Mapper, error) {
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil {
		return nil, fmt.Errorf("subnet: %w", err)
	}
	return portmap.New(portmap.Config{Table: c.Namespace + "-ports", Bridge: c.Bridge, Subnet: subnet})
}

// ConfList returns the CNI configuration list of a cell.
func (c Config) ConfList() ([]byte, error) {
	more, err := c.morePlugins()
	if err != nil {
		return nil, err
	}
	plugins := []any{
		map[string]any{
			"type": "bridge", "bridge": c.Bridge, "isGateway": true, "hairpinMode": true,
			"ipam": map[string]any{
				"type": "host-local", "dataDir": paths{c.StateDir}.ipam(),
				"ranges": []any{[]any{map[string]any{"subnet": c.Subnet}}},
				"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
			},
		},
	}
	for _, p := range more {
		plugins = append(plugins, p)
	}
	return json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": c.Namespace, "plugins": plugins})
}

// prepare returns the configuration; the first time it also makes what all containers share.
func (n *network) prepare(ctx context.Context) (*libcni.NetworkConfigList, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ready != nil {
		return n.ready, nil
	}
	list, err := n.list()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{n.paths.netnsDir(), n.paths.ipam(), n.paths.cniCache()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, noSpace(err, n.paths.root)
		}
	}
	if iptables(ctx, n.masquerade("-C")...) != nil {
		if err := iptables(ctx, n.masquerade("-A")...); err != nil {
			return nil, fmt.Errorf("masquerade %s: %w", n.cfg.Subnet, err)
		}
	}
	n.ready = list
	return list, nil
}

func (n *network) list() (*libcni.NetworkConfigList, error) {
	text, err := n.cfg.ConfList()
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(text)
}

// masquerade returns the rule for what leaves the subnet, with -A, -C or -D.
func (n *network) masquerade(verb string) []string {
	return []string{
		"-t", "nat", verb, "POSTROUTING", "-s", n.cfg.Subnet, "!", "-d", n.cfg.Subnet,
		"-m", "comment", "--comment", "muster " + n.cfg.Namespace, "-j", "MASQUERADE",
	}
}

// attach connects the network namespace of a container and returns what it got.
func (n *network) attach(ctx context.Context, id engine.ID, wanted asked) (endpoint, error) {
	list, err := n.prepare(ctx)
	if err != nil {
		return endpoint{}, fmt.Errorf("network of container %s: %w", id, err)
	}
	result, err := n.cni.AddNetworkList(ctx, list, n.arguments(id, wanted))
	if err != nil {
		return endpoint{}, fmt.Errorf("network of container %s: %w", id, noSpace(err, n.paths.root))
	}
	got, err := n.endpoint(id, result)
	if err != nil {
		return endpoint{}, err
	}
	return got, n.ports.Map(id, got.addresses[0], wanted.Ports)
}

// detach undoes attach as far as it got; what is not there is no error.
func (n *network) detach(ctx context.Context, id engine.ID, wanted asked) error {
	if err := n.ports.Unmap(id); err != nil {
		return err
	}
	if err := n.settle(ctx); err != nil {
		return fmt.Errorf("network of container %s: %w", id, err)
	}
	list, err := n.list()
	if err != nil {
		return err
	}
	if err := n.cni.DelNetworkList(ctx, list, n.arguments(id, wanted)); err != nil {
		return fmt.Errorf("network of container %s: %w", id, err)
	}
	return nil
}

func (n *network) arguments(id engine.ID, wanted asked) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: string(id), NetNS: n.paths.netns(id), IfName: insideName,
		CapabilityArgs: map[string]any{"properties": wanted.Network},
	}
}

// remove undoes what all containers of the cell share: the bridge, the rule, the leases.
func (n *network) remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready = nil
	var errs []error
	for iptables(ctx, n.masquerade("-C")...) == nil {
		if err := iptables(ctx, n.masquerade("-D")...); err != nil {
			errs = append(errs, err)
			break
		}
	}
	errs = append(errs, n.ports.Remove(), removeBridge(n.cfg.Bridge), os.RemoveAll(n.paths.ipam()), os.RemoveAll(n.paths.cniCache()))
	return errors.Join(errs...)
}

// removeBridge removes a bridge; one that is not there is no error.
func removeBridge(name string) error {
	if _, err := os.Stat(filepath.Join("/sys/class/net", name, "bridge")); err != nil {
		return nil
	}
	if err := setFlags(name, 0); err != nil {
		return fmt.Errorf("bridge %s down: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCBRDELBR, request); err != nil {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

// iptables runs iptables; it waits for others that do.
func iptables(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "iptables", append([]string{"-w"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("iptables %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
