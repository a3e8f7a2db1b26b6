package cell

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/bbs/lrp"
	"muster/integration/apps/image"
)

// TestContainerdDies kills containerd under running instances and under new work: nobody crashes.
func TestContainerdDies(t *testing.T) {
	w := newWorld(t, 0)
	c := w.startRep("")
	d, first := w.witness(c)
	before := w.traces()
	check(t, syscall.Kill(w.daemon.PID, syscall.SIGKILL))
	w.answers(first)
	meanwhile := w.desire(nil)
	w.until("the slot", func() bool { a, _ := w.actual(meanwhile); return a.State == lrp.Unclaimed })
	c.perform(meanwhile)
	w.until("the cell knows", func() bool {
		s, err := c.client.State(t.Context())
		check(t, err)
		return strings.Contains(s.UnhealthyReason, "containerd")
	})
	w.unharmed(d, first)
	w.openContainerd()
	a := w.settle(c, meanwhile)
	if a.CrashCount != 0 {
		t.Errorf("containerd's absence was %d crashes of the app: %s", a.CrashCount, a.CrashReason)
	}
	w.answers(a)
	w.unharmed(d, first)
	w.drop(c, meanwhile)
	w.compare(before)
	// Its end is noticed by a wait that outlived containerd.
	_, _ = page(first, "/exit?code=3") // the answer dies with it
	w.until("the crash", func() bool {
		a, _ := w.actual(d)
		return a.CrashCount == 1 && a.CrashReason == "APP: Exited with status 3"
	})
}

// TestNoSpaceForAnImage runs an image that does not fit on the disk: the crash says so, nothing stays,
// and a smaller one runs.
func TestNoSpaceForAnImage(t *testing.T) {
	w := newWorld(t, 40)
	c := w.startRep("")
	w.warm(c)
	before := w.traces()
	big := w.bigImage(48)
	d := w.desire(func(d *lrp.Desired) { d.RootFS = "oci-archive://" + big })
	w.until("the slot", func() bool { a, _ := w.actual(d); return a.State == lrp.Unclaimed })
	c.perform(d)
	var a lrp.Actual
	w.until("a crash", func() bool { a, _ = w.actual(d); return a.CrashCount == 1 })
	for _, want := range []string{"failed to create container", "no space left", big, "free some"} {
		if !strings.Contains(a.CrashReason, want) {
			t.Errorf("%q does not say %q", a.CrashReason, want)
		}
	}
	w.drop(c, d)
	w.compare(before)
	small := w.desire(nil)
	w.answers(w.settle(c, small))
	w.drop(c, small)
}

// bigImage writes an image of incompressible content.
func (w *world) bigImage(mb int) string {
	w.t.Helper()
	content := make([]byte, mb<<20)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(content) // never fails
	img, err := image.FromFiles(append(image.Base(), image.File{Path: "/big", Mode: 0o644, Data: content}), image.Config{})
	check(w.t, err)
	path := filepath.Join(w.dir, "big.tar")
	check(w.t, image.WriteArchive(path, img))
	return path
}
