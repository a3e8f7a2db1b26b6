package world

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells/fetch/fetchtest"
	"muster/integration/apps/image"
)

// acceptance are the tests of the cells' acceptance list on one stack.
type acceptance struct {
	*stack
	client *bbsclient.Client
	image  string // holds busybox and hello
}

// TestCells plays lines of the acceptance list, cell reference §24, on three cells, all at once. Each has processes
// of its own, named after the test.
func TestCells(t *testing.T) {
	s := newStack(t)
	s.must(t, s.upArgs("--no-sample")...)
	a := &acceptance{stack: s, client: s.client(t), image: filepath.Join(s.dir, "images", "busybox.tar")}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := image.DebianBusybox(t.Context(), filepath.Join(cache, "muster", "debian"), filepath.Join(s.bin, "hello"), a.image); err != nil {
		t.Fatal(err)
	}
	t.Run("at once", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"events": a.testEvents, "crash loop": a.testCrashLoop, "no monitor": a.testNoMonitor, "codependent": a.testCodependent,
			"monitor": a.testMonitor, "checks": a.testChecks, "sidecar": a.testSidecarEnds, "outstanding": a.testOutstanding, "stubborn": a.testStubborn,
			"claimed": a.testDeleteWhileClaimed, "tasks": a.testTasks, "cancel": a.testCancel, "unplaceable": a.testUnplaceable,
			"checksums": a.testChecksums, "pids": a.testPids, "env": a.testEnv, "fuse": a.testFUSE,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	})
	a.testCellsLater(t)
}

// sh is an action that runs a script.
func sh(script string) *lrp.Action {
	return &lrp.Action{Run: &lrp.RunAction{Path: "sh", Args: []string{"-c", script}, User: "app"}}
}

// forever is a script that runs until it is told to stop.
const forever = "trap 'exit 0' TERM; while true; do sleep 0.1; done"

// process makes a name of its own for a process of a test.
func process(t *testing.T, name string) lrp.ProcessGUID {
	return lrp.ProcessGUID(name + "-" + filepath.Base(t.Name()))
}

// desire wants a process that runs forever unless change says otherwise, and returns the revision before. It is
// removed at the end of the test.
func (a *acceptance) desire(t *testing.T, name string, change func(*lrp.Desired)) (lrp.ProcessGUID, uint64) {
	t.Helper()
	d := lrp.Desired{
		Process: process(t, name), Domain: "cells", Instances: 1, RootFS: "oci-archive://" + a.image, MemoryMB: 64, DiskMB: 64,
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "cells"}},
		RunInfo:    lrp.RunInfo{Action: sh(forever), LogSource: "APP", StartTimeoutMS: patience.Milliseconds()},
	}
	if change != nil {
		change(&d)
	}
	_, revision, err := a.client.Actuals(t.Context(), bbsclient.ActualFilter{Process: d.Process})
	if err == nil {
		err = a.client.Desire(t.Context(), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.client.RemoveDesired(context.Background(), d.Process) // the test may have done it
	})
	return d.Process, revision
}

// watch looks at the events of a process after a revision until done says so.
func (a *acceptance) watch(t *testing.T, p lrp.ProcessGUID, after uint64, done func(event.Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	watch, err := a.client.Watch(ctx, after, bbsclient.WatchFilter{Process: p})
	if err != nil {
		t.Fatal(err)
	}
	var last lrp.Actual
	for {
		events, _, err := watch.Recv()
		if err != nil {
			t.Fatalf("%s was last %+v: %v", p, last, err)
		}
		for _, ev := range events {
			if ev.Actual != nil && ev.Actual.After != nil {
				last = *ev.Actual.After
			}
			if done(ev) {
				return
			}
		}
	}
}

// record returns the first record of a process after a revision that is as wanted.
func (a *acceptance) record(t *testing.T, p lrp.ProcessGUID, after uint64, want func(lrp.Actual) bool) (found lrp.Actual) {
	t.Helper()
	a.watch(t, p, after, func(ev event.Event) bool {
		if ev.Actual == nil || ev.Actual.After == nil || !want(*ev.Actual.After) {
			return false
		}
		found = *ev.Actual.After
		return true
	})
	return found
}

func running(r lrp.Actual) bool { return r.State == lrp.Running }

func crashed(r lrp.Actual) bool { return r.CrashCount > 0 }

// crashes wants a process that crashes, and returns its record after the first time.
func (a *acceptance) crashes(t *testing.T, name, reason string, change func(*lrp.Desired)) lrp.Actual {
	t.Helper()
	p, revision := a.desire(t, name, change)
	r := a.record(t, p, revision, crashed)
	if !strings.Contains(r.CrashReason, reason) || reason == "" && r.CrashReason != "" {
		t.Errorf("%s crashes with %q, want %q", p, r.CrashReason, reason)
	}
	return r
}

// logged waits for a line in the log of a process.
func (a *acceptance) logged(t *testing.T, p lrp.ProcessGUID, line string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s logs %q", p, line), func(context.Context) error {
		out, err := a.muster("logs", string(p))
		if err == nil && !strings.Contains(out, line) {
			err = fmt.Errorf("log: %s", out)
		}
		return err
	})
}

// stillRuns checks that a process has never crashed.
func (a *acceptance) stillRuns(t *testing.T, p lrp.ProcessGUID) {
	t.Helper()
	list, _, err := a.client.Actuals(t.Context(), bbsclient.ActualFilter{Process: p})
	if err != nil || len(list) != 1 || list[0].State != lrp.Running || list[0].CrashCount != 0 {
		t.Errorf("%s is %+v, %v", p, list, err)
	}
}

// §24 "Events": everything that happens to an instance is told, in order.
func (a *acceptance) testEvents(t *testing.T) {
	p, revision := a.desire(t, "told", nil)
	var told []string
	a.watch(t, p, revision, func(ev event.Event) bool {
		switch {
		case ev.Desired != nil && ev.Desired.After == nil:
			told = append(told, "desired removed")
		case ev.Desired != nil:
			told = append(told, "desired created")
		case ev.Actual == nil:
		case ev.Actual.After == nil:
			told = append(told, "actual removed")
			return true
		case ev.Actual.Before == nil:
			told = append(told, "actual created")
		case ev.Actual.Before.State != ev.Actual.After.State:
			told = append(told, fmt.Sprintf("%s to %s", ev.Actual.Before.State, ev.Actual.After.State))
			if ev.Actual.After.State == lrp.Running {
				if err := a.client.RemoveDesired(t.Context(), p); err != nil {
					t.Error(err)
				}
			}
		}
		return false
	})
	want := []string{"desired created", "actual created", "UNCLAIMED to CLAIMED", "CLAIMED to RUNNING", "desired removed", "actual removed"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// §24 "Crash loop": two crashes are made good at once, the third waits, and a crashed one can be removed.
func (a *acceptance) testCrashLoop(t *testing.T) {
	p, revision := a.desire(t, "loop", func(d *lrp.Desired) { d.RunInfo.Action = sh("sleep 0.2; exit 17") })
	seen, third := map[lrp.InstanceGUID]int32{}, time.Time{}
	a.watch(t, p, revision, func(ev event.Event) bool {
		if ev.Actual == nil || ev.Actual.After == nil {
			return false
		}
		switch r := ev.Actual.After; {
		case r.State == lrp.Crashed && r.CrashCount == 3:
			third = ev.At
			if !strings.Contains(r.CrashReason, "Exited with status 17") {
				t.Errorf("reason %q", r.CrashReason)
			}
		case r.State == lrp.Crashed && third.IsZero():
			t.Errorf("it waits after crash %d", r.CrashCount)
		case r.State == lrp.Running:
			seen[r.Instance] = r.CrashCount
			if !third.IsZero() {
				if waited := ev.At.Sub(third); waited < 25*time.Second {
					t.Errorf("it runs again %v after the third crash", waited)
				}
				return true
			}
		}
		return false
	})
	counts := []int32{}
	for _, n := range seen {
		counts = append(counts, n)
	}
	if slices.Sort(counts); !slices.Equal(counts, []int32{0, 1, 2, 3}) {
		t.Errorf("it ran with crash counts %v", counts)
	}
	if err := a.client.RemoveDesired(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	a.watch(t, p, revision, func(ev event.Event) bool { return ev.Actual != nil && ev.Actual.After == nil })
}

// §24 "No monitor": it runs when its process does, and every end is a crash.
func (a *acceptance) testNoMonitor(t *testing.T) {
	a.crashes(t, "fails", "APP: Exited with status 1", func(d *lrp.Desired) { d.RunInfo.Action = sh("exit 1") })
	a.crashes(t, "ends", "", func(d *lrp.Desired) { d.RunInfo.Action = sh("exit 0") })
}

// §24 "Codependent action": the end of one of codependents is a crash, that of one of parallels is none.
func (a *acceptance) testCodependent(t *testing.T) {
	a.crashes(t, "codependent", "Codependent step exited", func(d *lrp.Desired) {
		d.RunInfo.Action = &lrp.Action{Codependent: &lrp.CodependentAction{Actions: []*lrp.Action{sh("exit 0"), sh(forever)}}}
	})
	p, revision := a.desire(t, "parallel", func(d *lrp.Desired) {
		d.RunInfo.Action = &lrp.Action{Parallel: &lrp.ParallelAction{Actions: []*lrp.Action{sh("exit 7"), sh(forever)}}}
	})
	a.record(t, p, revision, running)
	a.logged(t, p, "Exit status 7")
	a.stillRuns(t, p)
}

// §24 "With monitor": an app that became a daemon runs, one that fails or never becomes healthy crashes.
func (a *acceptance) testMonitor(t *testing.T) {
	p, revision := a.desire(t, "daemon", func(d *lrp.Desired) {
		d.RunInfo.Action, d.RunInfo.Monitor = sh("("+forever+") & touch /tmp/up"), sh("test -e /tmp/up")
	})
	a.record(t, p, revision, running)
	a.logged(t, p, "Exit status 0")
	a.stillRuns(t, p)
	a.crashes(t, "fails", "APP: Exited with status 1", func(d *lrp.Desired) {
		d.RunInfo.Action, d.RunInfo.Monitor = sh("sleep 0.3; exit 1"), sh("true")
	})
	never := a.crashes(t, "never", "Instance never healthy after", func(d *lrp.Desired) {
		d.RunInfo.Monitor, d.RunInfo.StartTimeoutMS = sh("echo not yet; exit 1"), 500
	})
	if !strings.Contains(never.CrashReason, "not yet") {
		t.Errorf("reason %q", never.CrashReason)
	}
	a.crashes(t, "later", "Instance became unhealthy: ", func(d *lrp.Desired) { // at the second check, after half a minute
		d.RunInfo.Monitor = sh("test ! -e /tmp/once && touch /tmp/once")
	})
}

// §24 "Declarative checks": over HTTP and TCP, in privileged containers and without a start timeout.
func (a *acceptance) testChecks(t *testing.T) {
	http := func(path string) *lrp.CheckDefinition {
		return &lrp.CheckDefinition{Checks: []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: 8080, Path: path}}}}
	}
	tcp := &lrp.CheckDefinition{Checks: []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8080}}}}
	hello := &lrp.Action{Run: &lrp.RunAction{Path: "/bin/hello", User: "app"}}
	for name, check := range map[string]*lrp.CheckDefinition{"http": http("/healthz"), "tcp": tcp} {
		for _, privileged := range []bool{false, true} {
			p, revision := a.desire(t, fmt.Sprintf("%s-%v", name, privileged), func(d *lrp.Desired) {
				d.RunInfo.Action, d.RunInfo.Check, d.RunInfo.Privileged, d.RunInfo.StartTimeoutMS = hello, check, privileged, 0
			})
			a.record(t, p, revision, running)
		}
	}
	a.crashes(t, "never", "failed to make TCP connection to", func(d *lrp.Desired) { d.RunInfo.Check, d.RunInfo.StartTimeoutMS = tcp, 300 })
	a.crashes(t, "status", "received status code 404", func(d *lrp.Desired) {
		d.RunInfo.Action, d.RunInfo.Check, d.RunInfo.StartTimeoutMS = hello, http("/missing"), 1500
	})
	p, revision := a.desire(t, "later", func(d *lrp.Desired) { d.RunInfo.Action, d.RunInfo.Check = hello, http("/healthz") })
	r := a.record(t, p, revision, running)
	if _, err := ask(r, "/unhealthy"); err != nil {
		t.Error(err)
	}
	if r = a.record(t, p, revision, crashed); !strings.Contains(r.CrashReason, "Instance became unhealthy: Liveness check unsuccessful: ") ||
		!strings.Contains(r.CrashReason, "received status code 503") {
		t.Errorf("reason %q", r.CrashReason)
	}
}

// ask asks an instance at the address of its container.
func ask(r lrp.Actual, path string) (int, error) {
	res, err := browser.Get("http://" + r.NetInfo.InstanceAddress + ":8080" + path)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// §24 "Sidecar": its end, whichever, is that of the instance.
func (a *acceptance) testSidecarEnds(t *testing.T) {
	a.crashes(t, "ends", "cancelled", func(d *lrp.Desired) { d.RunInfo.Sidecars = []lrp.Sidecar{{Action: sh("exit 0")}} })
	a.crashes(t, "fails", "Exited with status 3", func(d *lrp.Desired) { d.RunInfo.Sidecars = []lrp.Sidecar{{Action: sh("exit 3")}} })
}

// §24 "Scale": a request of eight seconds outlives the instance that it is made of, which had a setup step too; routes of
// what goes are gone at once, and all come back.
func (a *acceptance) testOutstanding(t *testing.T) {
	const host = "outstanding.localhost"
	p, revision := a.desire(t, "web", func(d *lrp.Desired) {
		d.RunInfo.Setup, d.RunInfo.Action = sh("true"), &lrp.Action{Run: &lrp.RunAction{Path: "/bin/hello", User: "app"}}
		d.RunInfo.Ports = []uint32{8080}
		d.RunInfo.Check = &lrp.CheckDefinition{Checks: []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: 8080, Path: "/healthz"}}}}
		d.Routes = map[string][]byte{"cf-router": []byte(`[{"hostnames":["` + host + `"],"port":8080}]`)}
	})
	a.record(t, p, revision, running)
	scale := func(n int32) {
		t.Helper()
		if err := a.client.Update(t.Context(), p, lrp.Update{Instances: &n}); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("%d instances run and answer", n), func(ctx context.Context) error {
			list, _, err := a.client.Actuals(ctx, bbsclient.ActualFilter{Process: p})
			if err != nil || len(list) != int(n) || slices.ContainsFunc(list, func(r lrp.Actual) bool { return !running(r) }) {
				return fmt.Errorf("records %+v, %w", list, err)
			}
			return nil
		})
	}
	answers(t, host, http.StatusOK)
	scale(3)
	answer := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		close(begun)
		status, body, err := get(context.Background(), host, "/sleep?ms=8000")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", status, body)
		}
		answer <- err
	}()
	<-begun
	a.logged(t, p, "sleeps")
	scale(0)
	answers(t, host, http.StatusNotFound)
	if err := <-answer; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	scale(3)
	answers(t, host, http.StatusOK)
}

// §24 "Stop": what ignores SIGTERM serves for the whole graceful interval, of ten seconds.
func (a *acceptance) testStubborn(t *testing.T) {
	p, revision := a.desire(t, "stubborn", func(d *lrp.Desired) {
		d.RunInfo.Action = sh("trap '' TERM; while true; do httpd -f -p 8080 -h /etc; done")
		d.RunInfo.Check = &lrp.CheckDefinition{Checks: []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8080}}}}
	})
	r := a.record(t, p, revision, running)
	if err := a.client.RemoveDesired(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	removed := time.Now()
	for {
		if status, err := ask(r, "/group"); err != nil || status != http.StatusOK {
			break
		}
		if time.Since(removed) > patience {
			t.Fatal("it is never stopped")
		}
	}
	if served := time.Since(removed); served < 5*time.Second {
		t.Errorf("it serves %v after its removal", served)
	}
	a.watch(t, p, revision, func(ev event.Event) bool { return ev.Actual != nil && ev.Actual.After == nil })
}

// §24 "Delete while claimed": the record goes.
func (a *acceptance) testDeleteWhileClaimed(t *testing.T) {
	p, revision := a.desire(t, "claimed", func(d *lrp.Desired) { d.RunInfo.Setup = sh("sleep 1000") })
	a.record(t, p, revision, func(r lrp.Actual) bool { return r.State == lrp.Claimed })
	if err := a.client.RemoveDesired(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	a.watch(t, p, revision, func(ev event.Event) bool { return ev.Actual != nil && ev.Actual.After == nil })
}

// §24 "Placement tags", "Rootfs" and "Tasks": what no cell can run is told why, LRPs and tasks alike.
func (a *acceptance) testUnplaceable(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*lrp.Desired)
		want   string
	}{
		"tags":      {func(d *lrp.Desired) { d.PlacementTags = []string{"gpu"} }, `found no compatible cell`},
		"scheme":    {func(d *lrp.Desired) { d.RootFS = "ftp://somewhere/app" }, `found no compatible cell`},
		"preloaded": {func(d *lrp.Desired) { d.RootFS = "preloaded:missing" }, `found no compatible cell`},
		"memory":    {func(d *lrp.Desired) { d.MemoryMB = 1 << 24 }, "insufficient resources: memory"},
	} {
		d := lrp.Desired{RootFS: "oci-archive://" + a.image, MemoryMB: 64}
		test.change(&d)
		p, revision := a.desire(t, name, test.change)
		if r := a.record(t, p, revision, func(r lrp.Actual) bool { return r.PlacementError != "" }); !strings.Contains(r.PlacementError, test.want) {
			t.Errorf("%s: %q, want %q", name, r.PlacementError, test.want)
		}
		guid := a.desireTask(t, name, sh("true"), func(def *task.Definition) {
			def.RootFS, def.MemoryMB, def.PlacementTags = d.RootFS, d.MemoryMB, d.PlacementTags
		})
		eventually(t, "the task is refused", func(ctx context.Context) error {
			got, err := a.client.Task(ctx, guid)
			if err == nil && !strings.Contains(got.RejectionReason+got.FailureReason, test.want) {
				err = fmt.Errorf("it is %+v", got)
			}
			return err
		})
	}
}

// §24 "Checksums": of downloads.
func (a *acceptance) testChecksums(t *testing.T) {
	url, sum := fetchtest.Serve(t, "file", "ok")
	setup := func(algorithm, value string) func(*lrp.Desired) {
		return func(d *lrp.Desired) {
			d.RunInfo.Setup = &lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{
				{Download: &lrp.DownloadAction{Artifact: "file", From: url, To: "/tmp", User: "app", ChecksumAlgorithm: algorithm, ChecksumValue: value}},
				sh("test $(cat /tmp/file) = ok"),
			}}}
		}
	}
	p, revision := a.desire(t, "right", setup("sha256", sum))
	if r := a.record(t, p, revision, func(r lrp.Actual) bool { return running(r) || crashed(r) }); !running(r) {
		t.Errorf("with the right checksum: %+v", r)
	}
	a.crashes(t, "wrong", "file", setup("sha256", strings.Repeat("0", len(sum))))
}

// §24 "Pids": as many as wanted, or as few.
func (a *acceptance) testPids(t *testing.T) {
	p, revision := a.desire(t, "many", func(d *lrp.Desired) {
		d.RunInfo.Action = sh("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; " + forever)
	})
	a.record(t, p, revision, running)
	a.crashes(t, "one", "Exited with status 2", func(d *lrp.Desired) { // the shell gives up when it cannot fork
		d.MaxPids, d.RunInfo.Action = 1, sh("i=0; while test $i -lt 40; do sleep 1000 & i=$((i+1)); done; "+forever)
	})
	err := a.client.Desire(t.Context(), lrp.Desired{
		Process: process(t, "negative"), Domain: "cells", RootFS: "docker:///x", MaxPids: -1,
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "cells"}}, RunInfo: lrp.RunInfo{Action: sh("true")},
	})
	if err == nil || !strings.Contains(err.Error(), "max_pids") {
		t.Errorf("a negative bound: %v", err)
	}
}

// §24 "Env": an instance knows itself.
func (a *acceptance) testEnv(t *testing.T) {
	p, revision := a.desire(t, "env", func(d *lrp.Desired) {
		d.RunInfo.Action, d.RunInfo.Ports = sh(`echo "I am $INSTANCE_INDEX $INSTANCE_GUID $CF_INSTANCE_INTERNAL_IP $CF_INSTANCE_IP $CF_INSTANCE_PORT."; `+forever), []uint32{8080}
	})
	r := a.record(t, p, revision, running)
	a.logged(t, p, fmt.Sprintf("I am 0 %s %s %s %d.", r.Instance, r.NetInfo.InstanceAddress, r.NetInfo.Address, r.NetInfo.Ports[0].HostPort))
	script := `echo -n "$CF_INSTANCE_PORTS/$CF_INSTANCE_PORT/$CF_INSTANCE_ADDR" >/tmp/result`
	guid := a.desireTask(t, "env", sh(script), func(d *task.Definition) { d.ResultFile = "/tmp/result" })
	if got := a.in(t, guid, task.Completed); got.Result != "[]//" {
		t.Errorf("a task has %q", got.Result)
	}
}

// §24 "Volumes, FUSE": privileged containers have the device, others have not.
func (a *acceptance) testFUSE(t *testing.T) {
	look := func(privileged bool) string {
		guid := a.desireTask(t, fmt.Sprintf("fuse-%v", privileged), sh("test -c /dev/fuse && echo -n there >/tmp/result || echo -n missing >/tmp/result"), func(d *task.Definition) {
			d.Privileged, d.ResultFile = privileged, "/tmp/result"
		})
		return a.in(t, guid, task.Completed).Result
	}
	if with, without := look(true), look(false); with != "there" || without != "missing" {
		t.Errorf("/dev/fuse is %q in a privileged container, %q in others", with, without)
	}
}

// §24 "Auctioneer/cell order": what is desired while there are no cells runs when one has come.
func (a *acceptance) testCellsLater(t *testing.T) {
	for _, cell := range []string{"cell-1", "cell-2", "cell-3"} {
		if err := syscall.Kill(a.pidOf(t, cell), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no cell is present", func(ctx context.Context) error {
		list, _, err := a.client.Cells(ctx)
		if err == nil && len(list) > 0 {
			err = fmt.Errorf("%d are", len(list))
		}
		return err
	})
	p, revision := a.desire(t, "late", nil)
	a.record(t, p, revision, func(r lrp.Actual) bool { return r.PlacementError != "" })
	a.must(t, a.upArgs("--no-sample")...)
	a.record(t, p, revision, running)
}
