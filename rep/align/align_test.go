package align

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/cells/container"
)

var update = flag.Bool("update", false, "write the golden files anew")

var want = Report{NetInfo: lrp.NetInfo{Address: "10.0.0.1", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61001}}}, Routable: true}

func containers() []container.Record {
	var all []container.Record
	for _, s := range container.States {
		for _, launched := range []bool{false, true} {
			for _, res := range []container.Result{{}, {Stopped: true}, {Failed: true, Reason: "r"}, {Stopped: true, Failed: true, Reason: "r"}} {
				c := container.Record{Instance: "i", State: s, Launched: launched, Result: res}
				if container.Check(c) == nil {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

func knowns() []Known {
	stale := want
	stale.Routable = false
	return []Known{
		{Standing: Unheard}, {Standing: Absent}, {Standing: Lost}, {Standing: Told},
		{Standing: Holds, State: lrp.Claimed}, {Standing: Holds, State: lrp.Claimed, Retiring: true},
		{Standing: Holds, State: lrp.Running, Report: want}, {Standing: Holds, State: lrp.Running, Report: stale},
		{Standing: Holds, State: lrp.Running, Report: want, Retiring: true},
	}
}

func showContainer(c container.Record) string {
	s := string(c.State)
	if c.Launched {
		s += "+launched"
	}
	if c.Result.Stopped {
		s += "+stopped"
	}
	if c.Result.Failed {
		s += "+failed"
	}
	return s
}

func showKnown(k Known) string {
	s := string(k.Standing)
	if k.Standing == Holds {
		s += " " + string(k.State)
	}
	if k.State == lrp.Running && !k.Report.Equal(want) {
		s += " (other report)"
	}
	if k.Retiring {
		s += " retiring"
	}
	return s
}

// TestEverySituation compares the moves for every container x record with the golden file, and
// checks A1 to A3.
func TestEverySituation(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for _, c := range containers() {
		for _, k := range knowns() {
			moves := Next(c, k, want)
			fmt.Fprintf(&out, "%-34s %-32s %v\n", showContainer(c), showKnown(k), moves)
			if slices.Contains(moves, Launch) && (k.Standing != Holds || k.Retiring) {
				t.Errorf("A1: launched while %s", showKnown(k))
			}
			if slices.Contains(moves, Destroy) && (c.State != container.Completed || k.Standing != Lost && k.Standing != Told) {
				t.Errorf("A2: %s destroyed while %s", showContainer(c), showKnown(k))
			}
		}
	}
	running := container.Record{State: container.Running, Launched: true}
	if moves := Next(running, Known{Standing: Holds, State: lrp.Running, Report: want}, want); moves != nil {
		t.Errorf("A3: %v", moves)
	}
	const golden = "testdata/moves.txt"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), out.String()); diff != "" {
		t.Errorf("moves differ from %s (-update writes it):\n%s", golden, diff)
	}
}

// TestMovesComeToAnEnd carries out moves with random outcomes from random situations (A4).
func TestMovesComeToAnEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom(containers()).Draw(t, "container")
		k := rapid.SampledFrom(knowns()).Draw(t, "known")
		retire := rapid.IntRange(0, 12).Draw(t, "retire at")
		for step := range 40 {
			if step == retire && k.Standing == Holds {
				k.Retiring = true
			}
			moves := Next(c, k, want)
			if len(moves) == 0 {
				switch {
				case c.Ending(): // its process ends
					c, _ = container.Apply(c, container.Event{Name: container.Exit})
					continue
				case k.Standing == Unheard: // the list arrives
					k = rapid.SampledFrom([]Known{{Standing: Absent}, {Standing: Holds, State: lrp.Claimed}, {Standing: Holds, State: lrp.Running}}).Draw(t, "list")
					continue
				case c.State == container.Created && c.Launched: // its checks pass
					c, _ = container.Apply(c, container.Event{Name: container.Run, Routable: true})
					continue
				case c.State == container.Initializing: // it gets made
					c, _ = container.Apply(c, container.Event{Name: container.Create})
					continue
				case c.State == container.Running && k.State == lrp.Running && k.Report.Equal(want):
					return
				}
				t.Fatalf("step %d: stuck with %s, %s", step, showContainer(c), showKnown(k))
			}
			if moves[0] == Destroy {
				return
			}
			c, k = carryOut(t, moves[len(moves)-1], c, k)
		}
		t.Fatalf("no end: %s, %s", showContainer(c), showKnown(k))
	})
}

func carryOut(t *rapid.T, m Move, c container.Record, k Known) (container.Record, Known) {
	granted := rapid.Bool().Draw(t, "granted")
	on := map[Move]container.EventName{Make: container.Initialize, Launch: container.Launch, Resume: container.Run, Stop: container.Stop}
	switch m {
	case Claim:
		if !granted {
			return c, Known{Standing: Lost}
		}
		return c, Known{Standing: Holds, State: lrp.Claimed}
	case Start:
		if !granted {
			return c, Known{Standing: Lost}
		}
		return c, Known{Standing: Holds, State: lrp.Running, Report: want}
	case Crash, Remove:
		return c, Known{Standing: Told}
	}
	after, err := container.Apply(c, container.Event{Name: on[m]})
	if err != nil {
		t.Fatalf("move %s: %v", m, err)
	}
	return after, k
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	record := func(instance lrp.InstanceGUID) lrp.Actual {
		return lrp.Actual{InstanceKey: lrp.InstanceKey{Instance: instance, Cell: "z"}, State: lrp.Running}
	}
	records := []lrp.Actual{record("a"), record("b"), {State: lrp.Unclaimed}, record("c")}
	got := Orphans(records, func(i lrp.InstanceGUID) bool { return i == "b" })
	if diff := cmp.Diff([]lrp.Actual{records[0], records[3]}, got); diff != "" {
		t.Error(diff)
	}
}
