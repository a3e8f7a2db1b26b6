package privatecontainerd

import (
	"fmt"
	"path/filepath"
	"strings"
)

// disabled are the plugins that we have no use for; each costs start-up time or leaves something on
// the machine (CRI, for one, wants a CNI configuration and a network).
var disabled = [...]string{
	"io.containerd.grpc.v1.cri",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.restart",
	"io.containerd.internal.v1.tracing",
	"io.containerd.tracing.processor.v1.otlp",
	"io.containerd.monitor.v1.cgroups",
	"io.containerd.snapshotter.v1.aufs",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.zfs",
}

// configuration returns the configuration file of a daemon in dir.
func configuration(dir string) string {
	quoted := make([]string, 0, len(disabled))
	for _, plugin := range disabled {
		quoted = append(quoted, fmt.Sprintf("%q", plugin))
	}
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = [%s]

[grpc]
  address = %q
`, filepath.Join(dir, rootDir), filepath.Join(dir, stateDir), strings.Join(quoted, ", "), filepath.Join(dir, socketFile))
}
