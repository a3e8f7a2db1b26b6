package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// DefaultStateDir is where a stack keeps everything.
	DefaultStateDir = "/var/lib/muster"
	// Domain is the domain of applications that the operator's program starts.
	Domain = "muster"
	// Cells is how many cells a stack has.
	Cells = 3
	// defaultName and defaultSubnets name a stack and give its cells addresses.
	defaultName    = "muster"
	defaultSubnets = "10.255"
	// hostPortsPerCell is how many ports of the host a cell may map to its containers.
	hostPortsPerCell = 500
	// loopback is where everything listens.
	loopback = "127.0.0.1"
)

// The names of ports that are spoken of outside of a table.
const (
	portHTTP       = "http"
	portContainers = "containers"
	portDiego      = "bbs-diego"
)

// port is a port of the stack.
type port struct {
	name string
	def  int
	what string
}

// portTable lists the ports of a stack in the order in which --port-base numbers them.
func portTable() []port {
	ports := []port{
		{portHTTP, 8080, "the router, for everybody's requests"},
		{"router-status", 8082, "the router's health and routes"},
		{"router-debug", 17002, "the router's metrics"},
		{"bbs", 8888, "the BBS's API"},
		{"bbs-debug", 17017, "the BBS's metrics"},
		{"nats", 4222, "NATS"},
		{"auctioneer-debug", 17001, "the auctioneer's metrics"},
		{"emitter-debug", 17009, "the route-emitter's metrics"},
	}
	for i := 1; i <= Cells; i++ {
		ports = append(ports,
			port{cellName(i), 1800 + i, "the rep of " + cellName(i)},
			port{cellName(i) + "-debug", 17007 + i*10 - 9, "the metrics of the rep of " + cellName(i)})
	}
	ports = append(ports,
		port{"consul", 8500, "Consul's API, with --lease consul"},
		port{"consul-rpc", 8300, "Consul's own"},
		port{"consul-serf", 8301, "Consul's own"},
		port{portDiego, 8889, "the BBS's API for Diego's clients"})
	return append(ports, port{portContainers, 61000,
		fmt.Sprintf("the first of %d for containers, %d for each cell", Cells*hostPortsPerCell, hostPortsPerCell)})
}

func cellName(i int) string { return "cell-" + strconv.Itoa(i) }

// PortNames lists the names of the ports with what they are for.
func PortNames() []string {
	var out []string
	for _, p := range portTable() {
		out = append(out, fmt.Sprintf("%s (%d: %s)", p.name, p.def, p.what))
	}
	return out
}

// Stack says where a stack is and what it uses.
type Stack struct {
	StateDir string         `json:"-"`
	Name     string         `json:"name"`    // begins the names of bridges, namespaces, cgroups
	Subnets  string         `json:"subnets"` // the first two numbers of the subnets of the cells
	Ports    map[string]int `json:"ports"`
	// Containerd is the socket used; empty: not decided yet.
	Containerd string `json:"containerd,omitempty"`
	// Lease says what decides who leads: postgres, also when it is empty, or consul.
	Lease string `json:"lease,omitempty"`
	// Host is what the host was like before the first Up.
	Host *Host `json:"host,omitempty"`
}

// Describe returns the stack of a state directory: what its stack.json says, or the defaults.
func Describe(stateDir string) *Stack {
	s, err := load(stateDir)
	if err != nil {
		return fresh(stateDir)
	}
	return s
}

func fresh(stateDir string) *Stack {
	s := &Stack{StateDir: stateDir, Name: defaultName, Subnets: defaultSubnets, Ports: map[string]int{}}
	for _, p := range portTable() {
		s.Ports[p.name] = p.def
	}
	return s
}

// load reads stack.json; without one it returns the defaults.
func load(stateDir string) (*Stack, error) {
	s := fresh(stateDir)
	text, err := os.ReadFile(s.path("stack.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read %s: %w: muster down --state-dir %s removes the stack", s.path("stack.json"), err, stateDir)
	}
	return s, nil
}

func (s *Stack) save() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(s.path("stack.json"), append(text, '\n'), 0o644)
}

// writeFile replaces a file as a whole, or not at all.
func writeFile(name string, text []byte, mode os.FileMode) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, text, mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

func (s *Stack) path(parts ...string) string {
	return filepath.Join(append([]string{s.StateDir}, parts...)...)
}

// CertsDir is where the CA and the certificates are.
func (s *Stack) CertsDir() string { return s.path("certs") }

// ImageDir is where the cells look for images on disk.
func (s *Stack) ImageDir() string { return s.path("images") }

// BBSAddress is where the BBS listens.
func (s *Stack) BBSAddress() string { return s.address("bbs") }

// URL returns how to reach a route through the router.
func (s *Stack) URL(route string) string {
	host, path, _ := strings.Cut(route, "/")
	if p := s.Ports[portHTTP]; p != 80 {
		host = net.JoinHostPort(host, strconv.Itoa(p))
	}
	return "http://" + host + "/" + path
}

func (s *Stack) address(name string) string {
	return net.JoinHostPort(loopback, strconv.Itoa(s.Ports[name]))
}

func (s *Stack) log(part string) string { return s.path("log", part+".log") }

// setPorts applies what the command line says: a base first, then single ports.
func (s *Stack) setPorts(base int, single map[string]int) error {
	table := portTable()
	if base != 0 {
		for i, p := range table {
			if p.name != portContainers {
				s.Ports[p.name] = base + i
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(single)) {
		if _, ok := s.Ports[name]; !ok {
			return fmt.Errorf("port %q is unknown; known are %s", name, strings.Join(slices.Sorted(maps.Keys(s.Ports)), ", "))
		}
		s.Ports[name] = single[name]
	}
	return s.checkPorts()
}

// checkPorts reports all that is wrong with the choice of ports.
func (s *Stack) checkPorts() error {
	var errs []error
	user := map[int]string{}
	first := s.Ports[portContainers]
	last := first + Cells*hostPortsPerCell - 1
	for _, p := range portTable() {
		n := s.Ports[p.name]
		if p.name == portContainers {
			if n < 1024 || last > 65535 {
				errs = append(errs, fmt.Errorf("port containers=%d: %d ports from there on must lie between 1024 and 65535", n, last-first+1))
			}
			continue
		}
		switch {
		case n < 1 || n > 65535:
			errs = append(errs, fmt.Errorf("port %s=%d: want 1 to 65535", p.name, n))
		case user[n] != "":
			errs = append(errs, fmt.Errorf("port %s=%d is also %s: choose another with %s", p.name, n, user[n], portFlag(p.name)))
		case n >= first && n <= last:
			errs = append(errs, fmt.Errorf("port %s=%d is one of those for containers, %d to %d", p.name, n, first, last))
		}
		user[n] = p.name
	}
	return errors.Join(errs...)
}

// portFlag says how to choose a port.
func portFlag(name string) string {
	if name == portHTTP {
		return "--http-port N"
	}
	return "--port " + name + "=N"
}
