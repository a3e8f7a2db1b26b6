package cell

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/bbs/lrp"
	"muster/cells/fetch/fetchtest"
	"muster/integration/apps/image"
)

// shell is a run action of a shell in the image with busybox.
func shell(user, script string) *lrp.Action {
	return &lrp.Action{Run: &lrp.RunAction{Path: "sh", Args: []string{"-c", script}, User: user}}
}

// TestBelongings gives a container everything that comes from its cell, and looks at it from inside: a volume (§24
// "Volumes, FUSE"), a cached dependency, image layers, trusted certificates and files. The next rep has them with the
// container, the next instance finds the volume as it was left, and nothing of the rest stays.
func TestBelongings(t *testing.T) {
	w := newWorld(t, 0)
	certs := filepath.Join(w.dir, "trusted")
	check(t, os.Mkdir(certs, 0o755))
	check(t, os.WriteFile(filepath.Join(certs, "ca.pem"), []byte("a CA\n"), 0o644))
	w.cfg.Volumes.Dir, w.cfg.TrustedCertsDir = filepath.Join(w.dir, "volumes"), certs
	w.image = filepath.Join(w.dir, "busybox.tar")
	hello := filepath.Join(w.dir, "hello")
	check(t, image.Compile(t.Context(), "muster/integration/apps/hello", hello))
	cache, err := os.UserCacheDir()
	check(t, err)
	check(t, image.DebianBusybox(t.Context(), filepath.Join(cache, "muster", "debian"), hello, w.image))
	url, sum := fetchtest.Serve(t, "greeting", "hello\n")

	c := w.startRep("")
	needy := func(script string) func(*lrp.Desired) {
		return func(d *lrp.Desired) {
			r := &d.RunInfo
			r.Ports, r.Check = nil, nil
			r.CachedDependencies = []lrp.CachedDependency{{Name: "lib", From: url, To: "/lib", CacheKey: "lib", ChecksumAlgorithm: "sha256", ChecksumValue: sum}}
			r.ImageLayers, r.LegacyDownloadUser = []lrp.ImageLayer{
				{Name: "shared", URL: url, DestinationPath: "/shared", Type: lrp.LayerShared, Media: lrp.MediaTAR},
				{Name: "own", URL: url, DestinationPath: "/own", Type: lrp.LayerExclusive, Media: lrp.MediaTAR, DigestAlgorithm: lrp.DigestSHA256, DigestValue: sum},
			}, "app"
			r.TrustedSystemCertificatesPath = "/etc/cf-system-certificates"
			r.VolumeMounts = []lrp.VolumeMount{{Driver: "local", ContainerDir: "/data", Mode: "rw", Shared: &lrp.SharedDevice{VolumeID: "v"}}}
			r.VolumeMountedFiles = []lrp.File{{Path: "db/user", Content: "me\n"}}
			r.Setup = shell("root", script)
			r.Action = shell("app", "while true; do sleep 1; done")
		}
	}
	const all = `set -e
cat /lib/greeting /shared/greeting /own/greeting $CF_SYSTEM_CERT_PATH/ca.pem /etc/cf-service-bindings/db/user >/data/seen
for dir in /lib /shared $CF_SYSTEM_CERT_PATH /etc/cf-service-bindings; do
	if touch $dir/x 2>/dev/null; then echo "$dir can be written to" >>/data/seen; fi
done`
	w.drop(c, func() lrp.Desired { d := w.desire(needy("true")); w.settle(c, d); return d }()) // image, bridge and cache stay
	before := w.traces()
	d := w.desire(needy(all))
	first := w.settle(c, d)
	seen := filepath.Join(w.cfg.Volumes.Dir, "volumes", "v", "seen")
	const want = "hello\nhello\nhello\na CA\nme\n"
	if text, err := os.ReadFile(seen); err != nil || string(text) != want {
		t.Errorf("the container saw %q, %v; want %q", text, err, want)
	}
	running := w.traces()
	c.kill()
	c = w.startRep("")
	w.until("the instance adopted", func() bool {
		s, err := c.client.State(t.Context())
		return err == nil && len(s.Instances) == 1
	})
	if now, _ := w.actual(d); now.Instance != first.Instance || now.State != lrp.Running {
		t.Errorf("the instance is %+v, and was %+v", now, first)
	}
	w.compare(running)
	w.drop(c, d)
	w.compare(before)
	if left, err := filepath.Glob(filepath.Join(w.cfg.Volumes.Dir, "mounts", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}

	again := w.desire(needy(`test "$(cat /data/seen)" && echo again >/data/seen`))
	w.settle(c, again)
	if text, err := os.ReadFile(seen); err != nil || strings.TrimSpace(string(text)) != "again" {
		t.Errorf("the volume has %q, %v", text, err)
	}
	w.drop(c, again)
	w.compare(before)

	// §24 "Checksums": of what comes from the cell.
	wrong := w.desire(func(d *lrp.Desired) {
		needy("true")(d)
		d.RunInfo.CachedDependencies[0].ChecksumValue = strings.Repeat("0", len(sum))
	})
	w.until("a crash", func() bool {
		a, _ := w.actual(wrong)
		if a.State == lrp.Unclaimed {
			c.perform(wrong)
		}
		return a.CrashCount > 0 && a.CrashReason == "failed to download cached artifacts"
	})
	w.drop(c, wrong)
	w.compare(before)
}
