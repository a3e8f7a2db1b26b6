package containerd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"muster/cells/engine"
	"muster/cells/firewall"
)

// Config says where an engine works.
type Config struct {
	Address       string          `json:"address" help:"path of containerd's socket"`
	Namespace     string          `json:"namespace" help:"containerd namespace; belongs to this cell alone, e.g. muster-CELL"`
	StateDir      string          `json:"state_dir" help:"directory for logs, network namespaces and address leases; kept over restarts and belongs to this cell alone"`
	ImageDir      string          `json:"image_dir" help:"directory below which oci-archive:// and oci-layout:// images may lie; empty: such images are refused"`
	Snapshotter   string          `json:"snapshotter" help:"containerd snapshotter"`
	Runtime       string          `json:"runtime" help:"containerd runtime"`
	CgroupParent  string          `json:"cgroup_parent" help:"cgroup of this cell, absolute, e.g. /muster/CELL; removed by a full clean-up"`
	Bridge        string          `json:"bridge" help:"name of this cell's bridge, at most 15 characters; made when missing"`
	Subnet        string          `json:"subnet" help:"IPv4 subnet of the containers, e.g. 10.254.1.0/24; must not overlap that of another cell; its size bounds the number of containers"`
	DNS           []string        `json:"dns" help:"resolvers for containers; empty: those of the cell, without loopback ones"`
	CNIBinDir     string          `json:"cni_bin_dir" help:"directory of the CNI plugins bridge and host-local"`
	CNIPlugins    []string        `json:"cni_plugins" help:"files with the configurations of further CNI plugins, one in each; they run after bridge, in this order, and get the network properties of an LRP or a task if they have the capability properties"`
	InitPath      string          `json:"init_path" help:"the program muster-init, which runs in every container"`
	Firewall      firewall.Config `json:"firewall"`
	LogLimitBytes int64           `json:"log_limit_bytes" help:"bytes kept of the log of a container, at least 65536; larger: more history for late readers, more disk that no limit of an app is charged for"`

	// Preloaded are the root file systems for preloaded:NAME, by name: absolute paths of an OCI layout, of an
	// archive of an image, of a tar file, plain or compressed with gzip or zstd, or of a directory. What is changed
	// in a directory counts from the next life of the engine on.
	Preloaded map[string]string `json:"-"`
	// Log gets what the engine does on its own; nil: nobody.
	Log *slog.Logger `json:"-"`
	// Step, when set, is told how long each step of a Create, Start or Destroy took, and the import
	// of an image, which has no ID. It may be called concurrently and must return at once.
	Step func(id engine.ID, step string, took time.Duration) `json:"-"`
}

// Defaults returns what suits Debian; Namespace, StateDir, Bridge, Subnet and CgroupParent are the caller's.
func Defaults() Config {
	return Config{
		Address:       "/run/containerd/containerd.sock",
		Snapshotter:   "overlayfs",
		Runtime:       "io.containerd.runc.v2",
		CNIBinDir:     "/usr/lib/cni",
		InitPath:      besideExecutable("muster-init"),
		Firewall:      firewall.Defaults(),
		LogLimitBytes: 8 << 20,
	}
}

// besideExecutable returns the path of a file beside the program that runs.
func besideExecutable(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(exe), name)
}

const (
	minLogLimit   = 64 << 10
	maxBridgeName = 15 // of the kernel: IFNAMSIZ - 1
	minSubnetBits = 8
	maxSubnetBits = 29
)

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)

// Validate returns all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(field string, value any, want string) {
		errs = append(errs, fmt.Errorf("%s is %q: %s", field, fmt.Sprint(value), want))
	}
	if !filepath.IsAbs(c.Address) {
		bad("address", c.Address, "want the absolute path of containerd's socket")
	}
	if !namespacePattern.MatchString(c.Namespace) || len(c.Namespace) > 76 {
		bad("namespace", c.Namespace, "want at most 76 letters and digits with single - _ . between them")
	}
	if !filepath.IsAbs(c.StateDir) {
		bad("state_dir", c.StateDir, "want an absolute path")
	}
	if c.ImageDir != "" && !filepath.IsAbs(c.ImageDir) {
		bad("image_dir", c.ImageDir, "want an absolute path, or nothing")
	}
	if c.Snapshotter == "" {
		bad("snapshotter", c.Snapshotter, "want the name of a snapshotter, e.g. overlayfs")
	}
	if c.Runtime == "" {
		bad("runtime", c.Runtime, "want the name of a runtime, e.g. io.containerd.runc.v2")
	}
	if !filepath.IsAbs(c.CgroupParent) || filepath.Clean(c.CgroupParent) == "/" {
		bad("cgroup_parent", c.CgroupParent, "want an absolute cgroup below the root, e.g. /muster/cell-1")
	}
	if c.Bridge == "" || len(c.Bridge) > maxBridgeName {
		bad("bridge", c.Bridge, fmt.Sprintf("want 1 to %d characters", maxBridgeName))
	}
	prefix, err := netip.ParsePrefix(c.Subnet)
	if err != nil || !prefix.Addr().Is4() || prefix.Bits() < minSubnetBits || prefix.Bits() > maxSubnetBits || prefix.Masked() != prefix {
		bad("subnet", c.Subnet, fmt.Sprintf("want an IPv4 network with a /%d to /%d mask, e.g. 10.254.1.0/24", minSubnetBits, maxSubnetBits))
	}
	for _, server := range c.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			bad("dns", server, "want IP addresses")
		}
	}
	if c.LogLimitBytes < minLogLimit {
		bad("log_limit_bytes", c.LogLimitBytes, fmt.Sprintf("want at least %d", minLogLimit))
	}
	if !filepath.IsAbs(c.InitPath) {
		bad("init_path", c.InitPath, "want the absolute path of the program muster-init")
	}
	for _, plugin := range cniPlugins {
		if _, err := os.Stat(filepath.Join(c.CNIBinDir, plugin)); err != nil {
			bad("cni_bin_dir", c.CNIBinDir, fmt.Sprintf("the plugin %s is not there: install it, on Debian with: apt-get install containernetworking-plugins", plugin))
		}
	}
	if _, err := c.Firewall.Compile(); err != nil {
		errs = append(errs, fmt.Errorf("firewall: %w", err))
	}
	if _, err := c.morePlugins(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
