package world

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/lrp/cfroute"
	"muster/integration/apps/image"
)

// TestMainJob is the life of an application on a stack of three cells, with everything killed once.
// The steps build on each other, like those of a story.
func TestMainJob(t *testing.T) {
	s := newStack(t)
	s.must(t, s.upArgs("--no-sample")...)
	archive := filepath.Join(t.TempDir(), "hello.tar")
	if err := image.FromBinary(filepath.Join(s.bin, "hello"), archive); err != nil {
		t.Fatal(err)
	}
	step := func(name string, fn func(*testing.T)) {
		if !t.Run(name, fn) {
			t.FailNow()
		}
	}
	step("three instances run on three cells and share the requests", func(t *testing.T) { s.testRun(t, archive) })
	step("a killed process comes back as another instance", s.testKillProcess)
	step("a killed rep restarts nothing and a killed BBS interrupts nobody", s.testKillDaemons)
	step("a lost cell's instances are replaced, and what it still has goes when it is back", s.testLoseCell)
	step("a request can be found in the logs of all daemons", s.testTrace)
	step("scaling reaches containers and router", s.testScale)
	step("changed routes reach the router", s.testRoutes)
	step("logs and events are told", s.testLogsAndEvents)
	step("a WebSocket goes through", s.testWebSocket)
	step("what was never built here runs too", s.testNginx)
	step("an image of a registry runs", s.testRegistry)
	step("bad input is named and leaves nothing", func(t *testing.T) { s.testBadInput(t, archive) })
	step("work that does not fit says so, and starts when it fits", func(t *testing.T) { s.testNoRoom(t, archive) })
	step("a client of Diego runs an application", s.testDiego)
	step("removal reaches containers and router", s.testRemove)
}

func (s *stack) testRun(t *testing.T, archive string) {
	s.must(t, "run", archive, "--name", "web", "--instances", "3", "--port", "8080", "--route", "web.localhost", "--route", "paths.localhost/deep",
		"--check-path", "/healthz", "--memory", "64M")
	cells := map[string]bool{}
	for index, i := range s.mustInstances(t, "web") {
		if i.State != "RUNNING" {
			t.Errorf("instance %d is %s", index, i.State)
		}
		cells[i.CellID] = true
	}
	if len(cells) != 3 {
		t.Errorf("the instances are on %v, not on three cells", slices.Collect(maps.Keys(cells)))
	}
	eventually(t, "all three instances are routed", func(context.Context) error {
		if seen := who(t, "web.localhost", 9); len(seen) != 3 {
			return fmt.Errorf("answers from %v", seen)
		}
		return nil
	})
	for guid, n := range who(t, "web.localhost", 30) {
		if n != 10 { // round robin, and nobody else asks
			t.Errorf("instance %s answered %d of 30 requests", guid, n)
		}
	}
	if status, _, err := get(t.Context(), "paths.localhost", "/deep/er"); err != nil || status != http.StatusNotFound {
		t.Errorf("a path below a routed path: %d, %v: want the application's own 404", status, err)
	}
	if status, body, err := get(t.Context(), "paths.localhost", "/elsewhere"); err != nil || status != http.StatusNotFound || !strings.Contains(body, "Requested route") {
		t.Errorf("a path that is not routed: %d, %v, %q: want the router's 404", status, err, body)
	}
}

// testKillProcess kills the process of an instance; the others must answer all the while.
func (s *stack) testKillProcess(t *testing.T) {
	before := s.mustInstances(t, "web")
	victim := before[1]
	if err := syscall.Kill(s.processOf(t, victim.InstanceGUID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "index 1 runs again", func(context.Context) error {
		now, err := s.instances("web")
		if err != nil {
			return err
		}
		if i := now[1]; i.State != "RUNNING" || i.InstanceGUID == victim.InstanceGUID {
			return fmt.Errorf("it is %+v", i)
		}
		return nil
	})
	if out := s.must(t, "logs", "web", "--index", "1"); strings.Count(out, "hello listens on port 8080") != 2 {
		t.Errorf("the logs do not show the crashed instance and the new one:\n%s", out)
	}
	now := s.mustInstances(t, "web")
	if now[1].CrashCount != 1 || !strings.Contains(now[1].CrashReason, "137") {
		t.Errorf("crash count and reason: %d, %q", now[1].CrashCount, now[1].CrashReason)
	}
	if now[0].InstanceGUID != before[0].InstanceGUID || now[2].InstanceGUID != before[2].InstanceGUID {
		t.Error("an instance that was not killed was replaced")
	}
	eventually(t, "the new instance is routed", func(ctx context.Context) error {
		if seen := who(t, "web.localhost", 6); seen[now[1].InstanceGUID] == 0 {
			return fmt.Errorf("answers from %v", seen)
		}
		return nil
	})
}

// processOf returns the main process of an instance on this machine, by its environment.
func (s *stack) processOf(t *testing.T, instanceGUID string) int {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		text, err := os.ReadFile(f)
		if err != nil || !strings.Contains("\x00"+string(text), "\x00INSTANCE_GUID="+instanceGUID+"\x00") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(f, "/proc/%d/environ", &pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatalf("no process of instance %s", instanceGUID)
	return 0
}

// testKillDaemons kills every daemon, one after another, while requests go on. Only the router itself
// may interrupt them, so it is not among them.
func (s *stack) testKillDaemons(t *testing.T) {
	before := s.mustInstances(t, "web")
	stop := keepAsking("web.localhost")
	for _, part := range []string{"cell-1", "cell-2", "auctioneer", "route-emitter", "bbs", "nats"} {
		pid := s.pidOf(t, part)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.must(t, s.upArgs("--no-sample")...)
	}
	s.must(t, "scale", "web", "4") // it all works together again
	s.must(t, "scale", "web", "3")
	if err := stop(); err != nil {
		t.Errorf("a request failed while daemons were killed: %v", err)
	}
	eventually(t, "three instances are left", func(context.Context) error {
		now, err := s.instances("web")
		if err != nil {
			return err
		}
		if len(now) != 3 {
			return fmt.Errorf("instances: %+v", now)
		}
		return nil
	})
	for index, i := range s.mustInstances(t, "web") {
		if i.InstanceGUID != before[index].InstanceGUID || i.State != "RUNNING" {
			t.Errorf("instance %d was %+v and is %+v", index, before[index], i)
		}
	}
}

func (s *stack) testScale(t *testing.T) {
	s.must(t, "scale", "web", "5")
	eventually(t, "five instances answer", func(context.Context) error {
		if seen := who(t, "web.localhost", 10); len(seen) != 5 {
			return fmt.Errorf("answers from %v", seen)
		}
		return nil
	})
	left := s.mustInstances(t, "web")[0].InstanceGUID
	s.must(t, "scale", "web", "1")
	eventually(t, "one instance is left", func(context.Context) error {
		now, err := s.instances("web")
		if err != nil {
			return err
		}
		if len(now) != 1 {
			return fmt.Errorf("instances: %+v", now)
		}
		return nil
	})
	if seen := who(t, "web.localhost", 10); seen[left] != 10 {
		t.Errorf("answers from %v, want them from %s alone", seen, left)
	}
	s.containersAre(t, 1)
	s.must(t, "scale", "web", "2")
}

// containersAre waits until the cells hold a number of containers.
func (s *stack) containersAre(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d containers are left", want), func(context.Context) error {
		found, err := filepath.Glob(filepath.Join(s.dir, "cells", "*", "containers", "*"))
		if err != nil {
			return err
		}
		if len(found) != want {
			return fmt.Errorf("there are %v", found)
		}
		return nil
	})
}

func (s *stack) testRoutes(t *testing.T) {
	value, err := cfroute.Marshal([]cfroute.Route{{Hostnames: []string{"new.localhost", "paths.localhost"}, Port: 8080}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client(t).Update(t.Context(), "web", lrp.Update{Routes: map[string][]byte{cfroute.Group: value}}); err != nil {
		t.Fatal(err)
	}
	answers(t, "new.localhost", http.StatusOK)
	answers(t, "web.localhost", http.StatusNotFound)
	answers(t, "paths.localhost", http.StatusOK)
}

func (s *stack) testLogsAndEvents(t *testing.T) {
	if out := s.must(t, "logs", "web"); !strings.Contains(out, "hello listens on port 8080") {
		t.Errorf("logs: %s", out)
	}
	out := s.must(t, "events", "--since", "0", "--process", "web")
	for _, want := range []string{"UNCLAIMED", "CLAIMED", "RUNNING", "crash", "retiring"} {
		if !strings.Contains(out, want) {
			t.Errorf("events do not tell of %q:\n%s", want, out)
		}
	}
	follow := s.command("logs", "web", "-f", "--tail", "1")
	pipe, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := follow.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		_ = follow.Wait() // how an interrupted program ends is not what is tested
	}()
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() {
		t.Fatal("logs -f says nothing")
	}
	s.must(t, "scale", "web", "3")
	deadline := time.AfterFunc(patience, func() { follow.Process.Kill() })
	defer deadline.Stop()
	for lines.Scan() { // a line of the instance that starts now, on whichever cell
		if strings.Contains(lines.Text(), "hello listens") && strings.Contains(lines.Text(), "/2") {
			return
		}
	}
	t.Error("logs -f did not tell of an instance that started later")
}

func (s *stack) testWebSocket(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/ws", httpPort), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "new.localhost"
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	res, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	tunnel, ok := res.Body.(interface {
		Write([]byte) (int, error)
		Read([]byte) (int, error)
		Close() error
	})
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		t.Fatalf("status %s", res.Status)
	}
	defer tunnel.Close()
	frame := []byte{0x81, 0x85, 1, 2, 3, 4, 'h' ^ 1, 'e' ^ 2, 'l' ^ 3, 'l' ^ 4, 'o' ^ 1} // text, masked
	if _, err := tunnel.Write(frame); err != nil {
		t.Fatal(err)
	}
	echo := make([]byte, 7)
	for n := 0; n < len(echo); {
		m, err := tunnel.Read(echo[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if string(echo[2:]) != "hello" {
		t.Errorf("echo: %q", echo)
	}
}

func (s *stack) testNginx(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "nginx.tar")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := image.DebianNginx(t.Context(), filepath.Join(cache, "muster", "debian"), archive); err != nil {
		t.Fatal(err)
	}
	s.must(t, "run", archive, "--name", "nginx", "--port", "8080", "--route", "nginx.localhost", "--check-path", "/", "--memory", "128M")
	answers(t, "nginx.localhost", http.StatusOK)
	if _, body, err := get(t.Context(), "nginx.localhost", "/"); err != nil || body != image.NginxPage {
		t.Errorf("nginx answers %q, %v", body, err)
	}
	s.must(t, "rm", "nginx")
	answers(t, "nginx.localhost", http.StatusNotFound)
}

func (s *stack) testRegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	img, err := image.FromFiles(append(image.Base(), image.File{Path: "/bin/hello", Mode: 0o755, Source: filepath.Join(s.bin, "hello")}),
		image.Config{Env: []string{"PATH=/bin"}, User: "app", Command: []string{"/bin/hello"}})
	if err != nil {
		t.Fatal(err)
	}
	reference := strings.TrimPrefix(server.URL, "http://") + "/team/hello:v1"
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	s.must(t, "run", reference, "--name", "pulled", "--port", "8080", "--route", "pulled.localhost")
	answers(t, "pulled.localhost", http.StatusOK)
	s.must(t, "rm", "pulled")

	// A directory with an OCI layout is an image too.
	if err := image.WriteLayout(dir, img); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.FromPath(dir); err != nil {
		t.Fatal(err)
	}
	s.must(t, "run", dir, "--name", "layout", "--port", "8080", "--route", "layout.localhost")
	answers(t, "layout.localhost", http.StatusOK)
	s.must(t, "rm", "layout")
}

func (s *stack) testBadInput(t *testing.T, archive string) {
	s.refuses(t, []string{"nowhere.tar"}, "run", "./nowhere.tar", "--name", "bad", "--port", "8080", "--no-route")
	s.refuses(t, []string{"web"}, "run", archive, "--name", "web", "--port", "8080", "--no-route")
	s.refuses(t, []string{"process_guid"}, "run", archive, "--name", "a b", "--port", "8080", "--no-route")
	s.refuses(t, []string{"--port"}, "run", archive, "--name", "bad", "--route", "bad.localhost")
	s.refuses(t, []string{"--route"}, "run", archive, "--name", "bad", "--port", "8080")
	s.refuses(t, []string{"wep", "web"}, "scale", "wep", "3")
	s.refuses(t, []string{"wep"}, "rm", "wep")
	manifest := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(manifest, []byte("process_guid: bad\ninstnaces: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refuses(t, []string{"instnaces", "instances"}, "desire", "-f", manifest)

	d := lrp.Desired{
		Process: "bad", Domain: "muster", Instances: -1, RootFS: "nothing", MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "bad"}},
		Routes:  map[string][]byte{cfroute.Group: []byte(`[{"hostnames":["bad.localhost"],"port":9999}]`)},
		RunInfo: lrp.RunInfo{Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/hello", User: "app"}}, Ports: []uint32{8080}},
	}
	err := s.client(t).Desire(t.Context(), d)
	for _, want := range []string{"instances", "rootfs", "9999"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("desire of an invalid record: %v\ndoes not name %q", err, want)
		}
	}
	now, err := s.muster("lrps", "--json")
	if err != nil || strings.Contains(now, `"bad"`) {
		t.Errorf("something half-made stayed: %v\n%s", err, now)
	}
	for _, d := range []string{"bad.localhost"} {
		answers(t, d, http.StatusNotFound)
	}

	// A program that is not in its image: every cell says so, and nothing of the tries stays.
	s.containersAre(t, 3)
	d.Instances, d.RootFS, d.Routes = 1, "oci-archive://"+s.imageOf(t, "web"), nil
	d.RunInfo.Action.Run.Path = "/bin/missing"
	if err := s.client(t).Desire(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the crash is told", func(context.Context) error {
		now, err := s.instances("bad")
		if err != nil {
			return err
		}
		if i := now[0]; i.State != "CRASHED" || i.CrashCount != 3 || !strings.Contains(i.CrashReason, "/bin/missing") {
			return fmt.Errorf("it is %+v", i)
		}
		return nil
	})
	s.must(t, "rm", "bad")
	s.containersAre(t, 3)
}

// imageOf returns the file that an application runs from.
func (s *stack) imageOf(t *testing.T, name string) string {
	t.Helper()
	d, err := s.client(t).Desired(t.Context(), lrp.ProcessGUID(name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(d.RootFS, "oci-archive://")
}

// testNoRoom fills the cells, desires an application for which too little is left, and makes room.
func (s *stack) testNoRoom(t *testing.T, archive string) {
	var cells []struct {
		Capacity struct {
			MemoryMB int `json:"memory_mb"`
		} `json:"capacity"`
	}
	if err := json.Unmarshal([]byte(s.must(t, "cells", "--json")), &cells); err != nil {
		t.Fatal(err)
	}
	if len(cells) != 3 {
		t.Fatalf("cells: %+v", cells)
	}
	memory := func(quarters int) string { return fmt.Sprintf("%dM", cells[0].Capacity.MemoryMB*quarters/4) }
	s.must(t, "run", archive, "--name", "filler", "--instances", "3", "--port", "8080", "--no-route", "--memory", memory(3))
	s.must(t, "run", archive, "--name", "late", "--port", "8080", "--route", "late.localhost", "--memory", memory(2), "--no-wait")
	eventually(t, "the placement error is told", func(context.Context) error {
		out, err := s.muster("lrps", "late")
		if err != nil {
			return err
		}
		if !strings.Contains(out, "insufficient resources: memory") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	why := s.must(t, "explain", "late")
	for _, want := range []string{
		"late/0: insufficient resources: memory", "cells     3\n", "memory    3 of 3 cells fit, but have too little left",
		"MB of memory are missing", "remedy    ",
	} {
		if !strings.Contains(why, want) {
			t.Errorf("explained with %q, want %q in it", why, want)
		}
	}
	if out, err := s.muster("plan", "late", "2"); err == nil || !strings.Contains(out, "late/1: insufficient resources: memory") {
		t.Errorf("a second one is planned: %v, %s", err, out)
	}
	if out := s.must(t, "rebalance", "--dry-run"); !strings.Contains(out, "no move would make the cells more even") {
		t.Errorf("one instance on each cell, and moves are shown: %s", out)
	}
	s.startsWhenThereIsRoom(t)
	answers(t, "late.localhost", http.StatusOK)
	s.must(t, "rm", "late")
}

// startsWhenThereIsRoom removes what fills the cells and sees to it that what waits is placed within a second of
// the first room.
func (s *stack) startsWhenThereIsRoom(t *testing.T) {
	client := s.client(t)
	_, revision, err := client.Actuals(t.Context(), bbsclient.ActualFilter{Process: "late"})
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, "rm", "filler")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := client.Watch(ctx, revision, bbsclient.WatchFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var room, placed, runs time.Time
	for runs.IsZero() {
		events, _, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			switch c := ev.Actual; {
			case c == nil:
			case c.After == nil && c.Before.Process == "filler" && room.IsZero():
				room = ev.At
			case c.After != nil && c.After.Process == "late" && c.After.State == lrp.Claimed:
				placed = ev.At
			case c.After != nil && c.After.Process == "late" && c.After.State == lrp.Running:
				runs = ev.At
			}
		}
	}
	t.Logf("room for it is known, %v later it has a cell, %v later it runs", placed.Sub(room), runs.Sub(room))
	if room.IsZero() || placed.Sub(room) > time.Second {
		t.Errorf("it has a cell %v after there was room", placed.Sub(room))
	}
}

func (s *stack) testRemove(t *testing.T) {
	s.must(t, "rm", "web")
	answers(t, "new.localhost", http.StatusNotFound)
	s.containersAre(t, 0)
	if out, err := exec.Command("pgrep", "-f", "^/bin/hello$").Output(); err == nil && s.anyOurs(string(out)) {
		t.Errorf("processes are left: %s", out)
	}
}

// anyOurs tells whether one of the processes belongs to this stack: its cgroup says so.
func (s *stack) anyOurs(pids string) bool {
	for pid := range strings.FieldsSeq(pids) {
		text, err := os.ReadFile("/proc/" + pid + "/cgroup")
		if err == nil && strings.Contains(string(text), "/"+stackName+"/") {
			return true
		}
	}
	return false
}
