package rep

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"muster/bbs/lrp"
	"muster/cells/containerd"
	"muster/cells/engine"
	"muster/cells/fetch"
	"muster/cells/volume"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/lease"
	"muster/rep/internal/probe"
)

// Config is the configuration of a rep.
type Config struct {
	daemon.Common
	lease.Config
	TLS identity.Files `json:"tls"`

	CellID                lrp.CellID `json:"cell_id" help:"name of the cell, unique: letters, digits, - _ and ., at most 64; it is part of the certificate"`
	Zone                  string     `json:"zone" help:"availability zone; instances of a process are spread over zones"`
	CellIndex             int32      `json:"cell_index" help:"position for bin packing, 0 or more; cells with lower ones are filled first when the auctioneer is told to"`
	PlacementTags         []string   `json:"placement_tags" help:"tags that work must ask for to be placed here; more tags: less work fits"`
	OptionalPlacementTags []string   `json:"optional_placement_tags" help:"tags that work may ask for"`
	RootFSSchemes         []string   `json:"rootfs_schemes" help:"URL schemes of root file systems that the cell can run"`
	RootFSPreloaded       []string   `json:"rootfs_preloaded" help:"NAME=PATH of each root file system that work may name as preloaded:NAME: a directory, a tar file, plain or compressed with gzip or zstd, or an image as OCI layout or archive; at most 64; more: longer until all are imported after a change"`

	ListenAddress         string `json:"listen_address" help:"host:port for gRPC with mutual TLS"`
	RepURL                string `json:"rep_url" help:"https://host:port where others reach this rep; empty: external_address and the port of listen_address"`
	ExternalAddress       string `json:"external_address" help:"IP address or host name where routers reach the host ports of the cell"`
	PreferInstanceAddress bool   `json:"prefer_instance_address" help:"routers should use the address of the container, when they share a network with it"`
	BBSAddress            string `json:"bbs_address" help:"host:port of the BBS"`

	MemoryMB      string `json:"memory_mb" help:"MiB of memory to hand out, or auto for all there is; more than there is: instances are killed when they use it"`
	DiskMB        string `json:"disk_mb" help:"MiB of disk to hand out, or auto for the size of the file system of disk_path; more than there is: the disk fills up"`
	DiskPath      string `json:"disk_path" help:"a path on the file system that holds the containers; only for disk_mb auto"`
	MaxContainers int32  `json:"max_containers" help:"most containers at once, 1 to 10000; higher: more load on the engine and more addresses needed"`
	PortRange     string `json:"port_range" help:"first-last host port for instances, each needs one per container port, freed ones rest for a minute; must not overlap that of another cell on the machine, nor net.ipv4.ip_local_port_range"`

	MaxLogLines int64 `json:"max_log_lines_per_second" help:"lines a second that one instance may write to its log, 0: any number; lower: noisy apps lose lines, and are told so"`

	GracefulInterval   daemon.Duration `json:"graceful_interval" help:"from SIGTERM to SIGKILL, 0s to 10m; longer: requests in hand can finish, shorter: stops are quick"`
	CreateTimeout      daemon.Duration `json:"create_timeout" help:"longest time to make a container, image download included, and before that for its cached dependencies, 1s to 1h; shorter: slow registries and blobstores make instances crash"`
	CompareInterval    daemon.Duration `json:"compare_interval" help:"between full comparisons with the BBS, 1s to 1h; shorter: more load there, longer: what was missed is made good later"`
	ReapInterval       daemon.Duration `json:"reap_interval" help:"between comparisons with the container engine, 1s to 1h; longer: a container removed by hand is noticed later"`
	HeartbeatInterval  daemon.Duration `json:"heartbeat_interval" help:"between heartbeats to the BBS, 100ms to 30s; longer: a dead cell is noticed later, shorter: more load"`
	PresenceTTL        daemon.Duration `json:"presence_ttl" help:"how long the BBS believes a heartbeat, 1s to 1m and at least twice heartbeat_interval; shorter: a dead cell is noticed earlier, and a slow one is taken for dead"`
	CheckTimeout       daemon.Duration `json:"check_timeout" help:"of a health check that names none, 10ms to 1m; shorter: slow apps are taken for sick"`
	CheckInterval      daemon.Duration `json:"check_interval" help:"between checks of a healthy instance that name none, 100ms to 1h; longer: sick instances are noticed later"`
	StartCheckInterval daemon.Duration `json:"start_check_interval" help:"longest wait between checks until an instance is healthy, 5ms to 10s; the first waits are shorter; longer: instances get traffic later"`

	Containerd containerd.Config `json:"containerd"`
	Downloads  fetch.Config      `json:"downloads"`
	Volumes    volume.Config     `json:"volumes"`

	TrustedCertsDir string `json:"trusted_certs_dir" help:"directory with certificates of CAs, readable by everybody, that containers get read-only at their trusted_system_certificates_path; what is changed in it is seen at once; empty: they get none"`
	MountedFilesDir string `json:"mounted_files_dir" help:"directory for the volume_mounted_files of containers, at most 1 MiB each; belongs to this cell alone; they may be credentials: on a tmpfs they never reach a disk; empty: one in containerd.state_dir"`

	// Engine, when set, is used instead of containerd.
	Engine engine.Engine `json:"-"`
	// Dial, when set, opens the connections of health checks.
	Dial probe.Dial `json:"-"`
	// Ready, when set, is called once with the address of the gRPC listener, after containers were
	// adopted.
	Ready func(net.Addr) `json:"-"`
}

// Defaults returns the configuration that a file and flags change.
func Defaults() *Config {
	return &Config{
		Common:             daemon.Common{LogLevel: "info", DebugAddress: "127.0.0.1:17008"},
		Config:             lease.Defaults(),
		RootFSSchemes:      []string{"docker", "oci-archive", "oci-layout"},
		ListenAddress:      "0.0.0.0:1801",
		BBSAddress:         "127.0.0.1:8888",
		MemoryMB:           auto,
		DiskMB:             auto,
		DiskPath:           "/",
		MaxContainers:      250,
		PortRange:          "61001-65534",
		GracefulInterval:   daemon.Duration(10 * time.Second),
		CreateTimeout:      daemon.Duration(5 * time.Minute),
		CompareInterval:    daemon.Duration(30 * time.Second),
		ReapInterval:       daemon.Duration(time.Minute),
		HeartbeatInterval:  daemon.Duration(time.Second),
		PresenceTTL:        daemon.Duration(3 * time.Second),
		CheckTimeout:       daemon.Duration(time.Second),
		CheckInterval:      daemon.Duration(30 * time.Second),
		StartCheckInterval: daemon.Duration(250 * time.Millisecond),
		Containerd:         containerd.Defaults(),
		Downloads:          fetch.Defaults(),
		Volumes:            volume.Config{Driver: volume.DefaultDriver},
	}
}

// auto lets the rep find out a capacity by itself.
const auto = "auto"

var cellPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)

// Validate returns every problem at once.
func (c *Config) Validate() error {
	errs := append(c.Common.Problems(), c.TLS.Problems("tls.")...)
	errs = append(errs, c.LeaseProblems()...)
	bad := func(field string, value any, want string) {
		errs = append(errs, fmt.Errorf("%s is %q: want %s", field, fmt.Sprint(value), want))
	}
	if !cellPattern.MatchString(string(c.CellID)) {
		bad("cell_id", c.CellID, "1 to 64 letters, digits, - _ and ., with a letter or digit at both ends")
	}
	if c.CellIndex < 0 {
		bad("cell_index", c.CellIndex, "0 or more")
	}
	if len(c.RootFSSchemes) == 0 {
		bad("rootfs_schemes", "", "at least one, for example docker")
	}
	errs = append(errs, c.preloadedProblems()...)
	for _, f := range []struct{ name, value string }{{"listen_address", c.ListenAddress}, {"bbs_address", c.BBSAddress}} {
		if _, _, err := net.SplitHostPort(f.value); err != nil {
			bad(f.name, f.value, "host:port")
		}
	}
	if c.RepURL != "" {
		if u, err := url.Parse(c.RepURL); err != nil || u.Scheme != "https" || u.Port() == "" {
			bad("rep_url", c.RepURL, "https://host:port, or nothing")
		}
	}
	if c.ExternalAddress == "" || strings.ContainsAny(c.ExternalAddress, "/ ") {
		bad("external_address", c.ExternalAddress, "an IP address or host name of this machine that routers can reach")
	}
	for _, f := range []struct{ name, value string }{{"memory_mb", c.MemoryMB}, {"disk_mb", c.DiskMB}} {
		if _, err := amount(f.value); err != nil && f.value != auto {
			bad(f.name, f.value, "a positive number of MiB or auto")
		}
	}
	if c.MaxContainers < 1 || c.MaxContainers > 10_000 {
		bad("max_containers", c.MaxContainers, "1 to 10000")
	}
	if _, _, err := ports(c.PortRange); err != nil {
		bad("port_range", c.PortRange, "first-last with 1024 <= first <= last <= 65535")
	}
	errs = append(errs, c.durationProblems()...)
	if err := c.downloads(nil).Validate(); err != nil {
		errs = append(errs, fmt.Errorf("downloads: %w", err))
	}
	errs = append(errs, c.belongingsProblems()...)
	if c.Engine == nil {
		if err := c.engineConfig().Validate(); err != nil {
			errs = append(errs, fmt.Errorf("containerd: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) durationProblems() []error {
	var errs []error
	for _, f := range []struct {
		name      string
		value     daemon.Duration
		low, high time.Duration
	}{
		{"graceful_interval", c.GracefulInterval, 0, 10 * time.Minute},
		{"create_timeout", c.CreateTimeout, time.Second, time.Hour},
		{"compare_interval", c.CompareInterval, time.Second, time.Hour},
		{"reap_interval", c.ReapInterval, time.Second, time.Hour},
		{"heartbeat_interval", c.HeartbeatInterval, 100 * time.Millisecond, 30 * time.Second},
		{"presence_ttl", c.PresenceTTL, max(time.Second, 2*time.Duration(c.HeartbeatInterval)), time.Minute},
		{"check_timeout", c.CheckTimeout, 10 * time.Millisecond, time.Minute},
		{"check_interval", c.CheckInterval, 100 * time.Millisecond, time.Hour},
		{"start_check_interval", c.StartCheckInterval, 5 * time.Millisecond, 10 * time.Second},
	} {
		if v := time.Duration(f.value); v < f.low || v > f.high {
			errs = append(errs, fmt.Errorf("%s is %v: want %v to %v", f.name, v, f.low, f.high))
		}
	}
	return errs
}

// engineConfig returns the configuration of containerd; what belongs to this cell alone is named after
// it unless it was given.
func (c *Config) engineConfig() containerd.Config {
	e := c.Containerd
	e.Preloaded = c.preloaded()
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&e.Namespace, "muster-"+string(c.CellID))
	fill(&e.StateDir, "/var/lib/muster/"+string(c.CellID))
	fill(&e.CgroupParent, "/muster/"+string(c.CellID))
	fill(&e.Bridge, "muster0")
	fill(&e.Subnet, "10.254.0.0/22")
	return e
}

// downloads returns the configuration of what is moved for containers. Its directory is on the file system of the
// containers' inboxes unless it was given.
func (c *Config) downloads(log *slog.Logger) fetch.Config {
	f := c.Downloads
	f.Log = log
	if f.Dir == "" {
		f.Dir = filepath.Join(c.engineConfig().StateDir, "downloads")
	}
	return f
}

func amount(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is not a positive number", text)
	}
	return int32(n), nil
}

func ports(text string) (first, last uint16, err error) {
	a, b, _ := strings.Cut(text, "-")
	from, err1 := strconv.ParseUint(a, 10, 16)
	to, err2 := strconv.ParseUint(b, 10, 16)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, err
	}
	if from < 1024 || from > to {
		return 0, 0, fmt.Errorf("%d to %d is no range of unprivileged ports", from, to)
	}
	return uint16(from), uint16(to), nil
}
