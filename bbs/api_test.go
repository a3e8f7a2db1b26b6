package bbs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/identity"
	"muster/internal/pgtest"
	bbsv1 "muster/proto/bbs/v1"
)

// raw returns a client that speaks in messages, for what bbsclient hides.
func (w *world) raw(address string, id identity.ID) bbsv1.BBSServiceClient {
	return bbsv1.NewBBSServiceClient(w.dial(address, id))
}

func echoTask(guid string) task.Task {
	return task.Task{GUID: task.GUID(guid), Domain: "d", Definition: task.Definition{
		RootFS: "docker://r/i#t", MemoryMB: 64, Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/echo", User: "vcap"}},
		ImageUsername: "u", ImagePassword: "secret", ResultFile: "/out", Annotation: "mine",
	}}
}

// Whoever lists page by page and then watches from the revision of the list knows everything, however
// much changes between the pages.
func TestPagesAndWatchLoseNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client, raw := w.client(address, identity.Client), w.raw(address, identity.ID{Role: identity.Client})
	var all []lrp.Desired
	for i := range 25 {
		all = append(all, app(fmt.Sprintf("p%02d", i), 2))
	}
	for i, err := range client.DesireAll(t.Context(), all) {
		if err != nil {
			t.Fatalf("desire process %d: %v", i, err)
		}
	}
	known := map[string]bool{}
	r := &bbsv1.DesiredLRPsRequest{Domain: "d", PageSize: 10}
	var revision uint64
	for page := 0; ; page++ {
		res, err := raw.DesiredLRPs(t.Context(), r)
		must(t, err)
		if page == 0 {
			revision = res.GetRevision()
		}
		if res.GetRevision() != revision || len(res.GetDesiredLrps()) > 10 {
			t.Errorf("page %d: revision %d with %d records, want %d with 10 at most", page, res.GetRevision(), len(res.GetDesiredLrps()), revision)
		}
		for _, d := range res.GetDesiredLrps() {
			known[d.GetProcessGuid()] = true
		}
		// What was listed goes, and something comes where the list has been already.
		must(t, client.RemoveDesired(t.Context(), lrp.ProcessGUID(fmt.Sprintf("p%02d", page))))
		must(t, client.Desire(t.Context(), app(fmt.Sprintf("a%d", page), 0)))
		if r.PageToken = res.GetNextPageToken(); r.PageToken == "" {
			break
		}
	}
	_, newest, err := client.DesiredList(t.Context(), bbsclient.DesiredFilter{})
	must(t, err)
	watch, err := client.Watch(t.Context(), revision, bbsclient.WatchFilter{})
	must(t, err)
	for at := revision; at < newest; {
		events, upTo, err := watch.Recv()
		must(t, err)
		at = upTo
		for _, ev := range events {
			switch {
			case ev.Desired == nil:
			case ev.Desired.After == nil:
				delete(known, string(ev.Desired.Before.Process))
			default:
				known[string(ev.Desired.After.Process)] = true
			}
		}
	}
	list, _, err := client.DesiredList(t.Context(), bbsclient.DesiredFilter{})
	must(t, err)
	for _, d := range list {
		if !known[string(d.Process)] {
			t.Errorf("%s is not known", d.Process)
		}
		delete(known, string(d.Process))
	}
	if len(known) != 0 {
		t.Errorf("%v are known and not there", known)
	}
}

// Pages of instances go on in the middle of a process, and other lists have them, too.
func TestPagesOfEveryList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client, raw := w.client(address, identity.Client), w.raw(address, identity.ID{Role: identity.Client})
	for i := range 3 {
		must(t, client.Desire(t.Context(), app(fmt.Sprint("p", i), 3)))
		must(t, client.DesireTask(t.Context(), echoTask(fmt.Sprint("t", i))))
		must(t, client.UpsertDomain(t.Context(), lrp.Domain(fmt.Sprint("d", i)), 0))
	}
	for name, tc := range map[string]struct {
		next func(token string) ([]string, string, error)
		want int
	}{
		"actuals": {func(token string) (keys []string, next string, err error) {
			res, err := raw.ActualLRPs(t.Context(), &bbsv1.ActualLRPsRequest{PageSize: 2, PageToken: token})
			for _, a := range res.GetActualLrps() {
				keys = append(keys, fmt.Sprint(a.GetActualLrpKey().GetProcessGuid(), "/", a.GetActualLrpKey().GetIndex()))
			}
			return keys, res.GetNextPageToken(), err
		}, 9},
		"actuals of processes": {func(token string) (keys []string, next string, err error) {
			res, err := raw.ActualLRPsByProcessGuids(t.Context(), &bbsv1.ActualLRPsByProcessGuidsRequest{
				ProcessGuids: []string{"p0", "p2", "absent"}, PageSize: 2, PageToken: token,
			})
			for _, a := range res.GetActualLrps() {
				keys = append(keys, fmt.Sprint(a.GetActualLrpKey().GetProcessGuid(), "/", a.GetActualLrpKey().GetIndex()))
			}
			return keys, res.GetNextPageToken(), err
		}, 6},
		"tasks": {func(token string) (keys []string, next string, err error) {
			res, err := raw.Tasks(t.Context(), &bbsv1.TasksRequest{PageSize: 2, PageToken: token})
			for _, k := range res.GetTasks() {
				keys = append(keys, k.GetTaskGuid())
			}
			return keys, res.GetNextPageToken(), err
		}, 3},
		"domains": {func(token string) ([]string, string, error) {
			res, err := raw.Domains(t.Context(), &bbsv1.DomainsRequest{PageSize: 2, PageToken: token})
			return res.GetDomains(), res.GetNextPageToken(), err
		}, 3},
		"scheduling": {func(token string) (keys []string, next string, err error) {
			res, err := raw.DesiredLRPSchedulingInfos(t.Context(), &bbsv1.DesiredLRPsRequest{PageSize: 2, PageToken: token})
			for _, d := range res.GetDesiredLrpSchedulingInfos() {
				keys = append(keys, d.GetDesiredLrpKey().GetProcessGuid())
			}
			return keys, res.GetNextPageToken(), err
		}, 3},
	} {
		var got []string
		for token, first := "", true; first || token != ""; first = false {
			keys, next, err := tc.next(token)
			must(t, err)
			if len(keys) > 2 {
				t.Errorf("%s: a page of 2 has %d records", name, len(keys))
			}
			got, token = append(got, keys...), next
		}
		if len(got) != tc.want || !slices.IsSorted(got) || len(slices.Compact(got)) != tc.want {
			t.Errorf("%s: %v in pages, want %d in order", name, got, tc.want)
		}
	}
	// A token is good for its own list only.
	res, err := raw.Tasks(t.Context(), &bbsv1.TasksRequest{PageSize: 1})
	must(t, err)
	_, err = raw.Tasks(t.Context(), &bbsv1.TasksRequest{PageSize: 1, Domain: "d", PageToken: res.GetNextPageToken()})
	if v := fieldViolations(err); status.Code(err) != codes.InvalidArgument || !slices.Equal(v, []string{"page_token"}) {
		t.Errorf("the token of another list: %v with %v", err, v)
	}
}

// An _ in a prefix is a letter, not a wildcard (bbs reference, §13).
func TestPrefixIsNoPattern(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client := w.client(address, identity.Client)
	for _, p := range []string{"a_b-1", "axb-1", "a_b", "a_"} {
		must(t, client.Desire(t.Context(), app(p, 0)))
	}
	list, _, err := client.DesiredList(t.Context(), bbsclient.DesiredFilter{Prefixes: []string{"a_b"}})
	must(t, err)
	var got []string
	for _, d := range list {
		got = append(got, string(d.Process))
	}
	if !slices.Equal(got, []string{"a_b", "a_b-1"}) {
		t.Errorf("processes that begin with a_b: %v", got)
	}
}

// A creating call with a request id can be repeated, also on another replica; the id is not good for
// anything else.
func TestRepeatedCreation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	other, _ := w.replica(w.config())
	client, again := w.client(address, identity.Client), w.client(other, identity.Client)
	id := bbsclient.RequestID("1f0c")
	must(t, client.Desire(t.Context(), app("p", 1), id))
	must(t, again.Desire(t.Context(), app("p", 1), id))
	var refused *lrp.Refusal
	if err := again.Desire(t.Context(), app("p", 1)); !errors.As(err, &refused) || refused.Why != lrp.Exists {
		t.Errorf("without the id: %v, want %s", err, lrp.Exists)
	}
	var inv *lrp.Invalid
	if err := again.Desire(t.Context(), app("q", 1), id); !errors.As(err, &inv) || inv.Fields[0].Field != "request_id" {
		t.Errorf("the id with another request: %v, want an error that names request_id", err)
	}
	if err := client.Desire(t.Context(), app("q", 1), bbsclient.RequestID(strings.Repeat("x", 256))); !errors.As(err, &inv) || inv.Fields[0].Field != "request_id" {
		t.Errorf("an id that is too long: %v, want an error that names request_id", err)
	}
	task1 := bbsclient.RequestID("task")
	must(t, client.DesireTask(t.Context(), echoTask("t"), task1))
	must(t, again.DesireTask(t.Context(), echoTask("t"), task1))
	// A bulk call creates what is left of it.
	must(t, client.Desire(t.Context(), app("taken", 1)))
	batch := []lrp.Desired{app("b1", 1), app("taken", 1), {Process: "a b"}, app("b2", 1)}
	for round, c := range []*bbsclient.Client{client, again} {
		answers := c.DesireAll(t.Context(), batch, bbsclient.RequestID("bulk"))
		if len(answers) != 4 || answers[0] != nil || answers[3] != nil || !errors.As(answers[1], &refused) || !errors.As(answers[2], &inv) {
			t.Errorf("round %d: %v, want the second taken, the third invalid, and the others created", round, answers)
		}
	}
}

// A call that is only checked gets the answer of the real one, and nothing happens.
func TestValidateOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client := w.client(address, identity.Client)
	must(t, client.Desire(t.Context(), app("p", 1)))
	_, before, err := client.Actuals(t.Context(), bbsclient.ActualFilter{})
	must(t, err)
	dry, three, none := bbsclient.ValidateOnly(), int32(3), int32(-1)
	must(t, client.Desire(t.Context(), app("q", 1), dry))
	must(t, client.Update(t.Context(), "p", lrp.Update{Instances: &three}, dry))
	must(t, client.DesireTask(t.Context(), echoTask("t"), dry))
	var refused *lrp.Refusal
	var inv *lrp.Invalid
	if err := client.Desire(t.Context(), app("p", 1), dry); !errors.As(err, &refused) || refused.Why != lrp.Exists {
		t.Errorf("desire what is there: %v, want %s", err, lrp.Exists)
	}
	if err := client.Update(t.Context(), "absent", lrp.Update{Instances: &three}, dry); !errors.As(err, &refused) || refused.Why != lrp.NotFound {
		t.Errorf("update what is not there: %v, want %s", err, lrp.NotFound)
	}
	if err := client.Update(t.Context(), "p", lrp.Update{Instances: &none}, dry); !errors.As(err, &inv) {
		t.Errorf("a bad update: %v, want an error that names the field", err)
	}
	for i, err := range client.DesireAll(t.Context(), []lrp.Desired{app("q", 1), app("r", 1)}, dry) {
		if err != nil {
			t.Errorf("record %d of a batch: %v", i, err)
		}
	}
	if list, after, err := client.Actuals(t.Context(), bbsclient.ActualFilter{}); err != nil || after != before || len(list) != 1 {
		t.Errorf("revision %d with %d records (%v) after calls without effect, want %d with 1", after, len(list), err, before)
	}
}

// evacuating makes an event of an evacuation.
func evacuating(name lrp.EventName, process string, by lrp.InstanceKey) lrp.Event {
	ev := start(process, 0, by)
	ev.Name = name
	if name == lrp.EvacuateRunning {
		return ev
	}
	return lrp.Event{Name: name, Key: ev.Key, By: by, Reason: "r"}
}

// A drained cell hands its instance over: it keeps the container until the replacement runs (bbs
// reference, §5).
func TestEvacuationThroughTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, stop := w.replica(w.config())
	client, c1, c2 := w.client(address, identity.Client), w.cell(address, "c1"), w.cell(address, "c2")
	ctx := t.Context()
	must(t, client.Desire(ctx, app("p", 1)))
	old, fresh := lrp.InstanceKey{Instance: "i1", Cell: "c1"}, lrp.InstanceKey{Instance: "i2", Cell: "c2"}
	must(t, c1.Apply(ctx, claim("p", 0, old)))
	must(t, c1.Apply(ctx, start("p", 0, old)))
	evacuate := func(c *bbsclient.Client, name lrp.EventName, by lrp.InstanceKey, want bool) error {
		t.Helper()
		keep, err := c.Evacuate(ctx, evacuating(name, "p", by))
		if keep != want {
			t.Errorf("%s by %v: keep %v (%v), want %v", name, by, keep, err, want)
		}
		return err
	}
	if err := evacuate(c2, lrp.EvacuateRunning, old, true); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a cell evacuates another one's instance: %v", err)
	}
	must(t, evacuate(c1, lrp.EvacuateRunning, old, true))
	list, _, err := client.Actuals(ctx, bbsclient.ActualFilter{})
	must(t, err)
	if len(list) != 2 || list[0].Presence+list[1].Presence != lrp.Evacuating {
		t.Errorf("records during the evacuation: %+v, want an ordinary and an evacuating one", list)
	}
	must(t, evacuate(c1, lrp.EvacuateRunning, old, true)) // it does not run elsewhere yet
	must(t, c2.Apply(ctx, claim("p", 0, fresh)))
	must(t, c2.Apply(ctx, start("p", 0, fresh)))
	must(t, evacuate(c1, lrp.EvacuateRunning, old, false))

	// What the rules decide about a container holds with an error, too.
	var refused *lrp.Refusal
	for _, name := range []lrp.EventName{lrp.EvacuateClaimed, lrp.EvacuateStopped, lrp.EvacuateCrashed} {
		if err := evacuate(c1, name, old, false); !errors.As(err, &refused) || refused.Why != lrp.NotFound {
			t.Errorf("%s of what is gone: %v, want %s", name, err, lrp.NotFound)
		}
	}
	if err := c1.Apply(ctx, evacuating(lrp.RemoveEvacuating, "p", old)); !errors.As(err, &refused) || refused.Why != lrp.NotFound {
		t.Errorf("give up what is gone: %v, want %s", err, lrp.NotFound)
	}
	// When nobody answers, what may still be of use is kept.
	stop()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	for name, want := range map[lrp.EventName]bool{
		lrp.EvacuateRunning: true, lrp.EvacuateClaimed: true, lrp.EvacuateStopped: false, lrp.EvacuateCrashed: false,
	} {
		if keep, err := c2.Evacuate(short, evacuating(name, "p", fresh)); err == nil || keep != want {
			t.Errorf("%s without a BBS: keep %v (%v), want %v and an error", name, keep, err, want)
		}
	}
}

// A task runs once, its owner follows it, and everybody sees of it what is theirs.
func TestTaskThroughTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client, c1, c2 := w.client(address, identity.Client), w.cell(address, "c1"), w.cell(address, "c2")
	auctioneer := w.client(address, identity.Auctioneer)
	ctx := bbsclient.WithTraceID(t.Context(), "req-7")
	must(t, client.Desire(ctx, app("p", 0)))
	must(t, client.DesireTask(ctx, echoTask("t")))
	must(t, client.DesireTask(ctx, echoTask("other")))
	_, revision, err := client.Tasks(ctx, bbsclient.TaskFilter{Domain: "d"})
	must(t, err)

	seen := func(c *bbsclient.Client) task.Definition {
		t.Helper()
		got, err := c.Task(ctx, "t")
		must(t, err)
		return got.Definition
	}
	if d := seen(c1); d.ImagePassword != "secret" || d.Action == nil {
		t.Errorf("a cell sees %+v of a pending task, want all of it", d)
	}
	if d := seen(client); d.ImagePassword != "" || d.Action == nil {
		t.Errorf("a client sees %+v, want all but the password", d)
	}
	if d := seen(auctioneer); d.ImagePassword != "" || d.Action != nil || d.MemoryMB != 64 {
		t.Errorf("the auctioneer sees %+v, want what it places by", d)
	}

	apply := func(c *bbsclient.Client, ev task.Event) (bool, error) {
		ev.GUID = "t"
		return c.ApplyTask(ctx, ev)
	}
	_, err = apply(auctioneer, task.Event{Name: task.Reject, Reason: "no room"})
	must(t, err)
	_, err = auctioneer.ApplyTask(ctx, task.Event{Name: task.Reject, GUID: "other", Reason: "no room"}) // the watch below does not tell
	must(t, err)
	if should, err := apply(c1, task.Event{Name: task.Start, Cell: "c1"}); err != nil || !should {
		t.Errorf("the first start: %v (%v), want yes", should, err)
	}
	if should, err := apply(c1, task.Event{Name: task.Start, Cell: "c1"}); err != nil || should {
		t.Errorf("the same again: %v (%v), want no", should, err)
	}
	var refused *task.Refusal
	if _, err := apply(c2, task.Event{Name: task.Start, Cell: "c2"}); !errors.As(err, &refused) || refused.Why != task.InvalidStateTransition || refused.Held != "c1" {
		t.Errorf("a start by another cell: %v, want %s and who runs it", err, task.InvalidStateTransition)
	}
	if _, err := apply(c2, task.Event{Name: task.Complete, Cell: "c2"}); !errors.As(err, &refused) || refused.Why != task.RunningOnDifferentCell {
		t.Errorf("a completion by another cell: %v, want %s", err, task.RunningOnDifferentCell)
	}
	for name, err := range map[string]error{
		"read a task of another cell":         second(c2.Task(ctx, "t")),
		"read a task that is not there":       second(c2.Task(ctx, "absent")),
		"complete for another":                second(apply(c2, task.Event{Name: task.Complete, Cell: "c1"})),
		"cancel":                              second(apply(c1, task.Event{Name: task.Cancel})),
		"a client starts":                     second(apply(client, task.Event{Name: task.Start, Cell: "c1"})),
		"desire as a cell":                    c1.DesireTask(ctx, echoTask("x")),
		"list everything as a cell":           third(c1.Tasks(ctx, bbsclient.TaskFilter{})),
		"list the tasks of another as a cell": third(c1.Tasks(ctx, bbsclient.TaskFilter{Cell: "c2"})),
	} {
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want %v", name, err, codes.PermissionDenied)
		}
	}
	if list, _, err := c1.Tasks(ctx, bbsclient.TaskFilter{Cell: "c1"}); err != nil || len(list) != 1 || list[0].GUID != "t" {
		t.Errorf("the tasks of the cell: %v (%v), want its one", list, err)
	}
	_, err = apply(c1, task.Event{Name: task.Complete, Cell: "c1", Result: "hello"})
	must(t, err)
	done, err := client.Task(ctx, "t")
	must(t, err)
	if done.State != task.Completed || done.Result != "hello" || done.RejectionCount != 1 || done.RejectionReason != "no room" {
		t.Errorf("the task has become %+v", done)
	}
	for _, name := range []task.EventName{task.Resolve, task.Delete} {
		_, err := apply(client, task.Event{Name: name})
		must(t, err)
	}
	if _, err := client.Task(ctx, "t"); !errors.As(err, &refused) || refused.Why != task.NotFound {
		t.Errorf("after it was deleted: %v, want %s", err, task.NotFound)
	}
	// Only this task, in order, as summaries, with the id of the calls.
	watch, err := client.Watch(ctx, revision, bbsclient.WatchFilter{Task: "t"})
	must(t, err)
	var states []string
	for gone := false; !gone; {
		events, _, err := watch.Recv()
		must(t, err)
		for _, ev := range events {
			if ev.Task == nil || ev.Task.Before.GUID != "t" || ev.TraceID != "req-7" || ev.Task.Before.Definition.Action != nil {
				t.Fatalf("the watch of the task tells %+v", ev)
			}
			if gone = ev.Task.After == nil; gone {
				states = append(states, "gone")
			} else {
				states = append(states, ev.Task.After.State.String())
			}
		}
	}
	if want := "Pending Running Completed Resolving gone"; strings.Join(states, " ") != want {
		t.Errorf("states %v, want %s", states, want)
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }

// Errors say what to do about them, in the messages of google.rpc, and which request they answer.
func TestErrorDetails(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	w := newWorld(t, pgtest.DatabaseOn(t, c, nil))
	address, _ := w.replica(w.config())
	raw := w.raw(address, identity.ID{Role: identity.Client})
	ctx := metadata.AppendToOutgoingContext(t.Context(), bbsclient.TraceIDKey, "req-9")
	var header metadata.MD
	_, err := raw.TaskByGuid(ctx, &bbsv1.TaskByGuidRequest{TaskGuid: "absent"}, grpc.Header(&header))
	if status.Code(err) != codes.NotFound {
		t.Errorf("a task that is not there: %v", err)
	}
	if got := header.Get(bbsclient.TraceIDKey); !slices.Equal(got, []string{"req-9"}) {
		t.Errorf("the header of the answer has the request id %v, want req-9", got)
	}
	resource, request := detail[*errdetails.ResourceInfo](err), detail[*errdetails.RequestInfo](err)
	if resource.GetResourceType() != "bbs.v1.Task" || resource.GetResourceName() != "absent" || request.GetRequestId() != "req-9" {
		t.Errorf("details: %v, %v; want the task and the request", resource, request)
	}
	if _, err := raw.Ping(ctx, &bbsv1.PingRequest{}); err != nil {
		t.Errorf("ping: %v", err)
	}
	for field, err := range map[string]error{
		"task_definition": second(raw.DesireTask(ctx, &bbsv1.DesireTaskRequest{TaskGuid: "t", Domain: "d"})),
		"desired_lrps":    second(raw.BatchDesireLRPs(ctx, &bbsv1.BatchDesireLRPsRequest{})),
		"process_guids":   second(raw.ActualLRPsByProcessGuids(ctx, &bbsv1.ActualLRPsByProcessGuidsRequest{})),
		"app_guids[0]":    second(raw.DesiredLRPs(ctx, &bbsv1.DesiredLRPsRequest{AppGuids: []string{""}})),
		"page_size":       second(raw.Cells(ctx, &bbsv1.CellsRequest{PageSize: -1})),
		"page_token":      second(raw.ActualLRPs(ctx, &bbsv1.ActualLRPsRequest{PageToken: "?"})),
		"task_guid":       second(raw.CancelTask(ctx, &bbsv1.TaskGuidRequest{TaskGuid: "a\x00b"})),
	} {
		if got := fieldViolations(err); status.Code(err) != codes.InvalidArgument || len(got) == 0 || got[0] != field {
			t.Errorf("%s: %v with violations of %v", field, err, got)
		}
	}
	must(t, c.Stop(t.Context()))
	_, err = raw.Domains(ctx, &bbsv1.DomainsRequest{})
	if delay := detail[*errdetails.RetryInfo](err); status.Code(err) != codes.Unavailable || delay.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("without a database: %v that says to try again after %v", err, delay)
	}
}

// detail returns the first detail of a type of a status; nil if there is none.
func detail[D any](err error) (found D) {
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(D); ok {
			return d
		}
	}
	return found
}

// bytesOnly sends what is given to it as it is.
type bytesOnly struct{}

func (bytesOnly) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesOnly) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = b
	return nil
}
func (bytesOnly) Name() string { return "proto" }

// Bytes that are no request are the mistake of whoever sent them, and the error says where it is.
func TestUnreadableRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	conn := w.dial(address, identity.ID{Role: identity.Client})
	cancel, desire := bbsv1.BBSService_CancelTask_FullMethodName, bbsv1.BBSService_DesireTask_FullMethodName
	for name, tc := range map[string]struct {
		method string
		bytes  []byte
		field  string
	}{
		"a GUID that is not UTF-8": {cancel, []byte{0x0a, 1, 0xff}, "task_guid"},
		"a length past the end":    {cancel, []byte{0x0a, 100}, "request"},
		"no message":               {cancel, []byte{0xff}, "request"},
		"an argument of an action": {desire, []byte{0x0a, 8, 0x1a, 6, 0x1a, 4, 0x12, 2, 0xc3, 0x28}, "task_definition.action.run_action.args"},
	} {
		var answer []byte
		err := conn.Invoke(t.Context(), tc.method, &tc.bytes, &answer, grpc.ForceCodec(bytesOnly{}))
		if got := fieldViolations(err); status.Code(err) != codes.InvalidArgument || !slices.Equal(got, []string{tc.field}) {
			t.Errorf("%s: %v with violations of %v, want %s", name, err, got, tc.field)
		}
	}
	// It is none either when it is too large, and the caller is told so before it is read.
	huge := make([]byte, 65<<20)
	var answer []byte
	err := conn.Invoke(t.Context(), bbsv1.BBSService_CancelTask_FullMethodName, &huge, &answer,
		grpc.ForceCodec(bytesOnly{}), grpc.MaxCallSendMsgSize(len(huge)))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") || bbsclient.IsUnavailable(err) {
		t.Errorf("a message of 65 MiB: %v, want %v that says so, and that it is of no use to try again", err, codes.ResourceExhausted)
	}
}

// More records than one page, or one bulk call, holds are no concern of whoever uses bbsclient.
func TestListsOfManyPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client := w.client(address, identity.Client)
	const n = 1050
	var all []lrp.Desired
	for i := range n {
		all = append(all, app(fmt.Sprintf("p%04d", i), 0))
	}
	for i, err := range client.DesireAll(t.Context(), all) {
		if err != nil {
			t.Fatalf("desire process %d: %v", i, err)
		}
	}
	whole, revision, err := client.DesiredList(t.Context(), bbsclient.DesiredFilter{})
	if err != nil || len(whole) != n || revision != n {
		t.Errorf("%d records at revision %d (%v), want %d", len(whole), revision, err, n)
	}
	infos, _, err := client.SchedulingInfos(t.Context(), bbsclient.DesiredFilter{})
	if err != nil || len(infos) != n {
		t.Errorf("%d scheduling infos (%v), want %d", len(infos), err, n)
	}
	for i, info := range infos {
		if info.Process != all[i].Process {
			t.Fatalf("record %d is %s, want %s", i, info.Process, all[i].Process)
		}
	}
}
