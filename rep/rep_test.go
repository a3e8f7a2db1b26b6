package rep_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/engine"
	"muster/cells/inmem"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/rep"
	"muster/rep/repclient"
)

func empty(s cells.State) bool { return len(s.Instances) == 0 && s.Available == s.Capacity }

// TestLifeOfAnInstance follows one from work to RUNNING, and through retirement to nothing.
func TestLifeOfAnInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	d := w.desire(desired("life", 1, func(d *lrp.Desired) {
		d.MetricTags = map[string]lrp.MetricTag{"at": {Dynamic: lrp.TagIndex}}
	}))
	if reason := c.perform(d, 0); reason != "" {
		t.Fatal(reason)
	}
	a := w.running("life", 0)
	if a.Cell != "z1" || a.Instance == "" || !a.Routable || a.AvailabilityZone != "zone-1" || a.MetricTags["at"] != "0" {
		t.Errorf("record %+v", a)
	}
	host := a.NetInfo.Ports[0].HostPort // of the range, but a random one
	if diff := cmp.Diff(lrp.NetInfo{
		Address: "192.0.2.7", InstanceAddress: "10.0.0.1", Preferred: lrp.PreferHost,
		Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: host}},
	}, a.NetInfo); diff != "" || host < 61001 || host > 65534 {
		t.Error(host, diff)
	}
	if env := w.app.proc(string(a.Instance)).env; !slices.Contains(env, fmt.Sprintf("CF_INSTANCE_ADDR=192.0.2.7:%d", host)) {
		t.Errorf("environment %q", env)
	}
	s := c.untilState("running", func(s cells.State) bool {
		return len(s.Instances) == 1 && s.Instances[0].State == cells.InstanceRunning
	})
	if want := (cells.Resources{MemoryMB: 924, DiskMB: 3996, Containers: 9}); s.Available != want || s.StartingContainers != 0 {
		t.Errorf("available %+v", s.Available)
	}
	if reason := c.perform(d, 0); reason != "" { // again: accepted, and nothing changes
		t.Error(reason)
	}
	if s, err := c.as(identity.Operator).State(w.ctx); err != nil || len(s.Instances) != 1 || s.Instances[0].InstanceGUID != a.Instance {
		t.Errorf("performed twice: %+v, %v", s.Instances, err)
	}
	if err := w.bbs.RemoveDesired(w.ctx, "life"); err != nil {
		t.Fatal(err)
	}
	w.seen.until(t, "the record gone", func() bool { _, ok := w.seen.actual("life", 0); return !ok })
	c.untilState("an empty cell", empty)
	if n := len(w.seen.crashReports()); n != 0 {
		t.Errorf("%d crashes", n)
	}
	if left, err := w.host.Engine().List(w.ctx); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestPerformRefuses shows what a cell does not take, and why.
func TestPerformRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	for _, row := range []struct {
		name, want string
		change     func(*cells.Instance)
	}{
		{"too much memory", "insufficient resources: memory", func(i *cells.Instance) { i.Resources.MemoryMB = 1025 }},
		{"too much of all", "insufficient resources: disk, memory", func(i *cells.Instance) { i.Resources.MemoryMB, i.Resources.DiskMB = 1025, 5000 }},
		{"another root file system", `root file system "preloaded:x" cannot be run on this cell`, func(i *cells.Instance) { i.RootFS = "preloaded:x" }},
		{"a volume driver", "volume drivers nfs are not on this cell", func(i *cells.Instance) { i.VolumeDrivers = []string{"nfs"} }},
		{"no process", "process_guid is empty", func(i *cells.Instance) { i.Key.Process = "" }},
		{"a negative index", "index is -1: want 0 or more", func(i *cells.Instance) { i.Key.Index = -1 }},
	} {
		i := instanceOf(desired("refused", 1, nil), 0)
		row.change(&i)
		refused, err := c.as(identity.Auctioneer).Perform(w.ctx, "z1", []cells.Instance{i}, nil)
		if err != nil || len(refused) != 1 || refused[0].Reason != row.want {
			t.Errorf("%s: got %v, %v; want %s", row.name, refused, err, row.want)
		}
	}
	_, err := c.as(identity.Auctioneer).Perform(w.ctx, "z2", nil, nil)
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("work for another cell: %v", err)
	}
	if s, err := c.as(identity.Operator).State(w.ctx); err != nil || !empty(s) {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	if _, err := c.as(identity.Operator).Perform(w.ctx, "z1", nil, nil); status.Code(err) != codes.PermissionDenied {
		t.Errorf("operator performs: %v", err)
	}
	err := c.as(identity.Auctioneer).Logs(w.ctx, repclient.LogsRequest{Process: "p"}, func(repclient.LogLine) error { return nil })
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("auctioneer reads logs: %v", err)
	}
	if _, err := c.as(identity.Client).State(w.ctx); err == nil {
		t.Error("a client was let in")
	}
}

// TestCrashIsReportedAndRestarted crashes an instance twice.
func TestCrashIsReportedAndRestarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	d := w.desire(desired("crash", 1, nil))
	guids := map[lrp.InstanceGUID]bool{}
	for n, code := range []int{17, 0} {
		if reason := c.perform(d, 0); reason != "" {
			t.Fatal(reason)
		}
		a := w.running("crash", 0)
		guids[a.Instance] = true
		w.app.proc(string(a.Instance)).exit <- code
		want := lrp.CrashReport{Key: a.Key, By: a.InstanceKey, Count: int32(n + 1)}
		if code != 0 {
			want.Reason = fmt.Sprintf("APP: Exited with status %d", code)
		}
		if diff := cmp.Diff(want, w.crashed(n+1)); diff != "" {
			t.Error(diff)
		}
		w.seen.until(t, "a slot to place again", func() bool { return w.seen.state("crash", 0) == lrp.Unclaimed })
	}
	c.perform(d, 0)
	guids[w.running("crash", 0).Instance] = true
	if len(guids) != 3 {
		t.Errorf("instance GUIDs %v: want a new one for each attempt", guids)
	}
	c.untilState("only the third instance left", func(s cells.State) bool {
		return len(s.Instances) == 1 && s.Available.Containers == s.Capacity.Containers-1
	})
}

// TestWhatCannotRunCrashesWithAReason tries what the cell or the image cannot do.
func TestWhatCannotRunCrashesWithAReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	for n, row := range []struct {
		process lrp.ProcessGUID
		want    string
		change  func(*lrp.Desired)
	}{
		{"unsupported", "failed to create container: the cell does not support certificate_properties: remove it from what is desired", func(d *lrp.Desired) {
			d.RunInfo.Certificate = &lrp.CertificateProperties{OrganizationalUnits: []string{"app"}}
		}},
		{"no-image", "image docker:///none is not on this host", func(d *lrp.Desired) { d.RootFS = "docker:///none" }},
		{"no-program", `program "/none" is not in the image`, func(d *lrp.Desired) { d.RunInfo.Action.Run.Path = "/none" }},
	} {
		d := w.desire(desired(row.process, 1, row.change))
		c.perform(d, 0)
		if got := w.crashed(n + 1); !strings.Contains(got.Reason, row.want) || got.Key.Process != row.process {
			t.Errorf("got %+v, want %s", got, row.want)
		}
	}
	c.untilState("an empty cell", empty)
}

// TestRefusedClaim gives the cell a slot that another cell holds.
func TestRefusedClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	d := w.desire(desired("held", 1, nil))
	other := bbsclient.New(w.dial(w.direct, identity.ID{Role: identity.Rep, Cell: "z2"}, identity.BBS))
	err := other.Apply(w.ctx, lrp.Event{Name: lrp.Claim, Key: instanceOf(d, 0).Key, By: lrp.InstanceKey{Instance: "other", Cell: "z2"}})
	if err != nil {
		t.Fatal(err)
	}
	c.perform(d, 0)
	c.untilState("an empty cell again", empty)
	if w.app.started() != 0 {
		t.Error("a process was started without a claim")
	}
	if a, _ := w.seen.actual("held", 0); a.Cell != "z2" {
		t.Errorf("record %+v", a)
	}
}

// TestBBSAway cuts the rep off: what runs goes on, what happens meanwhile is told afterwards.
func TestBBSAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	d := w.desire(desired("away", 3, nil))
	for i := range d.Instances {
		c.perform(d, i)
		w.running("away", i)
	}
	stays, _ := w.seen.actual("away", 0)
	crashes, _ := w.seen.actual("away", 1)
	w.link.setCut(true)
	w.app.proc(string(crashes.Instance)).exit <- 3
	c.untilState("the crash noticed by the cell", func(s cells.State) bool {
		return slices.ContainsFunc(s.Instances, func(i cells.Instance) bool {
			return i.InstanceGUID == crashes.Instance && i.State == cells.InstanceCrashed
		})
	})
	if err := w.bbs.Apply(w.ctx, lrp.Event{Name: lrp.Retire, Key: instanceOf(d, 2).Key}); err != nil {
		t.Fatal(err)
	}
	w.link.setCut(false)
	if got := w.crashed(1); got.By.Instance != crashes.Instance || got.Reason != "APP: Exited with status 3" {
		t.Errorf("crash %+v", got)
	}
	w.seen.until(t, "the retired slot made anew", func() bool { return w.seen.state("away", 2) == lrp.Unclaimed })
	if a, _ := w.seen.actual("away", 0); !cmp.Equal(a, stays) {
		t.Errorf("the third instance changed: %s", cmp.Diff(stays, a))
	}
	c.untilState("one instance", func(s cells.State) bool { return len(s.Instances) == 1 && s.Instances[0].Key.Index == 0 })
}

// TestRestartAdopts ends the rep and starts it again: no app restarts, and an end meanwhile is reported.
func TestRestartAdopts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first := w.startRep()
	checked := func(d *lrp.Desired) {
		d.RunInfo.Check = &lrp.CheckDefinition{
			Checks:          []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8080}}},
			ReadinessChecks: []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8081}}},
		}
	}
	d := w.desire(desired("adopt", 3, checked))
	var before []lrp.Actual
	for i := range d.Instances {
		first.perform(d, i)
		w.running("adopt", i)
		w.seen.until(t, "routable", func() bool { a, _ := w.seen.actual("adopt", i); return a.Routable })
		a, _ := w.seen.actual("adopt", i)
		before = append(before, a)
	}
	first.stop()
	w.app.proc(string(before[2].Instance)).exit <- 9
	if err := w.host.Leave(engine.ID("half-made"), nil); err != nil {
		t.Fatal(err)
	}
	second := w.startRep()
	if s, err := second.as(identity.Operator).State(w.ctx); err != nil || s.Available.Containers > s.Capacity.Containers-2 {
		t.Errorf("not charged when it serves: %+v, %v", s.Available, err)
	}
	if got := w.crashed(1); got.By != before[2].InstanceKey || got.Reason != "APP: Exited with status 9" {
		t.Errorf("crash %+v", got)
	}
	second.untilState("both adopted ones running", func(s cells.State) bool {
		return len(s.Instances) == 2 && s.Instances[0].State == cells.InstanceRunning && s.Instances[1].State == cells.InstanceRunning
	})
	for i := range before[:2] {
		if a, _ := w.seen.actual("adopt", int32(i)); !cmp.Equal(a, before[i]) {
			t.Errorf("instance %d changed: %s", i, cmp.Diff(before[i], a))
		}
	}
	if n := w.app.started(); n != 3 {
		t.Errorf("%d starts, want 3", n)
	}
	second.perform(d, 2) // its host port must not be one of those adopted
	if a := w.running("adopt", 2); a.NetInfo.Ports[0].HostPort == before[0].NetInfo.Ports[0].HostPort || a.NetInfo.Ports[0].HostPort == before[1].NetInfo.Ports[0].HostPort {
		t.Errorf("host port %d is taken", a.NetInfo.Ports[0].HostPort)
	}
	// Checks go on in the new life: this one crashes for its liveness.
	w.app.set("8080", false)
	if got := w.crashed(2); !strings.HasPrefix(got.Reason, "Instance became unhealthy: Liveness check unsuccessful: failed to make TCP connection to 10.0.0.") {
		t.Errorf("crash %+v", got)
	}
	if left, err := w.host.Engine().List(w.ctx); err != nil || slices.ContainsFunc(left, func(c engine.Container) bool { return c.Status == engine.Partial }) {
		t.Errorf("half-made container left: %v, %v", left, err)
	}
}

// TestRecordWithoutContainer starts the rep on a machine that lost its containers.
func TestRecordWithoutContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first := w.startRep()
	d := w.desire(desired("lost", 1, nil))
	first.perform(d, 0)
	a := w.running("lost", 0)
	first.stop()
	if !w.host.Lose(engine.ID(a.Instance)) {
		t.Fatal("no container to lose")
	}
	w.startRep()
	w.seen.until(t, "a slot to place again", func() bool { return w.seen.state("lost", 0) == lrp.Unclaimed })
	if n := len(w.seen.crashReports()); n != 0 {
		t.Errorf("%d crashes", n)
	}
}

// TestContainerVanishes removes a container behind the rep's back: it counts as a crash, whose event names
// the instance that was, and its cell (bbs reference §19 "container vanishes", cell reference §24
// "Missing container").
func TestContainerVanishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	d := w.desire(desired("vanish", 1, nil))
	c.perform(d, 0)
	a := w.running("vanish", 0)
	w.host.Lose(engine.ID(a.Instance))
	// What is seen first, the end of the process or that the container is gone, is a race.
	got := w.crashed(1)
	if got.Reason != "missing garden container" && got.Reason != "APP: Exited with status 137" {
		t.Errorf("crash %+v", got)
	}
	if want := (lrp.CrashReport{Key: a.Key, By: a.InstanceKey, Count: 1, Reason: got.Reason}); got != want || a.Cell != "z1" {
		t.Errorf("crash %+v, want %+v", got, want)
	}
	w.seen.until(t, "a slot to place again", func() bool {
		now, ok := w.seen.actual("vanish", 0)
		return ok && now.State == lrp.Unclaimed && now.CrashCount == 1
	})
	c.untilState("an empty cell", empty)
}

// TestReadinessFlipsRoutable shows that readiness changes routable and nothing else.
func TestReadinessFlipsRoutable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.app.set("8081", false)
	c := w.startRep()
	d := w.desire(desired("ready", 1, func(d *lrp.Desired) {
		d.RunInfo.Check = &lrp.CheckDefinition{ReadinessChecks: []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8081}}}}
	}))
	c.perform(d, 0)
	a := w.running("ready", 0)
	if a.Routable {
		t.Error("routable before its readiness check passed")
	}
	for _, open := range []bool{true, false, true} {
		w.app.set("8081", open)
		w.seen.until(t, fmt.Sprintf("routable %t", open), func() bool {
			now, _ := w.seen.actual("ready", 0)
			return now.Routable == open && now.Instance == a.Instance && now.State == lrp.Running
		})
	}
}

// TestNeverHealthy shows the text for an app that does not listen in time.
func TestNeverHealthy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.app.set("8080", false)
	c := w.startRep()
	d := w.desire(desired("sick", 1, func(d *lrp.Desired) {
		d.RunInfo.StartTimeoutMS = 50
		d.RunInfo.Check = &lrp.CheckDefinition{Checks: []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8080}}}}
	}))
	c.perform(d, 0)
	got := w.crashed(1).Reason
	var elapsed string
	var attempts int
	head, tail, _ := strings.Cut(got, "ms: ")
	if _, err := fmt.Sscanf(head, "Instance never healthy after %s", &elapsed); err != nil {
		t.Errorf("%q: %v", got, err)
	}
	if _, err := fmt.Sscanf(tail, "Timed out after 50ms (%d attempts) waiting for startup check", &attempts); err != nil || attempts < 2 {
		t.Errorf("%q: %d attempts, %v", got, attempts, err)
	}
	if want := "to succeed: failed to make TCP connection to 10.0.0.1:8080: dial tcp 10.0.0.1:8080: connect: connection refused"; !strings.HasSuffix(got, want) {
		t.Errorf("%q does not end with %q", got, want)
	}
	if w.seen.state("sick", 0) == lrp.Running {
		t.Error("it was RUNNING")
	}
}

// TestStopKillsWhatIgnoresSIGTERM retires an instance that does not react.
func TestStopKillsWhatIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rep.Config) { c.GracefulInterval = daemon.Duration(300 * time.Millisecond) })
	w.host.SetImage("docker:///stubborn", inmem.Image{Programs: map[string]inmem.Program{"*": inmem.Forever()}, Users: []string{"*"}})
	c := w.startRep()
	d := w.desire(desired("stubborn", 1, func(d *lrp.Desired) { d.RootFS = "docker:///stubborn" }))
	c.perform(d, 0)
	w.running("stubborn", 0)
	begin := time.Now()
	if err := w.bbs.RemoveDesired(w.ctx, "stubborn"); err != nil {
		t.Fatal(err)
	}
	w.seen.until(t, "the record gone", func() bool { _, ok := w.seen.actual("stubborn", 0); return !ok })
	if took := time.Since(begin); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("gone after %v, want the graceful interval of 300ms", took)
	}
	c.untilState("an empty cell", empty)
}

// TestRetireWhileBeingMade retires an instance whose image takes long: nobody waits for that.
func TestRetireWhileBeingMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.SetImage("docker:///slow", inmem.Image{Programs: map[string]inmem.Program{"*": w.app.run}, Users: []string{"*"}, Takes: time.Hour})
	c := w.startRep()
	d := w.desire(desired("slow", 1, func(d *lrp.Desired) { d.RootFS = "docker:///slow" }))
	c.perform(d, 0)
	w.seen.until(t, "claimed", func() bool { return w.seen.state("slow", 0) == lrp.Claimed })
	if err := w.bbs.RemoveDesired(w.ctx, "slow"); err != nil {
		t.Fatal(err)
	}
	w.seen.until(t, "the record gone", func() bool { _, ok := w.seen.actual("slow", 0); return !ok })
	c.untilState("an empty cell", empty)
}

// TestLogs reads what instances write: the tail, then new lines, then those of an instance that starts later.
func TestLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	operator := c.as(identity.Operator)
	none := func(repclient.LogLine) error { return nil }
	if err := operator.Logs(w.ctx, repclient.LogsRequest{Process: "logs"}, none); status.Code(err) != codes.NotFound {
		t.Errorf("logs of nothing: %v", err)
	}
	d := w.desire(desired("logs", 2, nil))
	c.perform(d, 0)
	a := w.running("logs", 0)
	first := w.app.proc(string(a.Instance))
	for i := range 5 {
		fmt.Fprintf(first.stdout, "line %d\n", i)
	}
	fmt.Fprint(first.stderr, "oops\r\n\r\nno end\n")
	var all []string
	if err := operator.Logs(w.ctx, repclient.LogsRequest{Process: "logs"}, func(l repclient.LogLine) error {
		if text := fmt.Sprintf("%d %t %s", l.Index, l.Stderr, l.Line); l.Source != "APP" || l.Time.IsZero() {
			t.Errorf("%s: source %q, time %v", text, l.Source, l.Time)
		} else if !ofCell(l) {
			all = append(all, text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	if diff := cmp.Diff([]string{"0 false line 0", "0 false line 1", "0 false line 2", "0 false line 3", "0 false line 4", "0 false started", "0 true no end", "0 true oops"}, all); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	lines := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- operator.Logs(ctx, repclient.LogsRequest{Process: "logs", Follow: true, Tail: 3}, func(l repclient.LogLine) error {
			lines <- fmt.Sprintf("%s %d %s", l.Cell, l.Index, l.Line)
			return nil
		})
	}()
	for _, want := range []string{"z1 0 line 4", "z1 0 oops", "z1 0 no end"} {
		if got := <-lines; got != want {
			t.Errorf("tail: got %q, want %q", got, want)
		}
	}
	fmt.Fprintln(first.stdout, "later")
	if got := <-lines; got != "z1 0 later" {
		t.Errorf("followed: %q", got)
	}
	c.perform(d, 1)
	for _, want := range []string{"z1 1 Cell z1 creating container", "z1 1 Cell z1 successfully created container", "z1 1 started"} {
		if got := <-lines; !strings.HasPrefix(got, want) {
			t.Errorf("an instance that started later: %q, want %s", got, want)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
		t.Errorf("ended with %v", err)
	}
}

// ofCell tells whether a line comes from the cell, and not from the program.
func ofCell(l repclient.LogLine) bool { return strings.HasPrefix(string(l.Line), "Cell ") }

// TestPresence shows that the cell announces itself, and what it says.
func TestPresence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rep.Config) { c.PlacementTags = []string{"gpu"} })
	c := w.startRep()
	w.seen.until(t, "the cell is present", func() bool {
		list, _, err := w.bbs.Cells(w.ctx)
		return err == nil && len(list) == 1 && list[0].Cell == "z1" && list[0].Zone == "zone-1" &&
			list[0].RepURL == "https://"+strings.Replace(c.address, "127.0.0.1", "192.0.2.7", 1) &&
			list[0].Capacity == (cells.Resources{MemoryMB: 1024, DiskMB: 4096, Containers: 10}) && slices.Equal(list[0].PlacementTags, []string{"gpu"})
	})
}
