package bbs

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/task"
	"muster/cells"
	"muster/internal/identity"
)

// tell reports an event of a task that must be accepted.
func tell(t *testing.T, c *bbsclient.Client, ev task.Event) {
	t.Helper()
	_, err := c.ApplyTask(t.Context(), ev)
	must(t, err)
}

// §19 "tasks"
func TestAcceptanceTasks(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	ctx, cell := t.Context(), s.present(t, "c1", time.Minute)
	for _, guid := range []string{"done", "cancelled", "waiting"} {
		must(t, s.client.DesireTask(ctx, echoTask(guid)))
	}
	for _, guid := range []task.GUID{"done", "cancelled"} {
		tell(t, cell, task.Event{Name: task.Start, GUID: guid, Cell: "c1"})
	}
	if _, err := s.client.ApplyTask(ctx, task.Event{Name: task.Resolve, GUID: "done"}); !isTask(err, task.InvalidStateTransition) {
		t.Errorf("resolve a running task: %v, want %s", err, task.InvalidStateTransition)
	}
	tell(t, cell, task.Event{Name: task.Complete, GUID: "done", Cell: "c1", Result: "the result"})
	for _, guid := range []task.GUID{"cancelled", "waiting"} {
		tell(t, s.client, task.Event{Name: task.Cancel, GUID: guid})
	}
	for guid, want := range map[task.GUID]task.Task{
		"done":      {Result: "the result"},
		"cancelled": {Failed: true, FailureReason: "task was cancelled"},
		"waiting":   {Failed: true, FailureReason: "task was cancelled"},
	} {
		got, err := s.client.Task(ctx, guid)
		must(t, err)
		if got.State != task.Completed || got.Result != want.Result || got.Failed != want.Failed || got.FailureReason != want.FailureReason || got.Cell != "" {
			t.Errorf("%s is %+v", guid, got)
		}
		if _, err := s.client.ApplyTask(ctx, task.Event{Name: task.Delete, GUID: guid}); !isTask(err, task.InvalidStateTransition) {
			t.Errorf("delete %s before it is resolved: %v, want %s", guid, err, task.InvalidStateTransition)
		}
		tell(t, s.client, task.Event{Name: task.Resolve, GUID: guid})
		tell(t, s.client, task.Event{Name: task.Delete, GUID: guid})
		if _, err := s.client.Task(ctx, guid); !isTask(err, task.NotFound) {
			t.Errorf("%s after it was deleted: %v", guid, err)
		}
	}
}

// receiver answers callbacks with the statuses it is given, the last one again and again, and passes
// on what it is told.
func receiver(t *testing.T, statuses ...int) (url string, told <-chan map[string]any) {
	t.Helper()
	heard := make(chan map[string]any, 100)
	var n atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m map[string]any
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Errorf("callback: %v", err)
		}
		w.WriteHeader(statuses[min(int(n.Add(1)), len(statuses))-1])
		heard <- m
	}))
	t.Cleanup(server.Close)
	return server.URL, heard
}

// §19 "callback", and the part of §19 "placement error" that is about tasks: the text with which the
// auctioneer refuses becomes the reason of the failure.
func TestAcceptanceCallback(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	cell := s.present(t, "c1", time.Minute)
	const noRoom = "insufficient resources: memory"
	complete := func(t *testing.T, guid task.GUID) {
		tell(t, cell, task.Event{Name: task.Start, GUID: guid, Cell: "c1"})
		tell(t, cell, task.Event{Name: task.Complete, GUID: guid, Cell: "c1", Result: "the result"})
	}
	reject := func(t *testing.T, guid task.GUID) {
		for range task.DefaultPolicy().MaxRejections + 1 {
			tell(t, s.auctioneer, task.Event{Name: task.Reject, GUID: guid, Reason: noRoom})
		}
	}
	for name, tc := range map[string]struct {
		answers []int
		ends    func(*testing.T, task.GUID)
		failed  bool
		reason  string
		result  string
	}{
		"after-2xx":    {[]int{http.StatusOK}, complete, false, "", "the result"},
		"after-4xx":    {[]int{http.StatusNotFound}, complete, false, "", "the result"},
		"after-503":    {[]int{http.StatusServiceUnavailable, http.StatusServiceUnavailable, http.StatusOK}, complete, false, "", "the result"},
		"never-placed": {[]int{http.StatusOK}, reject, true, noRoom, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, told := receiver(t, tc.answers...)
			j := echoTask(name)
			j.Definition.CompletionCallbackURL = url
			must(t, s.client.DesireTask(t.Context(), j))
			tc.ends(t, j.GUID)
			for range tc.answers {
				m := <-told
				if m["task_guid"] != name || m["failed"] != tc.failed || m["failure_reason"] != tc.reason || m["result"] != tc.result || m["annotation"] != "mine" {
					t.Errorf("the receiver is told %v", m)
				}
			}
			s.untilTask(t, name, "gone", func(j *task.Task) bool { return j == nil })
			if len(told) > 0 {
				t.Errorf("the receiver is told once more: %v", <-told)
			}
		})
	}
}

// §19 "task expiry, cell loss": the time that a task may wait passes in the database.
func TestAcceptanceTaskExpiryAndCellLoss(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Second)
	must(t, s.client.DesireTask(t.Context(), echoTask("waits")))
	must(t, s.client.DesireTask(t.Context(), echoTask("runs")))
	s.exec(t, "update tasks set created_at = created_at - interval '1700 seconds' where task_guid = 'waits'")
	s.pass(t)
	if got, err := s.client.Task(t.Context(), "waits"); err != nil || got.State != task.Pending {
		t.Errorf("before its time is over it is %+v (%v)", got, err)
	}
	s.exec(t, "update tasks set created_at = created_at - interval '100 seconds' where task_guid = 'waits'")
	s.pass(t)
	if got := s.untilTask(t, "waits", "over", ended); !got.Failed || got.FailureReason != "not started within time limit" {
		t.Errorf("after its time it is %+v", got)
	}
	s.present(t, "alive", time.Minute)
	cell := s.present(t, "c1", time.Second)
	tell(t, cell, task.Event{Name: task.Start, GUID: "runs", Cell: "c1"})
	if got := s.untilTask(t, "runs", "over", ended); !got.Failed || got.FailureReason != "cell disappeared before completion" {
		t.Errorf("after its cell is gone it is %+v", got)
	}
}

// The part of §19 "late helpers" that is about tasks: one that was desired while there was neither a cell nor an
// auctioneer waits, through passes and a restart of the BBS. The auctioneer that comes finds it, the cell that comes
// runs it to its end, and its owner gets the result.
func TestAcceptanceLateTask(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Second)
	ctx := t.Context()
	must(t, s.client.DesireTask(ctx, echoTask("early")))
	s.pass(t)
	s.stop()
	address, _ := s.replica(s.every(time.Second))
	tasks, _, err := s.world.client(address, identity.Auctioneer).Tasks(ctx, bbsclient.TaskFilter{})
	if err != nil || len(tasks) != 1 || tasks[0].GUID != "early" || tasks[0].State != task.Pending {
		t.Fatalf("an auctioneer that comes late finds %+v (%v)", tasks, err)
	}
	cell := s.world.cell(address, "c1")
	must(t, cell.Heartbeat(ctx, cells.Presence{Cell: "c1", RepURL: "https://c1:1"}, time.Minute))
	if should, err := cell.ApplyTask(ctx, task.Event{Name: task.Start, GUID: "early", Cell: "c1"}); err != nil || !should {
		t.Errorf("started: %v (%v)", should, err)
	}
	tell(t, cell, task.Event{Name: task.Complete, GUID: "early", Cell: "c1", Result: "the result"})
	got, err := s.world.client(address, identity.Client).Task(ctx, "early")
	if err != nil || got.State != task.Completed || got.Failed || got.Result != "the result" {
		t.Errorf("in the end it is %+v (%v)", got, err)
	}
}
