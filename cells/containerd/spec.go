package containerd

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"muster/cells/engine"
	"muster/cells/guest"
)

const (
	// maxCPUShares are the shares of a container with CPU weight 100.
	maxCPUShares = 1024
	// minCPUShares is the kernel's bound.
	minCPUShares = 2
)

// unprivileged are the capabilities of containers that are not privileged; those of Diego's cells.
var unprivileged = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// maskedPaths are hidden from containers that are not privileged.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
	"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
}

// ociSpec returns the OCI specification of a container. Its process is the init, as root.
func (e *Engine) ociSpec(ctx context.Context, spec engine.Spec) (*oci.Spec, error) {
	record := &containers.Container{ID: string(spec.ID)}
	s, err := oci.GenerateSpec(ctx, nil, record, oci.WithDefaultUnixDevices)
	if err != nil {
		return nil, err
	}
	s.Hostname = hostname(spec.ID)
	s.Process.Args = []string{guestInit}
	s.Process.Env = nil // its processes get theirs from the program
	s.Process.Cwd = "/"
	s.Process.NoNewPrivileges = !spec.Privileged
	s.Process.OOMScoreAdj = new(int) // not that of the shim
	s.Process.Rlimits = nil          // those of containerd: the init sets the limits of each process, which it cannot raise
	s.Linux.RootfsPropagation = "private"
	s.Linux.CgroupsPath = e.cgroup(spec.ID)
	setLimits(s.Linux.Resources, spec.Limits)
	e.setMounts(s, spec)
	e.setNetns(s, spec.ID)
	return s, isolate(ctx, s, spec.Privileged)
}

// isolate sets what root may do in the container; other users may do nothing of it, for nobody gets
// ambient or inheritable capabilities, which would survive the execution of other programs.
func isolate(ctx context.Context, s *oci.Spec, privileged bool) error {
	if privileged {
		if err := oci.WithPrivileged(ctx, nil, nil, s); err != nil {
			return err
		}
		if err := oci.WithLinuxDevice("/dev/fuse", "rwm")(ctx, nil, nil, s); err != nil {
			return fmt.Errorf("/dev/fuse for a privileged container: %w", err)
		}
		s.Process.Capabilities.Inheritable = nil
		s.Process.Capabilities.Ambient = nil
		return nil
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: unprivileged, Permitted: unprivileged, Effective: unprivileged}
	s.Linux.MaskedPaths = maskedPaths
	s.Linux.Seccomp = seccomp.DefaultProfile(s) // depends on the capabilities
	return nil
}

// setLimits sets the cgroup limits; 0 is none, which is said by leaving them out.
func setLimits(r *specs.LinuxResources, limits engine.Limits) {
	if limits.MemoryMB > 0 {
		bytes := int64(limits.MemoryMB) << 20
		r.Memory = &specs.LinuxMemory{Limit: &bytes}
		if swapLimited() {
			r.Memory.Swap = &bytes // memory and swap together: no swap beyond the memory
		}
	}
	if limits.MaxPids > 0 {
		pids := int64(limits.MaxPids) + initPids
		r.Pids = &specs.LinuxPids{Limit: &pids}
	}
	weight := uint64(min(max(limits.CPUWeight, 1), 100))
	shares := max(maxCPUShares*weight/100, minCPUShares)
	r.CPU = &specs.LinuxCPU{Shares: &shares}
}

// setMounts gives the container its own names, its cgroup and the mounts that were asked for. The default /run, an empty file system, goes:
// it hides what images have there.
func (e *Engine) setMounts(s *oci.Spec, spec engine.Spec) {
	id := spec.ID
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/run" })
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"},
	})
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: guest.Dir, Type: "bind", Source: e.paths.guest(id), Options: []string{"bind", "private", "ro", "nosuid", "nodev"},
	})
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/etc/" + name, Type: "bind", Source: e.paths.file(id, name), Options: []string{"rbind", "rprivate", "rw"},
		})
	}
	for _, m := range spec.Mounts {
		access := "ro"
		if m.Writable {
			access = "rw"
		}
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: m.Target, Type: "bind", Source: m.Source, Options: []string{"bind", "private", access, "nosuid", "nodev"},
		})
	}
}

// setNetns makes the container join its network namespace.
func (e *Engine) setNetns(s *oci.Spec, id engine.ID) {
	for i, namespace := range s.Linux.Namespaces {
		if namespace.Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = e.paths.netns(id)
		}
	}
}
