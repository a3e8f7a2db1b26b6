package cell

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"muster/cells/containerd"
	"muster/cells/firewall/nft"
	"muster/internal/privatecontainerd"
)

// traces lists what the machine holds because of the containers of the cell.
func (w *world) traces() []string {
	w.t.Helper()
	c := w.cfg.Containerd
	all := append(w.known(), w.shims()...)
	for _, pattern := range []string{
		filepath.Join(c.StateDir, "containers", "*"), filepath.Join(c.StateDir, "netns", "*"),
		filepath.Join(c.StateDir, "cni", "results", "*"), filepath.Join(c.StateDir, "ipam", "*", "10.*"),
		"/sys/fs/cgroup/*" + c.CgroupParent + "/*/", "/sys/class/net/" + c.Bridge + "/brif/*",
		filepath.Join(w.dir, "c/state/io.containerd.runtime.v2.task/*/*"), "/run/containerd/runc/" + c.Namespace + "/*",
	} {
		found, err := filepath.Glob(pattern)
		check(w.t, err)
		all = append(all, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(w.t, err)
	for line := range strings.Lines(string(mounts)) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, w.dir) && point != filepath.Join(w.dir, "c/root") {
			all = append(all, "mount "+point)
		}
	}
	rules, err := exec.Command("iptables", "-w", "-t", "nat", "-S").Output()
	check(w.t, err)
	subnet := strings.TrimSuffix(c.Subnet, "0/24")
	for line := range strings.Lines(string(rules)) {
		if strings.Contains(line, c.Namespace) || strings.Contains(line, subnet) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	mapper, err := c.PortMapper()
	check(w.t, err)
	mapped, err := mapper.List()
	check(w.t, err)
	for _, id := range mapped {
		all = append(all, "port of "+string(id))
	}
	ruled, err := nft.Containers(c.Namespace)
	check(w.t, err)
	for _, id := range ruled {
		all = append(all, "egress rules of "+string(id))
	}
	slices.Sort(all)
	return all
}

// known returns what containerd knows of the cell's containers.
func (w *world) known() []string {
	w.t.Helper()
	c, err := client.New(w.daemon.Address)
	check(w.t, err)
	defer c.Close()
	ctx := namespaces.WithNamespace(context.Background(), w.cfg.Containerd.Namespace)
	var all []string
	records, err := c.ContainerService().List(ctx)
	check(w.t, err)
	for _, r := range records {
		all = append(all, "record "+r.ID)
	}
	leases, err := c.LeasesService().List(ctx)
	check(w.t, err)
	for _, l := range leases {
		all = append(all, "lease "+l.ID)
	}
	check(w.t, c.SnapshotService(w.cfg.Containerd.Snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			all = append(all, "snapshot "+info.Name)
		}
		return nil
	}))
	return all
}

// shims returns the shims of the cell, by process.
func (w *world) shims() []string {
	w.t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(w.t, err)
	var all []string
	for _, name := range commands {
		text, _ := os.ReadFile(name) // it may be gone
		if strings.Contains(string(text), "containerd-shim") && strings.Contains(string(text), w.cfg.Containerd.Namespace) {
			all = append(all, fmt.Sprintf("shim %s %s", filepath.Base(filepath.Dir(name)), strings.ReplaceAll(string(text), "\x00", " ")))
		}
	}
	return all
}

// compare fails when the machine does not come to hold what it held before.
func (w *world) compare(before []string) {
	w.t.Helper()
	w.until("the machine as it was:\n"+strings.Join(before, "\n"), func() bool { return slices.Equal(w.traces(), before) })
}

// remove takes the cell and its containerd off the machine.
func (w *world) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, err := containerd.New(w.cfg.Containerd)
	check(w.t, err)
	if err := e.RemoveAll(ctx); err != nil {
		w.t.Error(err)
	}
	if err := e.Close(); err != nil {
		w.t.Error(err)
	}
	if err := privatecontainerd.Stop(ctx, filepath.Join(w.dir, "c")); err != nil {
		w.t.Error(err)
	}
	if _, err := os.Stat("/sys/class/net/" + w.cfg.Containerd.Bridge); err == nil {
		w.t.Errorf("left behind: %s", w.cfg.Containerd.Bridge)
	}
}
