package cell

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/bbs/lrp"
	"muster/cells/firewall/nft"
	"muster/internal/privatecontainerd"
)

// TestReboot takes from under a cell all that a reboot of its machine takes: processes, mounts, namespaces, devices,
// rules and what is below /run. The files on its disk stay. The next rep tells at once that the instance is gone, what
// is left of it goes, and the cell works.
func TestReboot(t *testing.T) {
	w := newWorld(t, 0)
	c := w.startRep("")
	d, first := w.witness(c)
	c.kill()
	w.reboot()
	c = w.startRep("")
	w.until("the truth", func() bool {
		a, known := w.actual(d)
		return !known || a.State != lrp.Running && a.Instance != first.Instance
	})
	again := w.settle(c, d)
	if again.Instance == first.Instance {
		t.Error("the instance has come back from the dead")
	}
	w.answers(again)
	w.until("one container", func() bool { return len(w.shims()) == 1 })
	w.drop(c, d)
	before := w.traces() // of an empty cell
	for _, trace := range before {
		if strings.Contains(trace, string(first.Instance)) || strings.Contains(trace, string(again.Instance)) {
			t.Errorf("left behind: %s", trace)
		}
	}
	next := w.desire(nil)
	w.answers(w.settle(c, next))
	w.drop(c, next)
	w.compare(before)
}

// reboot leaves of the cell what a reboot leaves.
func (w *world) reboot() {
	w.t.Helper()
	cfg, dir := w.cfg.Containerd, filepath.Join(w.dir, "c")
	check(w.t, privatecontainerd.Stop(w.t.Context(), dir)) // ends all processes and unmounts what they had
	check(w.t, os.RemoveAll(filepath.Join(dir, "state")))
	check(w.t, os.RemoveAll("/run/containerd/runc/"+cfg.Namespace))
	spaces, err := filepath.Glob(filepath.Join(cfg.StateDir, "netns", "*"))
	check(w.t, err)
	for _, space := range spaces {
		check(w.t, syscall.Unmount(space, syscall.MNT_DETACH))
	}
	for _, command := range []string{"ip link delete " + cfg.Bridge, "iptables -w -t nat -S"} {
		out, err := exec.Command(strings.Fields(command)[0], strings.Fields(command)[1:]...).CombinedOutput()
		if err != nil {
			w.t.Fatalf("%s: %v: %s", command, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if rule, ok := strings.CutPrefix(strings.TrimSpace(line), "-A "); ok && strings.Contains(rule, cfg.Subnet) {
				check(w.t, exec.Command("sh", "-c", "iptables -w -t nat -D "+rule).Run())
			}
		}
	}
	check(w.t, nft.Destroy(cfg.Namespace))
	mapper, err := cfg.PortMapper()
	check(w.t, err)
	check(w.t, mapper.Remove())
	w.openContainerd()
}
