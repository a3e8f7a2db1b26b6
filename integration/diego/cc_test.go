package diego_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/integration/diego"
	"muster/internal/identity"
)

// controller calls the BBS as Cloud Controller does: it repeats whatever the transport fails with, without
// telling the BBS, and takes some errors for success.
type controller struct{ *diego.Client }

// Cloud Controller's pauses between tries, fifty times shorter, and when it gives up.
const (
	firstPause = 5 * time.Millisecond
	maxPause   = 100 * time.Millisecond
	giveUp     = 60 * time.Second
)

// call calls a route until it answers.
func (c controller) call(ctx context.Context, path string, body diego.Message) (diego.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		res, err := c.Call(ctx, path, body)
		if err == nil {
			return res.Body, res.Err()
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// except is call for which some types of errors are success.
func (c controller) except(ctx context.Context, path string, body diego.Message, success ...int64) (diego.Message, error) {
	res, err := c.call(ctx, path, body)
	var e *diego.Error
	if errors.As(err, &e) && slices.Contains(success, e.Type) {
		return nil, nil
	}
	return res, err
}

func (c controller) get(ctx context.Context, process string) (diego.Message, error) {
	res, err := c.except(ctx, "/v1/desired_lrps/get_by_process_guid.r2", guid(process), diego.ResourceNotFound)
	return res.At(2), err
}

func (c controller) desire(ctx context.Context, record diego.Message) error {
	_, err := c.except(ctx, "/v1/desired_lrp/desire.r2", m().Message(1, record), diego.ResourceExists, diego.ResourceConflict)
	return err
}

// update sends everything that may have changed; of the routes that are there it keeps that of SSH.
func (c controller) update(ctx context.Context, process string, instances int64, annotation, cf string) error {
	record, err := c.get(ctx, process)
	if err != nil {
		return err
	}
	routes := m().Message(1, m().Text(1, "cf-router").Text(2, cf))
	for _, entry := range record.At(15).All(1) {
		if entry.TextAt(1) == "diego-ssh" {
			routes = routes.Message(1, entry)
		}
	}
	_, err = c.except(ctx, "/v1/desired_lrp/update", m().Text(1, process).Message(2, m().Present(1, instances).Message(2, routes).
		Element(3, annotation).EntryMessage(4, "source_id", m().Text(1, "app"))), diego.ResourceConflict)
	return err
}

// start is what pushing, starting and restarting end with: update what is there, or desire it.
func (c controller) start(ctx context.Context, process string, instances int64, annotation string) error {
	record, err := c.get(ctx, process)
	if err != nil {
		return err
	}
	if record != nil {
		return c.update(ctx, process, instances, annotation, routes)
	}
	return c.desire(ctx, pushed(process, instances, annotation))
}

func (c controller) stop(ctx context.Context, process string) error {
	_, err := c.except(ctx, "/v1/desired_lrp/remove", guid(process), diego.ResourceNotFound)
	return err
}

const ssh = `{"container_port":2222,"host_fingerprint":"f6:38","user":"","password":"","private_key":"-----BEGIN"}`

// pushed is an application as Cloud Controller desires it.
func pushed(process string, instances int64, annotation string) diego.Message {
	return m().Text(1, process).Text(2, "cf-apps").Text(3, "preloaded:cflinuxfs4").Number(4, instances).
		Message(6, m().Message(8, m().Message(1, m().Message(1, m().Text(2, "https://blobs/d").Text(3, ".").Text(6, "vcap"))))).
		Message(7, m().Message(9, m().Message(1, run("/tmp/lifecycle/launcher", "app", "", "{}"), run("/tmp/lifecycle/diego-sshd")))).
		Number(10, 1024).Number(11, 1024).Number(12, 10).Numbers(14, 8080, 2222).
		Message(15, m().Message(1, m().Text(1, "cf-router").Text(2, routes), m().Text(1, "diego-ssh").Text(2, ssh))).
		Text(16, "CELL").Text(17, "app").Text(18, "app").Text(19, annotation).Number(27, 60000).Number(29, 1024).
		EntryMessage(35, "source_id", m().Text(1, "app")).Message(37, m().Number(1, -1))
}

// lossy loses every second answer: the call has its effect, and its caller does not know.
type lossy struct {
	next  http.RoundTripper
	calls atomic.Int64
}

var errLost = errors.New("the connection was lost before the answer came")

// RoundTrip implements http.RoundTripper.
func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := l.next.RoundTrip(r)
	if err != nil || l.calls.Add(1)%2 == 0 {
		return res, err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return nil, errLost
}

// runner is a cell that does at once what the records ask for.
type runner struct {
	calls *bbsclient.Client
	made  int
}

// settle claims and starts what waits for a place, and reports the end of what is to be stopped.
func (r *runner) settle(t *testing.T, list []lrp.Actual) {
	t.Helper()
	for _, a := range list {
		switch {
		case a.State == lrp.Unclaimed:
			r.made++
			ev := lrp.Event{Name: lrp.Start, Key: a.Key, Routable: true, NetInfo: lrp.NetInfo{Address: "10.0.0.1"},
				By: lrp.InstanceKey{Instance: lrp.InstanceGUID(strings.Repeat("i", r.made)), Cell: "c1"}}
			must(t, r.calls.Apply(t.Context(), ev))
		case a.Retiring:
			must(t, r.calls.Apply(t.Context(), lrp.Event{Name: lrp.Remove, Key: a.Key, By: a.InstanceKey}))
		}
	}
}

// What Cloud Controller does with an application, call by call, when every second answer is lost: with its
// retries, all of it ends as if none had been.
func TestCloudControllerRunsAnApplication(t *testing.T) {
	t.Parallel()
	i := install(t)
	transport := &lossy{next: i.cc.HTTP.Transport}
	cc := controller{&diego.Client{URL: i.cc.URL, HTTP: &http.Client{Transport: transport}, Trace: "2f3b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"}}
	client, cell := i.ours(identity.ID{Role: identity.Client}), &runner{calls: i.ours(identity.ID{Role: identity.Rep, Cell: "c1"})}
	ctx := t.Context()
	// settled lets the cell do what it is asked for and returns the instances as Cloud Controller sees them.
	settled := func(process string) (guids []string) {
		t.Helper()
		for range 2 { // what is stopped may leave a slot to fill
			list, _, err := client.Actuals(ctx, bbsclient.ActualFilter{Process: lrp.ProcessGUID(process)})
			must(t, err)
			cell.settle(t, list)
		}
		res, err := cc.call(ctx, "/v1/actual_lrps/list", m().Text(3, process))
		must(t, err)
		for _, a := range res.All(2) {
			if a.TextAt(6) != "RUNNING" {
				t.Errorf("%s: instance %d is %s", process, a.NumberAt(1, 2), a.TextAt(6))
			}
			guids = append(guids, a.TextAt(2, 1))
		}
		return guids
	}
	count := func(what, process string, want int) []string {
		t.Helper()
		got := settled(process)
		if len(got) != want {
			t.Errorf("%s: %s has the instances %v, want %d", what, process, got, want)
		}
		return got
	}
	route := func(process, group string) string {
		t.Helper()
		record, err := cc.get(ctx, process)
		must(t, err)
		for _, entry := range record.At(15).All(1) {
			if entry.TextAt(1) == group {
				return entry.TextAt(2)
			}
		}
		return ""
	}

	must(t, cc.start(ctx, "v1", 2, "1.0")) // push
	count("push", "v1", 2)
	must(t, cc.start(ctx, "v1", 2, "1.0")) // start again
	must(t, cc.update(ctx, "v1", 4, "2.0", routes))
	count("scale", "v1", 4)
	must(t, cc.update(ctx, "v1", 1, "3.0", routes))
	left := count("scale down", "v1", 1)

	const mapped = `[{"hostnames":["a.example.com"],"port":8080},{"hostnames":["b.example.com"],"port":8080, "options":{"loadbalancing":"least-connection"}}]`
	must(t, cc.update(ctx, "v1", 1, "4.0", mapped))
	if got := route("v1", "cf-router"); got != mapped {
		t.Errorf("map a route: the routes are %s", got)
	}
	if got := route("v1", "diego-ssh"); got != ssh {
		t.Errorf("map a route: that of SSH is %s", got)
	}
	must(t, cc.update(ctx, "v1", 1, "5.0", `[]`)) // unmap
	if got := route("v1", "cf-router"); got != "[]" {
		t.Errorf("unmap: the routes are %s", got)
	}
	if got := count("routes", "v1", 1); got[0] != left[0] {
		t.Errorf("changed routes restarted the instance %v: %v", left, got)
	}

	// Stop one instance: it comes back as another one.
	_, err := cc.except(ctx, "/v1/actual_lrps/retire", m().Message(1, key("v1", 0)), diego.ResourceNotFound)
	must(t, err)
	if got := count("stop an instance", "v1", 1); got[0] == left[0] {
		t.Errorf("the instance that was stopped is still %v", got)
	}

	must(t, cc.stop(ctx, "v1")) // restart: a new version takes over
	must(t, cc.start(ctx, "v2", 1, "6.0"))
	count("restart", "v1", 0)
	count("restart", "v2", 1)

	must(t, cc.start(ctx, "v3", 1, "7.0")) // a rolling deployment
	must(t, cc.update(ctx, "v2", 0, "7.0", routes))
	count("roll", "v2", 0)
	count("roll", "v3", 1)
	must(t, cc.stop(ctx, "v2"))

	// The comparison with everything, which ends with the domain being fresh.
	infos, err := cc.call(ctx, "/v1/desired_lrp_scheduling_infos/list", m().Text(1, "cf-apps"))
	must(t, err)
	if list := infos.All(2); len(list) != 1 || list[0].TextAt(1, 1) != "v3" || list[0].TextAt(2) != "7.0" {
		t.Errorf("the comparison sees %q", list)
	}
	_, err = cc.call(ctx, "/v1/domains/upsert", m().Text(1, "cf-apps").Number(2, 120))
	must(t, err)
	bulk, err := cc.call(ctx, "/v1/actual_lrps/list_by_process_guids", m().Texts(1, "v1", "v2", "v3"))
	must(t, err)
	if list := bulk.All(2); len(list) != 1 || list[0].TextAt(1, 1) != "v3" {
		t.Errorf("the instances of all versions are %q", list)
	}

	must(t, cc.stop(ctx, "v3"))
	must(t, cc.stop(ctx, "v3")) // and deleted
	count("stop", "v3", 0)
	if transport.calls.Load() < 50 {
		t.Errorf("only %d calls were made", transport.calls.Load())
	}
	// Errors that are the user's reach them.
	var e *diego.Error
	if err := cc.desire(ctx, m().Text(1, "no domain")); !errors.As(err, &e) || e.Type != diego.InvalidRequest {
		t.Errorf("nonsense is answered %v", err)
	}
}

// Tasks and staging: desired once whatever gets lost, told to Cloud Controller in the form that it reads,
// cancelled.
func TestCloudControllerRunsTasks(t *testing.T) {
	t.Parallel()
	i := install(t)
	cc := controller{&diego.Client{URL: i.cc.URL, HTTP: &http.Client{Transport: &lossy{next: i.cc.HTTP.Transport}}}}
	told := make(chan map[string]any, 8)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("a completion is no JSON: %v", err)
		}
		body["path"] = r.URL.Path
		told <- body
	}))
	t.Cleanup(receiver.Close)
	ctx := t.Context()
	desire := func(guid, domain, path string) error {
		definition := m().Text(1, "preloaded:cflinuxfs4").Message(3, run("/bin/echo")).Number(4, 256).Number(5, 256).
			Text(8, "STG").Text(9, "app").Text(11, "/tmp/result.json").Text(12, receiver.URL+path).Text(13, `{"lifecycle":"buildpack"}`)
		_, err := cc.except(ctx, "/v1/tasks/desire.r2", m().Message(1, definition).Text(2, guid).Text(3, domain), diego.ResourceExists)
		return err
	}
	must(t, desire("task", "cf-tasks", "/task"))
	must(t, desire("build", "cf-app-staging", "/build"))
	must(t, desire("unwanted", "cf-tasks", "/unwanted"))
	c1 := i.cell("c1")
	for guid, end := range map[string]diego.Message{"task": m().Flag(3, true).Text(4, "APP: Exited with status 3"), "build": m().Text(5, `{"process_types":{}}`)} {
		res, err := c1.Do(ctx, "/v1/tasks/start", m().Text(1, guid).Text(2, "c1"))
		must(t, err)
		if res.NumberAt(2) != 1 {
			t.Errorf("%s is not to be started", guid)
		}
		_, err = c1.Do(ctx, "/v1/tasks/complete", append(m().Text(1, guid).Text(2, "c1"), end...))
		must(t, err)
	}
	_, err := cc.except(ctx, "/v1/tasks/cancel", guid("unwanted"), diego.ResourceNotFound, diego.InvalidStateTransition)
	must(t, err)

	want := map[string]map[string]any{
		"/task":     {"task_guid": "task", "failed": true, "failure_reason": "APP: Exited with status 3", "result": ""},
		"/build":    {"task_guid": "build", "failed": false, "failure_reason": "", "result": `{"process_types":{}}`},
		"/unwanted": {"task_guid": "unwanted", "failed": true, "failure_reason": "task was cancelled", "result": ""},
	}
	deadline := time.After(patience)
	for len(want) > 0 {
		select {
		case got := <-told:
			path, _ := got["path"].(string)
			expected, known := want[path]
			if !known {
				continue // told again is allowed
			}
			delete(want, path)
			expected["annotation"], expected["path"], expected["created_at"] = `{"lifecycle":"buildpack"}`, path, got["created_at"]
			if n, ok := got["created_at"].(float64); !ok || n <= 0 || !maps.Equal(got, expected) {
				t.Errorf("%s is told %v, want %v", path, got, expected)
			}
		case <-deadline:
			t.Fatalf("not told of %v", slices.Collect(maps.Keys(want)))
		}
	}
	// The comparison, and the second look at a task that it does not find.
	_, err = cc.call(ctx, "/v1/tasks/list.r2", m().Text(1, "cf-tasks"))
	must(t, err)
	res, err := cc.except(ctx, "/v1/tasks/get_by_task_guid.r2", guid("gone"), diego.ResourceNotFound)
	if res != nil || err != nil {
		t.Errorf("a task that is gone: %q (%v)", res, err)
	}
	_, err = cc.except(ctx, "/v1/tasks/cancel", guid("gone"), diego.ResourceNotFound)
	must(t, err)
}
