package rep_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/cells/fetch/fetchtest"
	"muster/internal/identity"
	"muster/rep"
)

// withBelongings gives the cell volumes and trusted certificates.
func withBelongings(t *testing.T) (dir string, config func(*rep.Config)) {
	t.Helper()
	dir = t.TempDir()
	certs := filepath.Join(dir, "certs")
	if err := os.Mkdir(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(certs, "ca.pem"), []byte("a CA\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, func(c *rep.Config) { c.Volumes.Dir, c.TrustedCertsDir = filepath.Join(dir, "volumes"), certs }
}

func serial(actions ...*lrp.Action) *lrp.Action {
	return &lrp.Action{Serial: &lrp.SerialAction{Actions: actions}}
}

// leftovers lists what of containers is on the disk of the cell.
func (w *world) leftovers(dir string) (all []string) {
	w.t.Helper()
	for _, pattern := range []string{filepath.Join(w.dir, "mounted-files", "*"), filepath.Join(dir, "volumes", "mounts", "*")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// TestVolumesMountVisible (§24 "Volumes, FUSE"): what an instance writes into a volume is there for the next one, who may only read it.
func TestVolumesMountVisible(t *testing.T) {
	t.Parallel()
	dir, config := withBelongings(t)
	w := newWorld(t, config)
	c := w.startRep()
	c.untilState("the driver", func(s cells.State) bool { return slices.Equal(s.VolumeDrivers, []string{"local"}) })
	mount := func(mode string) []lrp.VolumeMount {
		return []lrp.VolumeMount{{Driver: "local", ContainerDir: "/data", Mode: mode, Shared: &lrp.SharedDevice{VolumeID: "v"}}}
	}
	c.performTask(w.desireTask("writes", func(d *task.Definition) { d.VolumeMounts = mount("rw") }, "write", "/data/x", "kept"))
	if got := w.taskIn("writes", task.Completed); got.Failed {
		t.Fatalf("failed: %s", got.FailureReason)
	}
	d := w.desire(desired("reads", 1, func(d *lrp.Desired) {
		d.RunInfo.VolumeMounts = mount("r")
		d.RunInfo.Setup = serial(do("cat", "/data/x"), &lrp.Action{Try: &lrp.TryAction{Action: do("write", "/data/x", "changed")}})
	}))
	c.perform(d, 0)
	w.running("reads", 0)
	if got := c.logOf("reads"); !slices.Contains(got, "APP: kept") {
		t.Errorf("log %q", got)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "volumes", "volumes", "v", "x")); err != nil || string(text) != "kept" {
		t.Errorf("the volume has %q, %v", text, err)
	}
	bad := w.desire(desired("bad", 1, func(d *lrp.Desired) {
		d.RunInfo.VolumeMounts = append(mount("r"), lrp.VolumeMount{Driver: "local", ContainerDir: "/e", Mode: "r", Shared: &lrp.SharedDevice{VolumeID: "a/b"}})
	}))
	c.perform(bad, 0)
	if got := w.crashed(1); !strings.HasPrefix(got.Reason, `failed to mount volume, errors: volume_mounts[1].shared.volume_id is "a/b"`) {
		t.Errorf("reason %q", got.Reason)
	}
	other := instanceOf(d, 1)
	other.VolumeDrivers = []string{"local", "nfs"}
	refused, err := c.as(identity.Auctioneer).Perform(w.ctx, "z1", []cells.Instance{other}, nil)
	if err != nil || len(refused) != 1 || refused[0].Reason != "volume drivers nfs are not on this cell" {
		t.Errorf("refused %v, %v", refused, err)
	}
}

// needy wants everything that a cell can give to a container.
func needy(url, sum string) func(*lrp.Desired) {
	return func(d *lrp.Desired) {
		r := &d.RunInfo
		r.CachedDependencies = []lrp.CachedDependency{{
			Name: "lib", From: url, To: "/lib", CacheKey: "lib", LogSource: "CELL", ChecksumAlgorithm: "sha256", ChecksumValue: sum,
		}}
		r.ImageLayers, r.LegacyDownloadUser = []lrp.ImageLayer{
			{Name: "shared", URL: url, DestinationPath: "/shared", Type: lrp.LayerShared, Media: lrp.MediaTAR},
			{Name: "own", URL: url, DestinationPath: "/own", Type: lrp.LayerExclusive, Media: lrp.MediaTAR, DigestAlgorithm: lrp.DigestSHA256, DigestValue: sum},
		}, "vcap"
		r.TrustedSystemCertificatesPath = "/etc/cf-system-certificates"
		r.VolumeMounts = []lrp.VolumeMount{{Driver: "local", ContainerDir: "/data", Mode: "rw", Shared: &lrp.SharedDevice{VolumeID: "v"}}}
		r.VolumeMountedFiles = []lrp.File{{Path: "db/user", Content: "me\n"}}
		r.Setup = serial(do("cat", "/lib/greeting"), do("cat", "/shared/greeting"), do("cat", "/own/greeting"),
			do("cat", "/etc/cf-system-certificates/ca.pem"), do("cat", "/etc/cf-service-bindings/db/user"))
	}
}

// TestBelongingsOutliveTheRep: what a container needs is there, stays while reps come and go, and goes with it.
func TestBelongingsOutliveTheRep(t *testing.T) {
	t.Parallel()
	dir, config := withBelongings(t)
	w := newWorld(t, config)
	first := w.startRep()
	d := w.desire(desired("needy", 1, needy(fetchtest.Serve(t, "greeting", "hello\n"))))
	first.perform(d, 0)
	a := w.running("needy", 0)
	got := first.logOf("needy")
	for want, n := range map[string]int{
		"APP: hello": 3, "APP: a CA": 1, "APP: me": 1, "CELL: Downloading lib...": 1, "CELL: Downloaded lib (2K)": 1, "APP: Downloaded own (2K)": 1,
	} {
		if count := len(slices.DeleteFunc(slices.Clone(got), func(l string) bool { return l != want })); count != n {
			t.Errorf("log %q has %q %d times, want %d", got, want, count, n)
		}
	}
	if env := w.app.proc(string(a.Instance)).env; !slices.Contains(env, "CF_SYSTEM_CERT_PATH=/etc/cf-system-certificates") {
		t.Errorf("environment %q", env)
	}
	before := w.leftovers(dir)
	first.stop()
	// What a rep that died in between would have left.
	for _, stray := range []string{filepath.Join(w.dir, "mounted-files", "gone", "db"), filepath.Join(dir, "volumes", "mounts", "gone")} {
		if err := os.MkdirAll(stray, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	second := w.startRep()
	second.untilState("the instance adopted", func(s cells.State) bool { return len(s.Instances) == 1 })
	w.seen.until(t, "nothing of what is gone", func() bool { return slices.Equal(w.leftovers(dir), before) })
	trees, err := filepath.Glob(filepath.Join(w.dir, "downloads", "entries", "*", "tree", "greeting"))
	if err != nil || len(trees) != 2 || len(before) != 2 {
		t.Errorf("directories %v, %v; belongings %v", trees, err, before)
	}
	if err := w.bbs.RemoveDesired(w.ctx, "needy"); err != nil {
		t.Fatal(err)
	}
	second.untilState("an empty cell", func(s cells.State) bool { return len(s.Instances) == 0 && s.Available == s.Capacity })
	if left := w.leftovers(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestChecksums (§24 "Checksums"): a wrong value or an unknown algorithm crashes an LRP and sends a task back; its log says which.
func TestChecksums(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	url, _ := fetchtest.Serve(t, "greeting", "hello\n")
	wrong := []lrp.CachedDependency{{Name: "lib", From: url, To: "/lib", CacheKey: "k", ChecksumAlgorithm: "sha256", ChecksumValue: strings.Repeat("0", 64)}}
	d := w.desire(desired("wrong", 1, func(d *lrp.Desired) { d.RunInfo.CachedDependencies = wrong }))
	c.perform(d, 0)
	if got := w.crashed(1); got.Reason != "failed to download cached artifacts" {
		t.Errorf("reason %q", got.Reason)
	}
	c.performTask(w.desireTask("wrong-task", func(d *task.Definition) { d.CachedDependencies = wrong }, "exit", "0"))
	w.seen.until(t, "the task rejected", func() bool {
		got, err := w.bbs.Task(w.ctx, "wrong-task")
		return err == nil && got.RejectionCount == 1 && got.RejectionReason == "failed to download cached artifacts"
	})
	c.untilState("no tasks", noTasks)
	got := c.logOf("wrong")
	for _, want := range []string{"APP: Downloading lib...", "APP: Downloading lib failed"} {
		if !slices.Contains(got, want) {
			t.Errorf("log %q, want %q", got, want)
		}
	}
}
