package ports

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
)

func mapping(port, host, proxy, hostProxy uint32) lrp.PortMapping {
	return lrp.PortMapping{ContainerPort: port, HostPort: host, ContainerTLSProxyPort: proxy, HostTLSProxyPort: hostProxy}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		asked []uint32
		rules Rules
		want  []lrp.PortMapping
		hosts []uint16
	}{
		"no ports":    {nil, Rules{TLS: true}, nil, nil},
		"without TLS": {[]uint32{8080, 22, 8080}, Rules{}, []lrp.PortMapping{mapping(8080, 1, 0, 0), mapping(22, 2, 0, 0)}, []uint16{1, 2}},
		"app's own are skipped": {[]uint32{61001, 61003, 22}, Rules{TLS: true},
			[]lrp.PortMapping{mapping(61001, 1, 61002, 2), mapping(61003, 3, 61004, 4), mapping(22, 5, 61005, 6)}, []uint16{1, 2, 3, 4, 5, 6}},
		"8080 comes twice": {[]uint32{22, 8080, 80}, Rules{TLS: true},
			[]lrp.PortMapping{mapping(22, 1, 61001, 2), mapping(8080, 3, 61002, 4), mapping(8080, 3, 61443, 0), mapping(80, 5, 61003, 6)}, []uint16{1, 2, 3, 4, 5, 6}},
		"only TLS": {[]uint32{8080, 22}, Rules{TLS: true, OnlyTLS: true},
			[]lrp.PortMapping{mapping(8080, 0, 61001, 1), mapping(8080, 0, 61443, 0), mapping(22, 0, 61002, 2)}, []uint16{1, 2}},
	} {
		layout, err := Layout(tt.asked, tt.rules)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := WithHostPorts(layout, tt.rules, tt.hosts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if _, err := WithHostPorts(layout, tt.rules, append(tt.hosts, 9)); err == nil {
			t.Errorf("%s: a host port too many was taken", name)
		}
	}
}

func TestLayoutRefuses(t *testing.T) {
	t.Parallel()
	many := make([]uint32, Max+1)
	for i := range many {
		many[i] = uint32(i + 1)
	}
	for _, tt := range []struct {
		asked []uint32
		want  string
	}{
		{[]uint32{8080, 61443}, "port 61443 is reserved for container networking"},
		{[]uint32{0}, "0: want 1 to 65535"},
		{[]uint32{65536}, "65536: want 1 to 65535"},
		{many, "257 different ones: at most 256"},
	} {
		if _, err := Layout(tt.asked, Rules{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d ports: got %v, want %q", len(tt.asked), err, tt.want)
		}
	}
}

// An app that has the first ports of the proxy pushes the proxy as far as the port for other containers.
func TestTheProxySkipsContainerTLS(t *testing.T) {
	t.Parallel()
	asked := make([]uint32, Max)
	for i := range asked {
		asked[i] = FirstProxy + uint32(i)
	}
	layout, err := Layout(asked, Rules{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range layout {
		if m.ContainerTLSProxyPort == ContainerTLS {
			t.Errorf("port %d has got %d", m.ContainerPort, ContainerTLS)
		}
	}
	if last := layout[Max-1].ContainerTLSProxyPort; last != FirstProxy+2*Max {
		t.Errorf("the last has got %d", last)
	}
}

// No two ports of one container meet, and none of one host.
func TestPortsDoNotMeet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.OneOf(rapid.Uint32Range(1, 65535), rapid.Uint32Range(61000, 61010), rapid.Uint32Range(61440, 61446), rapid.Just(uint32(8080)))
		asked := rapid.SliceOfN(port.Filter(func(p uint32) bool { return p != ContainerTLS }), 0, Max).Draw(t, "asked")
		rules := Rules{TLS: true, OnlyTLS: rapid.Bool().Draw(t, "only")}
		layout, err := Layout(asked, rules)
		if err != nil {
			t.Fatal(err)
		}
		var inside []uint32
		for _, m := range layout {
			inside = append(inside, m.ContainerTLSProxyPort)
			if m.ContainerTLSProxyPort < FirstProxy || m.ContainerTLSProxyPort > 65535 || slices.Contains(asked, m.ContainerTLSProxyPort) {
				t.Fatalf("proxy port %d", m.ContainerTLSProxyPort)
			}
		}
		slices.Sort(inside)
		if len(slices.Compact(inside)) != len(layout) {
			t.Fatal("a proxy port is given twice")
		}
		hosts := make([]uint16, HostPorts(layout, rules))
		for i := range hosts {
			hosts[i] = uint16(i + 1)
		}
		all, err := WithHostPorts(layout, rules, hosts)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[uint32]int{}
		for _, m := range all {
			if m.ContainerTLSProxyPort != ContainerTLS {
				seen[m.HostPort]++
				seen[m.HostTLSProxyPort]++
			}
		}
		for _, h := range hosts {
			if seen[uint32(h)] != 1 {
				t.Fatalf("host port %d is given %d times", h, seen[uint32(h)])
			}
		}
	})
}

func TestEnv(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		all  []lrp.PortMapping
		want []string
	}{
		"none": {nil, []string{"CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=", "CF_INSTANCE_PORTS=[]"}},
		"only TLS": {[]lrp.PortMapping{mapping(8080, 0, 61001, 7), mapping(8080, 0, 61443, 0)},
			[]string{`CF_INSTANCE_PORTS=[{"internal":8080,"external_tls_proxy":7,"internal_tls_proxy":61001},{"internal":8080,"internal_tls_proxy":61443}]`}},
		"all": {[]lrp.PortMapping{mapping(22, 6, 61001, 7)},
			[]string{"CF_INSTANCE_PORT=6", "CF_INSTANCE_ADDR=10.0.0.7:6", `CF_INSTANCE_PORTS=[{"external":6,"internal":22,"external_tls_proxy":7,"internal_tls_proxy":61001}]`}},
	} {
		if diff := cmp.Diff(tt.want, Env("10.0.0.7", tt.all)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
