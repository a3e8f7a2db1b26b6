package world

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"muster/bbs/lrp"
	"muster/bbs/task"
)

// desireTask wants a task.
func (a *acceptance) desireTask(t *testing.T, name string, action *lrp.Action, change func(*task.Definition)) task.GUID {
	t.Helper()
	d := task.Definition{RootFS: "oci-archive://" + a.image, Action: action, MemoryMB: 64, DiskMB: 64, LogSource: "TASK", LogGUID: name}
	if change != nil {
		change(&d)
	}
	guid := task.GUID(process(t, name))
	if err := a.client.DesireTask(t.Context(), task.Task{GUID: guid, Domain: "cells", Definition: d}); err != nil {
		t.Fatal(err)
	}
	return guid
}

// in waits until a task is in a state.
func (a *acceptance) in(t *testing.T, guid task.GUID, state task.State) (found task.Task) {
	t.Helper()
	eventually(t, fmt.Sprintf("task %s is %s", guid, state), func(ctx context.Context) (err error) {
		if found, err = a.client.Task(ctx, guid); err == nil && found.State != state {
			err = fmt.Errorf("it is %s: %q", found.State, found.RejectionReason)
		}
		return err
	})
	return found
}

// §24 "Tasks": results, reasons, environment, directory, user.
func (a *acceptance) testTasks(t *testing.T) {
	result := func(d *task.Definition) { d.ResultFile = "/tmp/result" }
	root := func(script string) *lrp.Action {
		action := sh(script)
		action.Run.User = "root"
		return action
	}
	few := uint64(16)
	files := sh("cd /tmp; tee a b c d e f g h i j k l m n o p </dev/null 2>&1 >/dev/null | grep -o 'Too many open files' | head -n 1 >/tmp/result")
	files.Run.Nofile = &few
	elsewhere := sh("pwd >/tmp/result")
	elsewhere.Run.Dir = "/tmp/new"
	environment := sh(`echo "$A $B" >/tmp/result`)
	environment.Run.Env = []lrp.EnvVar{{Name: "B", Value: "action"}}
	for _, test := range []struct {
		name           string
		action         *lrp.Action
		change         func(*task.Definition)
		result, reason string
	}{
		{"result", sh("echo -n 42 >/tmp/result"), result, "42", ""},
		{"fails", sh("echo -n 42 >/tmp/result; exit 5"), result, "", "TASK: Exited with status 5"},
		{"memory", root("dd if=/dev/zero of=/dev/null bs=300M count=1"), nil, "", "(out of memory)"},
		{"timeout", &lrp.Action{Timeout: &lrp.TimeoutAction{Action: sh("sleep 100"), TimeoutMS: 500}}, nil, "", "exceeded 500ms timeout"},
		{"files", files, result, "Too many open files\n", ""},
		{"dir", elsewhere, result, "/tmp/new\n", ""},
		{"user", sh("id -u >/tmp/result"), result, "1000\n", ""},
		{"imageuser", &lrp.Action{Run: &lrp.RunAction{Path: "sh", Args: []string{"-c", "id -un >/tmp/result"}, User: "app"}}, result, "app\n", ""},
		{"env", environment, func(d *task.Definition) {
			d.ResultFile, d.Env = "/tmp/result", []lrp.EnvVar{{Name: "A", Value: "task"}, {Name: "B", Value: "task"}}
		}, "task action\n", ""},
		{"noresult", sh("true"), result, "", "failed to fetch result"},
	} {
		guid := a.desireTask(t, test.name, test.action, test.change)
		defer func() {
			got := a.in(t, guid, task.Completed)
			if got.Failed != (test.reason != "") || !strings.Contains(got.FailureReason, test.reason) || got.Result != test.result {
				t.Errorf("%s: failed %v, %q, result %q; want %q and result %q", test.name, got.Failed, got.FailureReason, got.Result, test.reason, test.result)
			}
		}()
	}
}

// §24 "Tasks": one that is cancelled ends at once, also in the middle of a download.
func (a *acceptance) testCancel(t *testing.T) {
	asked := make(chan struct{}, 16)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	download := &lrp.Action{Download: &lrp.DownloadAction{Artifact: "slow", From: server.URL, To: "/tmp", User: "app"}}
	for name, action := range map[string]*lrp.Action{"sleeps": sh("echo sleeping; sleep 1000"), "downloads": download} {
		guid := a.desireTask(t, name, action, nil)
		a.in(t, guid, task.Running)
		if action == download {
			<-asked
		}
		if _, err := a.client.ApplyTask(t.Context(), task.Event{Name: task.Cancel, GUID: guid}); err != nil {
			t.Fatal(err)
		}
		if got := a.in(t, guid, task.Completed); !got.Failed || got.FailureReason != "task was cancelled" {
			t.Errorf("%s: failed %v, %q", name, got.Failed, got.FailureReason)
		}
	}
}
