package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"muster/auctioneer"
	"muster/bbs"
	"muster/bbs/lrp"
	"muster/cells/containerd"
	"muster/gorouter"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/rep"
	emitter "muster/route-emitter"
)

// routesTime is how long a starting router of a stack waits for its routes: there is one emitter, on
// the same machine.
const routesTime = 200 * time.Millisecond

// parts lists the daemons in the order of their dependencies.
func (s *Stack) parts() []string {
	var list []string
	if s.usesConsul() {
		list = append(list, consulPart)
	}
	list = append(list, "nats", "bbs", "auctioneer")
	for i := 1; i <= Cells; i++ {
		list = append(list, cellName(i))
	}
	return append(list, "route-emitter", "gorouter")
}

// partPorts says which ports each daemon listens on.
func partPorts() map[string][]string {
	m := map[string][]string{
		consulPart:      {"consul", "consul-rpc", "consul-serf"},
		"nats":          {"nats"},
		"bbs":           {"bbs", "bbs-debug", portDiego},
		"auctioneer":    {"auctioneer-debug"},
		"route-emitter": {"emitter-debug"},
		"gorouter":      {portHTTP, "router-status", "router-debug"},
	}
	for i := 1; i <= Cells; i++ {
		m[cellName(i)] = []string{cellName(i), cellName(i) + "-debug"}
	}
	return m
}

// where says at which address a part is of use.
func (s *Stack) where(part string) string { return s.address(partPorts()[part][0]) }

// debugPort is the port whose /healthz tells whether a part is well; empty for NATS and Consul, which have none.
func debugPort(part string) string {
	switch part {
	case "nats", consulPart:
		return ""
	case "route-emitter":
		return "emitter-debug"
	case "gorouter":
		return "router-debug"
	}
	return part + "-debug"
}

// ready waits until a part is well.
func (s *Stack) ready(part string) func(context.Context) error {
	if p := debugPort(part); p != "" {
		return healthy(s.address(p))
	}
	if part == consulPart {
		return func(ctx context.Context) error { return probe(ctx, s.checkConsul) }
	}
	return accepts(s.where(part))
}

// check asks a part once whether it is well.
func (s *Stack) check(ctx context.Context, part string) error {
	if p := debugPort(part); p != "" {
		return health(ctx, s.address(p))
	}
	if part == consulPart {
		return s.checkConsul(ctx)
	}
	return dial(ctx, s.where(part))
}

// initProgram is what runs in every container.
const initProgram = "muster-init"

// programs reports every daemon whose program is missing, before anything is started.
func (u *upper) programs() error {
	_, err := binary(u.options.BinDir, initProgram)
	errs := []error{err}
	seen := map[string]bool{}
	for _, part := range u.parts() {
		if part == "nats" || part == consulPart {
			continue // that is our own program, and this is built when it is needed
		}
		program, _, err := u.configuration(part)
		if err == nil && !seen[program] {
			seen[program] = true
			_, err = binary(u.options.BinDir, program)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// engine is the configuration of a cell's containers.
func (s *Stack) engine(i int) containerd.Config {
	c := containerd.Defaults()
	c.Address = s.Containerd
	c.Namespace = s.Name + "-" + cellName(i)
	c.StateDir = s.path("cells", cellName(i))
	c.ImageDir = s.ImageDir()
	c.CgroupParent = "/" + filepath.Join(s.Name, cellName(i))
	c.Bridge = s.bridgeName(i)
	c.Subnet = s.subnet(i)
	return c
}

// tls names the certificate of a role.
func (s *Stack) tls(role identity.Role) identity.Files {
	return identity.FilesOf(s.CertsDir(), identity.ID{Role: role})
}

// spec says how a part is run; its configuration is written.
func (u *upper) spec(ctx context.Context, part string) (daemonSpec, error) {
	d := daemonSpec{part: part, log: u.log(part), ports: partPorts()[part], ready: u.ready(part)}
	if part == consulPart {
		return u.consulSpec(ctx, d)
	}
	if part == "nats" {
		exe, err := os.Executable()
		if err != nil {
			return d, err
		}
		d.exe, err = filepath.EvalSymlinks(exe)
		d.args = []string{"nats", "--listen", u.address("nats"), "--certs", u.CertsDir()}
		return d, err
	}
	program, config, err := u.configuration(part)
	if err != nil {
		return d, err
	}
	if d.exe, err = binary(u.options.BinDir, program); err != nil {
		return d, err
	}
	if d.config, err = yaml.Marshal(config); err != nil {
		return d, fmt.Errorf("write configuration: %w", err)
	}
	if u.usesConsul() {
		token, err := u.consulToken()
		if err != nil {
			return d, err
		}
		if d.config, err = reveal(d.config, map[string]any{"consul.token": token}); err != nil {
			return d, err
		}
	}
	if part == "bbs" {
		if d.config, err = u.withEncryption(d.config); err != nil {
			return d, err
		}
	}
	name := u.path("config", part+".yaml")
	if err := writeFile(name, d.config, 0o600); err != nil {
		return d, err
	}
	d.args = []string{"-config", name}
	if part == "bbs" {
		// A file that is written from the configuration hides secrets. This one is none: a socket
		// that asks the kernel who calls.
		d.args = append(d.args, "-database-url", u.database)
	}
	if part == "auctioneer" && !u.usesConsul() {
		d.args = append(d.args, "-lease-database-url", u.database) // as above
	}
	return d, nil
}

// configuration returns the program and the settings of a part.
func (u *upper) configuration(part string) (program string, config any, err error) {
	leases, err := u.leaseConfig()
	if err != nil {
		return "", nil, err
	}
	switch part {
	case "bbs":
		c := bbs.Defaults()
		c.Config = leases
		c.TLS, c.ListenAddress, c.DebugAddress = u.tls(identity.BBS), u.address("bbs"), u.address("bbs-debug")
		c.Diego.ListenAddress = u.address(portDiego)
		return "bbs", c, nil
	case "route-emitter":
		c := emitter.Defaults()
		c.Config = leases
		c.TLS, c.BBSAddress, c.DebugAddress = u.tls(identity.RouteEmitter), u.address("bbs"), u.address("emitter-debug")
		c.NATSAddresses = []string{u.address("nats")}
		return "route-emitter", c, nil
	case "gorouter":
		c := gorouter.Defaults()
		c.Config = leases
		c.TLS, c.HTTPAddress, c.StatusAddress = u.tls(identity.Gorouter), u.address(portHTTP), u.address("router-status")
		c.DebugAddress, c.NATSURLs = u.address("router-debug"), []string{"nats://" + u.address("nats")}
		c.AccessLog = u.log("access")
		c.StartResponseDelay = daemon.Duration(routesTime)
		return "gorouter", c, nil
	case "auctioneer":
		c := auctioneer.Defaults()
		c.Config = leases
		c.TLS, c.BBSAddress, c.DebugAddress = u.tls(identity.Auctioneer), u.address("bbs"), u.address("auctioneer-debug")
		return "auctioneer", c, nil
	}
	for i := 1; i <= Cells; i++ {
		if part == cellName(i) {
			c := u.rep(i)
			c.Config = leases
			return "rep", c, nil
		}
	}
	return "", nil, fmt.Errorf("no part is called %s", part)
}

// rep is the configuration of a cell's rep. The cells share the machine, so each gets its part.
func (u *upper) rep(i int) *rep.Config {
	name, c := cellName(i), rep.Defaults()
	c.TLS = identity.FilesOf(u.CertsDir(), identity.ID{Role: identity.Rep, Cell: name})
	c.CellID, c.Zone, c.CellIndex = lrp.CellID(name), "z"+strconv.Itoa(i), int32(i-1)
	c.ListenAddress, c.DebugAddress = u.address(name), u.address(name+"-debug")
	c.ExternalAddress, c.BBSAddress = loopback, u.address("bbs")
	c.MemoryMB, c.DiskMB = share(memoryMB()), share(diskMB(u.StateDir))
	first := u.Ports[portContainers] + (i-1)*hostPortsPerCell
	c.PortRange = fmt.Sprintf("%d-%d", first, first+hostPortsPerCell-1)
	c.Containerd = u.engine(i)
	c.Containerd.InitPath = filepath.Join(u.options.BinDir, initProgram)
	return c
}

// share is the part of each cell of an amount of MiB; an unknown amount is left to the rep to find out.
func share(total int64) string {
	if total <= 0 {
		return "auto"
	}
	return strconv.FormatInt(min(total/Cells, 1<<31-1), 10)
}

func memoryMB() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit) >> 20
}

func diskMB(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Blocks) * st.Bsize >> 20
}
