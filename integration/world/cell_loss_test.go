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

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

// keepAsking asks a host again and again until stop is called, which returns the first failure.
func keepAsking(host string) (stop func() error) {
	ended, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-ended:
				failed <- nil
				return
			default:
			}
			if status, body, err := get(context.Background(), host, "/"); err != nil || status != http.StatusOK {
				failed <- fmt.Errorf("status %d, %w: %s", status, err, body)
				return
			}
		}
	}()
	return func() error { close(ended); return <-failed }
}

// testLoseCell kills a rep and leaves its containers running, as when the network of a machine is cut:
// its instance becomes suspect, another cell replaces it, and when the rep is back what is too much
// goes, all without a failed request (bbs reference §19 "cell loss", cell reference §24
// "Cell loss").
func (s *stack) testLoseCell(t *testing.T) {
	client := s.client(t)
	s.containersAre(t, 3)
	before, host := s.mustInstances(t, "web"), s.kinds(t)
	lost := map[string]bool{} // the instances of the cell
	cell := before[1].CellID
	for _, i := range before {
		if i.CellID == cell {
			lost[i.InstanceGUID] = true
		}
	}
	_, revision, err := client.Actuals(t.Context(), bbsclient.ActualFilter{Process: "web"})
	if err != nil {
		t.Fatal(err)
	}
	stop := keepAsking("web.localhost")
	if err := syscall.Kill(s.pidOf(t, cell), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	is := func(a *lrp.Actual) bool { return a != nil && a.Presence == lrp.Suspect && lost[string(a.Instance)] }
	suspected, replaced := 0, 0
	s.toldOf(t, client, revision, "web", func(a *lrp.Change) bool {
		if is(a.After) {
			suspected++
		}
		if is(a.Before) && a.After == nil {
			replaced++
		}
		return replaced == len(lost)
	})
	if suspected < len(lost) {
		t.Errorf("%d of %d instances were suspect", suspected, len(lost))
	}
	eventually(t, "three instances run on the other cells", func(ctx context.Context) error {
		list, _, err := client.Actuals(ctx, bbsclient.ActualFilter{Process: "web"})
		if err == nil && (len(list) != 3 || slices.ContainsFunc(list, func(a lrp.Actual) bool {
			return string(a.Cell) == cell || a.Presence != lrp.Ordinary || a.State != lrp.Running
		})) {
			err = fmt.Errorf("there is %v", list)
		}
		return err
	})
	s.containersAre(t, 3+len(lost))
	for guid := range lost {
		s.processOf(t, guid) // its container does not know
	}

	s.must(t, s.upArgs("--no-sample")...)
	s.containersAre(t, 3)
	// It may hold less than before, when something of an earlier step was still on its way out.
	eventually(t, "the machine holds what three instances need, and no more", func(context.Context) error {
		for kind, n := range s.kinds(t) {
			if n > host[kind] {
				return fmt.Errorf("of %s it held %d and holds %d", kind, host[kind], n)
			}
		}
		return nil
	})
	if err := stop(); err != nil {
		t.Errorf("a request failed while a cell was lost: %v", err)
	}
	now := s.mustInstances(t, "web")
	for index, was := range before {
		if i := now[index]; len(now) != 3 || i.State != "RUNNING" || lost[was.InstanceGUID] && (i.InstanceGUID == was.InstanceGUID || i.CellID == cell) {
			t.Errorf("instance %d was %+v and is %+v", index, was, i)
		}
	}
}

// kinds counts what the machine holds because of containers, by kind.
func (s *stack) kinds(t *testing.T) map[string]int {
	t.Helper()
	n := map[string]int{}
	for line := range s.lookAtHost(t) {
		if kind, _, _ := strings.Cut(line, " "); kind != "process" && kind != "file" {
			n[kind]++
		}
	}
	return n
}

// toldOf returns the changes of the instances of a process after a revision, until one of them is the last.
func (s *stack) toldOf(t *testing.T, client *bbsclient.Client, after uint64, process lrp.ProcessGUID, last func(*lrp.Change) bool) []bbsclient.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := client.Watch(ctx, after, bbsclient.WatchFilter{Process: process})
	if err != nil {
		t.Fatal(err)
	}
	var told []bbsclient.Event
	for {
		events, _, err := watch.Recv()
		if err != nil {
			t.Fatalf("after %+v: %v", told, err)
		}
		for _, ev := range events {
			if ev.Actual == nil {
				continue
			}
			if told = append(told, ev); last(ev.Actual) {
				return told
			}
		}
	}
}

// testTrace desires something with the id of a request, and finds that id in the logs of all daemons that
// had to do with it and in all events (bbs reference §19 "tracing", cell reference §24 "Trace id"; unlike Diego, the id is kept as it
// came, dashes included).
func (s *stack) testTrace(t *testing.T) {
	const id = "6f9a3c1e-5b7d-4d2a-9c11-7e0f6f1d2c3b"
	client := s.client(t)
	d, err := client.Desired(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	d.Process, d.Instances, d.Routes, d.Tag = "traced", 1, nil, lrp.ModificationTag{}
	_, revision, err := client.Actuals(t.Context(), bbsclient.ActualFilter{Process: "traced"})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Desire(bbsclient.WithTraceID(t.Context(), id), d); err != nil {
		t.Fatal(err)
	}
	cell := lrp.CellID("")
	for _, ev := range s.toldOf(t, client, revision, "traced", func(a *lrp.Change) bool { return a.After != nil && a.After.State == lrp.Running }) {
		if cell = ev.Actual.After.Cell; ev.TraceID != id {
			t.Errorf("the event of %+v has the request id %q", ev.Actual.After, ev.TraceID)
		}
	}
	s.logsTell(t, id, "bbs", "auctioneer", string(cell))
	s.must(t, "rm", "traced")
	s.containersAre(t, 3)
}

// logsTell waits until the logs of parts tell of a request.
func (s *stack) logsTell(t *testing.T, id string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		name := filepath.Join(s.dir, "log", part+".log")
		eventually(t, name+" tells of the request", func(context.Context) error {
			text, err := os.ReadFile(name)
			if err == nil && !strings.Contains(string(text), id) {
				err = fmt.Errorf("no word of %s", id)
			}
			return err
		})
	}
}
