package cell

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
)

// TestLifeOfAnInstance follows one from work to RUNNING, and to nothing.
func TestLifeOfAnInstance(t *testing.T) {
	w := newWorld(t, 0)
	c := w.startRep("")
	w.warm(c)
	before := w.traces()
	d := w.desire(nil)
	a := w.settle(c, d)
	w.answers(a)
	w.drop(c, d)
	if _, err := page(a, "/"); err == nil {
		t.Error("it still answers")
	}
	w.compare(before)
}

// warm has the image unpacked and the bridge made, which stay.
func (w *world) warm(c *cell) {
	w.t.Helper()
	d := w.desire(nil)
	w.settle(c, d)
	w.drop(c, d)
}

// witness is an instance that runs while reps come and go.
func (w *world) witness(c *cell) (lrp.Desired, lrp.Actual) {
	w.t.Helper()
	w.warm(c)
	d := w.desire(nil)
	return d, w.settle(c, d)
}

// unharmed checks that an instance was neither restarted nor reported anew.
func (w *world) unharmed(d lrp.Desired, before lrp.Actual) {
	w.t.Helper()
	now, _ := w.actual(d)
	if diff := cmp.Diff(before, now); diff != "" {
		w.t.Errorf("the record of the running instance changed: %s", diff)
	}
	w.answers(before)
}

// after checks what a killed rep left: its successor brings exactly one instance to RUNNING, and when
// that is dropped the machine is as it was.
func (w *world) after(d lrp.Desired, before []string) lrp.Actual {
	w.t.Helper()
	c := w.startRep("")
	defer c.kill()
	a := w.settle(c, d)
	w.answers(a)
	w.until("one container of it", func() bool {
		s, err := c.client.State(w.t.Context())
		check(w.t, err)
		running := 0
		for _, i := range s.Instances {
			if i.Key.Process == d.Process {
				running++
			}
		}
		return running == 1 && len(w.shims()) == 2 // with the witness
	})
	if a.CrashCount != 0 {
		w.t.Errorf("%d crashes: %s", a.CrashCount, a.CrashReason)
	}
	w.drop(c, d)
	w.compare(before)
	return a
}

// TestRepDiesAtEachStep kills the rep at the end of each step of a start.
func TestRepDiesAtEachStep(t *testing.T) {
	w := newWorld(t, 0)
	w.cfg.PortRange = "27000-27003" // so few that a port which half-made containers are still connected to would be reused
	c := w.startRep("")
	witness, first := w.witness(c)
	before := w.traces()
	c.kill()
	for _, step := range []string{"image", "record", "snapshot", "attach", "firewall", "network", "task", "create", "start"} {
		c := w.startRep(step)
		d := w.desire(nil)
		w.until("the slot", func() bool { a, _ := w.actual(d); return a.State == lrp.Unclaimed })
		c.perform(d)
		<-c.ended
		t.Logf("died at the end of %s", step)
		w.after(d, before)
		w.unharmed(witness, first)
	}
	for _, at := range []string{"reserved", string(lrp.Claimed), string(lrp.Running)} {
		c := w.startRep("")
		d := w.desire(nil)
		w.until("the slot", func() bool { a, _ := w.actual(d); return a.State == lrp.Unclaimed })
		c.perform(d)
		var a lrp.Actual
		if at != "reserved" {
			w.until(at, func() bool { a, _ = w.actual(d); return string(a.State) == at })
		}
		c.kill()
		t.Logf("killed when %s", at)
		if got := w.after(d, before); at == string(lrp.Running) && got.Instance != a.Instance {
			t.Errorf("instance %s was RUNNING, and %s took its place", a.Instance, got.Instance)
		}
		w.unharmed(witness, first)
	}
}

// seeds is how many times TestRepDiesAnytime kills.
const seeds = 16

// TestRepDiesAnytime kills the rep at a random moment of a start, and now and then its successor too.
func TestRepDiesAnytime(t *testing.T) {
	w := newWorld(t, 0)
	c := w.startRep("")
	witness, first := w.witness(c)
	before := w.traces()
	c.kill()
	for seed := range uint64(seeds) {
		random := rand.New(rand.NewPCG(seed, 0))
		d := w.desire(nil)
		story := fmt.Sprintf("seed %d:", seed)
		for range 1 + random.IntN(2) {
			c := w.startRep("")
			w.until("the slot", func() bool { a, _ := w.actual(d); return a.State != "" })
			if a, _ := w.actual(d); a.State == lrp.Unclaimed {
				c.perform(d)
			}
			life := time.Duration(random.Int64N(int64(250 * time.Millisecond)))
			select {
			case <-time.After(life):
			case <-c.ended:
			}
			c.kill()
			a, _ := w.actual(d)
			story += fmt.Sprintf(" killed after %v when %s,", life.Round(time.Millisecond), a.State)
		}
		t.Log(strings.TrimSuffix(story, ","))
		w.after(d, before)
		w.unharmed(witness, first)
	}
}
