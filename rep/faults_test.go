package rep_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/engine"
	"muster/cells/inmem"
	"muster/internal/identity"
	"muster/rep"
	"muster/rep/repclient"
)

// TestEngineAway places work while the engine is away: the slot comes back without a crash, the cell
// takes nothing until the engine answers, and then the slot runs.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	down := fmt.Errorf("connection refused: %w", engine.ErrAway)
	w.host.SetImage("docker:///app", inmem.Image{Err: down})
	c := w.startRep()
	d := w.desire(desired("away", 1, nil))
	away := func(s cells.State) bool {
		return strings.Contains(s.UnhealthyReason, "the container engine does not answer")
	}
	c.perform(d, 0)
	c.untilState("a cell that takes nothing, although pings are answered", away)
	w.host.SetPingError(down)
	c.untilState("an empty cell that takes nothing", func(s cells.State) bool { return empty(s) && away(s) })
	w.seen.until(t, "the slot given back", func() bool { return w.seen.state("away", 0) == lrp.Unclaimed })
	if reason := c.perform(d, 0); !strings.Contains(reason, "the container engine does not answer") {
		t.Errorf("work was taken: %q", reason)
	}
	w.host.SetPingError(nil)
	w.host.SetImage("docker:///app", inmem.Image{Programs: map[string]inmem.Program{"/app": w.app.run}, Users: []string{"vcap"}})
	c.untilState("a healthy cell", func(s cells.State) bool { return s.UnhealthyReason == "" })
	c.perform(d, 0)
	w.running("away", 0)
	if n := len(w.seen.crashReports()); n != 0 {
		t.Errorf("%d crashes of an app that did nothing", n)
	}
}

// TestLogsOfACrashedInstance reads what an instance wrote whose container is gone, with and without a
// newer instance of its slot; a stopped one leaves nothing.
func TestLogsOfACrashedInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	operator := c.as(identity.Operator)
	read := func(req repclient.LogsRequest) []string {
		t.Helper()
		var lines []string
		err := operator.Logs(w.ctx, req, func(l repclient.LogLine) error {
			if !ofCell(l) {
				lines = append(lines, fmt.Sprintf("%s %s", l.Instance, l.Line))
			}
			return nil
		})
		if err != nil && status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
		return lines
	}
	d := w.desire(desired("fails", 1, nil))
	c.perform(d, 0)
	first := w.running("fails", 0).Instance
	proc := w.app.proc(string(first))
	fmt.Fprintln(proc.stdout, "about to fail")
	fmt.Fprintln(proc.stderr, "panic: oops")
	proc.exit <- 2
	c.untilState("an empty cell", empty)
	want := []string{string(first) + " started", string(first) + " about to fail", string(first) + " panic: oops", string(first) + " Exit status 2"}
	got := read(repclient.LogsRequest{Process: "fails"})
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := read(repclient.LogsRequest{Process: "fails", Tail: 1}); !slices.Equal(got, want[3:]) {
		t.Errorf("tail: got %q", got)
	}
	w.seen.until(t, "a slot to place again", func() bool { return w.seen.state("fails", 0) == lrp.Unclaimed })
	c.perform(d, 0)
	second := w.running("fails", 0).Instance
	got = read(repclient.LogsRequest{Process: "fails"})
	if len(got) != 5 || got[4] != string(second)+" started" {
		t.Errorf("with a successor: got %q", got)
	}
	if err := w.bbs.RemoveDesired(w.ctx, "fails"); err != nil {
		t.Fatal(err)
	}
	c.untilState("an empty cell", empty)
	if got := read(repclient.LogsRequest{Process: "fails"}); len(got) != 4 {
		t.Errorf("a stopped instance left lines: %q", got)
	}
}

// TestPortsOfHalfMadeContainers starts a rep beside what its predecessor left half-made: as long as that
// cannot be destroyed, and for the quarantine, its host port is nobody's.
func TestPortsOfHalfMadeContainers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rep.Config) { c.PortRange = "61001-61002" })
	if err := w.host.Leave("half-made", nil, engine.Port{Container: 8080, Host: 61001}); err != nil {
		t.Fatal(err)
	}
	c := w.startRep()
	d := w.desire(desired("ports", 2, nil))
	c.perform(d, 0)
	if got := w.running("ports", 0).NetInfo.Ports[0].HostPort; got != 61002 {
		t.Errorf("host port %d", got)
	}
	c.perform(d, 1)
	if got := w.crashed(1); !strings.Contains(got.Reason, "1 host ports wanted, 0 of 2 in 61001-61002 are free: widen port_range") {
		t.Errorf("crash %+v", got)
	}
	if all, err := w.host.Engine().List(w.ctx); err != nil || slices.ContainsFunc(all, func(c engine.Container) bool { return c.Status == engine.Partial }) {
		t.Errorf("left: %+v, %v", all, err)
	}
}

// TestManyCrashesWhileTheBBSIsAway ends all instances of a cell at once while nobody can be told: each
// crash is reported once when the BBS is back, and the cell ends up empty.
func TestManyCrashesWhileTheBBSIsAway(t *testing.T) {
	t.Parallel()
	const instances = 60
	w := newWorld(t, func(c *rep.Config) { c.MaxContainers = instances })
	c := w.startRep()
	d := w.desire(desired("many", instances, func(d *lrp.Desired) { d.MemoryMB, d.DiskMB = 10, 10 }))
	before := map[lrp.InstanceGUID]bool{}
	for i := range d.Instances {
		if reason := c.perform(d, i); reason != "" {
			t.Fatal(reason)
		}
	}
	for i := range d.Instances {
		before[w.running("many", i).Instance] = true
	}
	w.link.setCut(true)
	for id := range before {
		w.app.proc(string(id)).exit <- 3
	}
	c.untilState("all crashes noticed", func(s cells.State) bool {
		return len(s.Instances) == instances && !slices.ContainsFunc(s.Instances, func(i cells.Instance) bool { return i.State != cells.InstanceCrashed })
	})
	w.link.setCut(false)
	c.untilState("an empty cell", empty)
	w.seen.until(t, "all crashes", func() bool { return len(w.seen.crashReports()) >= instances })
	for _, crash := range w.seen.crashReports() {
		if !before[crash.By.Instance] || crash.Reason != "APP: Exited with status 3" {
			t.Errorf("crash %+v is unknown, or reported twice", crash)
		}
		delete(before, crash.By.Instance)
	}
}
