package rep_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells/engine/enginetest/probe"
	"muster/cells/inmem"
	"muster/internal/identity"
	"muster/rep/repclient"
)

// runProbe is the probe as a program of a container.
func runProbe(p inmem.Proc) int {
	return probe.Run(probe.Process{
		Args: p.Args, Signals: p.Signals, Killed: p.Killed, Stdout: p.Stdout, Stderr: p.Stderr, ReadFile: p.ReadFile,
		WriteFile: p.WriteFile,
	})
}

// do is an action that runs the probe.
func do(args ...string) *lrp.Action {
	return &lrp.Action{Run: &lrp.RunAction{Path: "/probe", Args: args, User: "vcap"}}
}

// files is a server that has one archive and takes uploads.
type files struct {
	*httptest.Server
	hold  chan struct{} // a download waits until it is closed
	asked chan struct{} // closed when one was asked for

	mu      sync.Mutex
	uploads []string
}

func newFiles(t *testing.T) *files {
	f := &files{hold: make(chan struct{}), asked: make(chan struct{})}
	asked := sync.OnceFunc(func() { close(f.asked) })
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			body, _ := io.ReadAll(r.Body)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.uploads = append(f.uploads, string(body))
			return
		}
		asked()
		select {
		case <-f.hold:
		case <-r.Context().Done():
			return
		}
		if r.URL.Path != "/droplet.tar" {
			http.NotFound(w, r)
			return
		}
		var buf bytes.Buffer
		archive := tar.NewWriter(&buf)
		_ = archive.WriteHeader(&tar.Header{Name: "greeting", Mode: 0o644, Size: 6, Typeflag: tar.TypeReg})
		_, _ = archive.Write([]byte("hello\n"))
		_ = archive.Close()
		_, _ = w.Write(buf.Bytes())
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *files) uploaded() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.uploads)
}

// logOf returns the log of a process, each line with its source.
func (c *cell) logOf(p lrp.ProcessGUID) []string {
	c.w.t.Helper()
	var lines []string
	err := c.as(identity.Operator).Logs(c.w.ctx, repclient.LogsRequest{Process: p}, func(l repclient.LogLine) error {
		if !ofCell(l) {
			lines = append(lines, fmt.Sprintf("%s: %s", l.Source, l.Line))
		}
		return nil
	})
	if err != nil && status.Code(err) != codes.NotFound {
		c.w.t.Fatal(err)
	}
	return lines
}

// TestSetupDownloads brings a droplet into the container before the app starts; the rep is replaced in the
// midst of that, and the next one goes on with it.
func TestSetupDownloads(t *testing.T) {
	t.Parallel()
	w, f := newWorld(t, nil), newFiles(t)
	first := w.startRep()
	d := w.desire(desired("droplet", 1, func(d *lrp.Desired) {
		d.RunInfo.Setup = &lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{
			{Download: &lrp.DownloadAction{Artifact: "droplet", From: f.URL + "/droplet.tar", To: "/app-files", User: "vcap", LogSource: "CELL"}},
			do("cat", "/app-files/greeting"),
		}}}
	}))
	if reason := first.perform(d, 0); reason != "" {
		t.Fatal(reason)
	}
	select {
	case <-f.asked:
	case <-w.ctx.Done():
		t.Fatal("nothing was downloaded")
	}
	first.stop()
	second := w.startRep()
	close(f.hold)
	a := w.running("droplet", 0)
	if w.app.started() != 1 {
		t.Errorf("the app was started %d times", w.app.started())
	}
	got := second.logOf("droplet")
	for _, want := range []string{"CELL: Downloading droplet...", "CELL: Downloaded droplet (2K)", "APP: hello", "APP: Exit status 0", "APP: started"} {
		if !slices.Contains(got, want) {
			t.Errorf("log %q, want %q", got, want)
		}
	}
	if crashes := w.seen.crashReports(); len(crashes) > 0 {
		t.Errorf("crashes %v of %s", crashes, a.Instance)
	}
}

// TestSetupFails crashes an instance with the words for its owner, which hold no URL.
func TestSetupFails(t *testing.T) {
	t.Parallel()
	w, f := newWorld(t, nil), newFiles(t)
	close(f.hold)
	c := w.startRep()
	d := w.desire(desired("nothing", 1, func(d *lrp.Desired) {
		d.RunInfo.Setup = &lrp.Action{Download: &lrp.DownloadAction{Artifact: "droplet", From: f.URL + "/secret-path", To: "/x", User: "vcap"}}
	}))
	c.perform(d, 0)
	if got := w.crashed(1); got.Reason != "Downloading droplet failed" {
		t.Errorf("reason %q", got.Reason)
	}
	if w.app.started() != 0 {
		t.Error("the app was started")
	}
	for _, line := range c.logOf("nothing") {
		if strings.Contains(line, "secret-path") {
			t.Errorf("the log says %q", line)
		}
	}
}

// TestTaskUploads brings a file of a task to where it belongs.
func TestTaskUploads(t *testing.T) {
	t.Parallel()
	w, f := newWorld(t, nil), newFiles(t)
	c := w.startRep()
	c.performTask(w.desireTask("staging", func(d *task.Definition) {
		d.Action = &lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{
			d.Action, {Upload: &lrp.UploadAction{Artifact: "droplet", From: "/out", To: f.URL + "/put", User: "vcap"}},
		}}}
	}, "write", "/out", "compiled"))
	if got := w.taskIn("staging", task.Completed); got.Failed {
		t.Errorf("failed: %s", got.FailureReason)
	}
	if diff := cmp.Diff([]string{"compiled"}, f.uploaded()); diff != "" {
		t.Error(diff)
	}
}

// TestSidecarEndsTheInstance: any end of a sidecar, even with status 0, is a crash.
func TestSidecarEndsTheInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	d := w.desire(desired("pair", 1, func(d *lrp.Desired) {
		side := do("exit", "3")
		side.Run.LogSource = "APP/SIDECAR"
		d.RunInfo.Sidecars = []lrp.Sidecar{{Action: side}}
	}))
	c.perform(d, 0)
	if got := w.crashed(1); got.Reason != "APP/SIDECAR: Exited with status 3" {
		t.Errorf("reason %q", got.Reason)
	}
}

// TestMonitorDecides runs an instance whose health check is an action; it is not running before that passes, and
// an app that ends with status 0 has become a daemon.
func TestMonitorDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.startRep()
	d := w.desire(desired("daemon", 1, func(d *lrp.Desired) {
		d.RunInfo.Check, d.RunInfo.StartTimeoutMS = nil, 10_000
		d.RunInfo.Action = do("write", "/healthy", "yes")
		d.RunInfo.Monitor = do("cat", "/healthy")
	}))
	c.perform(d, 0)
	w.running("daemon", 0)
	got := c.logOf("daemon")
	for _, want := range []string{"APP: Exit status 0", "APP: Starting health monitoring of container", "APP: Container became healthy"} {
		if !slices.Contains(got, want) {
			t.Errorf("log %q, want %q", got, want)
		}
	}

	never := w.desire(desired("never", 1, func(d *lrp.Desired) {
		d.RunInfo.Check, d.RunInfo.StartTimeoutMS, d.RunInfo.Monitor = nil, 100, do("exit", "1")
	}))
	c.perform(never, 0)
	if got := w.crashed(1); !strings.HasPrefix(got.Reason, "Instance never healthy after ") || got.Key.Process != "never" {
		t.Errorf("crash %+v", got)
	}
}
