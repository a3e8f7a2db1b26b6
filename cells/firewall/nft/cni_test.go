package nft

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"muster/cells/engine"
)

// newPluginHost makes a container whose network the CNI plugins make, with a port of the cell for its port 80.
func (c *cell) newPluginHost(t *testing.T, port int) *host {
	t.Helper()
	c.hosts++
	h := &host{space: newSpace(t), id: engine.ID(fmt.Sprintf("plugin-%d-%d", c.n, c.hosts))}
	text, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": c.cfg.Table, "plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": c.cfg.Bridge, "isGateway": true, "hairpinMode": true, "ipam": map[string]any{
					"type": "host-local", "dataDir": filepath.Join(t.TempDir(), "ipam"),
					"ranges": []any{[]any{map[string]any{"subnet": c.addr("10.N.0.0/16"), "rangeStart": c.addr(fmt.Sprintf("10.N.0.%d", 100+c.hosts))}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "snat": true, "capabilities": map[string]any{"portMappings": true}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.NetworkConfFromBytes(text)
	if err != nil {
		t.Fatal(err)
	}
	plugins := libcni.NewCNIConfigWithCacheDir([]string{"/usr/lib/cni"}, filepath.Join(t.TempDir(), "cache"), nil)
	conf := &libcni.RuntimeConf{
		ContainerID: string(h.id), NetNS: fmt.Sprintf("/proc/%d/ns/net", h.tid), IfName: "eth0",
		CapabilityArgs: map[string]any{"portMappings": []any{map[string]any{"hostPort": port, "containerPort": 80, "protocol": "tcp"}}},
	}
	added, err := plugins.AddNetworkList(t.Context(), list, conf)
	if err != nil {
		t.Fatal(err)
	}
	result, err := types100.NewResultFromResult(added)
	if err != nil {
		t.Fatal(err)
	}
	address, ok := netip.AddrFromSlice(result.IPs[0].Address.IP)
	if !ok {
		t.Fatal(result.IPs)
	}
	h.addresses = []netip.Addr{address.Unmap()}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" && i.Name != c.cfg.Bridge {
			h.link.Device = i.Name
		}
		if i.Sandbox != "" {
			if h.link.MAC, err = net.ParseMAC(i.Mac); err != nil {
				t.Fatal(err)
			}
		}
	}
	return h
}

func TestBesideTheRulesOfCNI(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	a, b, f := c.newPluginHost(t, 9001), c.newPluginHost(t, 9002), c.open(t)
	before := iptables(t)
	c.outside.serve(t, 80)
	a.serve(t, 80)
	a.apply(t, f)
	b.apply(t, f)
	mapped := c.addr("203.N.0.1:9001")
	answered(t, c.outside, "tcp", mapped)                         // from the world
	answered(t, hereToo(t), "tcp", mapped)                        // from the cell
	answered(t, hereToo(t), "tcp", a.addresses[0].String()+":80") // a health check
	answered(t, a.space, "tcp", mapped)                           // from itself
	refused(t, b.space, "tcp", mapped)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	b.apply(t, f, rule("tcp 80", a.addresses[0].String(), c.addr("203.N.0.2")))
	answered(t, b.space, "tcp", mapped)
	answered(t, b.space, "tcp", a.addresses[0].String()+":80")
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	if err := f.Remove(b.id); err != nil {
		t.Fatal(err)
	}
	answered(t, c.outside, "tcp", mapped)
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	answered(t, c.outside, "tcp", mapped)
	if after := iptables(t); after != before {
		t.Errorf("iptables had\n%s\nand has\n%s", before, after)
	}
}

// hereToo returns the cell's own network namespace.
func hereToo(t *testing.T) *space {
	s := &space{calls: make(chan func())}
	go func() {
		for call := range s.calls {
			call()
		}
	}()
	t.Cleanup(func() { close(s.calls) })
	return s
}

func iptables(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("iptables", "-t", "nat", "-S").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}
