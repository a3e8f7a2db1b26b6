package bbs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/lease"
	"muster/internal/pgcluster"
	"muster/internal/pgtest"
	bbsv1 "muster/proto/bbs/v1"
)

// revisions watches from a revision until another one, and returns what came.
func revisions(t *testing.T, c *bbsclient.Client, after, until uint64) []uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w, err := c.Watch(ctx, after, bbsclient.WatchFilter{})
	must(t, err)
	var got []uint64
	for {
		events, revision, err := w.Recv()
		must(t, err)
		for _, ev := range events {
			got = append(got, ev.Revision)
		}
		if revision >= until {
			return got
		}
	}
}

// A watch goes on after its replica ended, on another one and on its successor, at the revision where
// it stood: nothing is lost and nothing comes twice. Whoever follows the address need not list again.
func TestWatchResumesElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	cfg := w.config()
	address, stop := w.replica(cfg)
	other, _ := w.replica(w.config())
	elsewhere := w.client(other, identity.Client)
	f := w.follow(w.client(address, identity.Client), bbsclient.FollowOptions{})
	f.until(t, "first list", func(f *follower) bool { return f.lists == 1 })
	must(t, elsewhere.Desire(t.Context(), app("p1", 3)))
	watch, err := w.client(address, identity.Client).Watch(t.Context(), 0, bbsclient.WatchFilter{})
	must(t, err)
	seen := uint64(0)
	for seen < 2 {
		_, seen, err = watch.Recv()
		must(t, err)
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 2*time.Second { // what calls in hand get, of which there are none
		t.Errorf("the replica took %v to stop: watches held it up", took)
	}
	for err == nil {
		var revision uint64
		if _, revision, err = watch.Recv(); err == nil {
			seen = revision
		}
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the watch of a replica that stops ends with %v, want %v", err, codes.Unavailable)
	}
	must(t, elsewhere.Desire(t.Context(), app("p2", 3)))
	again := w.config()
	again.ListenAddress = address
	w.replica(again)
	const last = 8 // two processes with three slots each
	for name, at := range map[string]string{"another replica": other, "its successor": address} {
		got := revisions(t, w.client(at, identity.Client), seen, last)
		if len(got) != int(last-seen) || got[0] != seen+1 {
			t.Errorf("resumed on %s after revision %d: %v, want all up to %d", name, seen, got, last)
		}
	}
	f.until(t, "all changes", func(f *follower) bool { return len(f.events) >= last })
	lists, events := f.seen()
	for i, ev := range events {
		if ev.Revision != uint64(i)+1 {
			t.Errorf("change %d has revision %d: lost or repeated", i, ev.Revision)
		}
	}
	if lists != 1 || len(events) != last {
		t.Errorf("%d lists and %d changes, want 1 and %d", lists, len(events), last)
	}
}

// serving waits until a replica says that it serves, or that it does not.
func (w *world) serving(t *testing.T, address string, want healthv1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	h, err := healthv1.NewHealthClient(w.dial(address, identity.ID{Role: identity.Client})).Watch(ctx, &healthv1.HealthCheckRequest{})
	must(t, err)
	for {
		res, err := h.Recv()
		must(t, err)
		if res.Status == want {
			return
		}
	}
}

// While PostgreSQL is away every call says so and nothing else, and health tells. When it is back all
// is well without a restart: what was not acknowledged is there as a whole or not at all, and watches
// that were open go on.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	w := newWorld(t, pgtest.DatabaseOn(t, c, nil))
	address, _ := w.replica(w.config())
	client, rep := w.client(address, identity.Client), w.cell(address, "c1")
	f := w.follow(w.client(address, identity.Auctioneer), bbsclient.FollowOptions{})
	f.until(t, "first list", func(f *follower) bool { return f.lists == 1 })
	ctx := t.Context()
	must(t, client.Desire(ctx, app("before", 2)))
	by := lrp.InstanceKey{Instance: "i", Cell: "c1"}
	must(t, c.Stop(ctx))

	for name, call := range map[string]func() error{
		"desire":        func() error { return client.Desire(ctx, app("during", 2)) },
		"desire again":  func() error { return client.Desire(ctx, app("before", 2)) },
		"update":        func() error { return client.Update(ctx, "absent", lrp.Update{}) },
		"remove":        func() error { return client.RemoveDesired(ctx, "absent") },
		"claim":         func() error { return rep.Apply(ctx, claim("before", 0, by)) },
		"heartbeat":     func() error { return rep.Heartbeat(ctx, cells.Presence{Cell: "c1"}, time.Second) },
		"declare fresh": func() error { return client.UpsertDomain(ctx, "d", 0) },
		"one":           func() error { _, err := client.Desired(ctx, "absent"); return err },
		"list desired":  func() error { _, _, err := client.DesiredList(ctx, bbsclient.DesiredFilter{}); return err },
		"list actual":   func() error { _, _, err := client.Actuals(ctx, bbsclient.ActualFilter{}); return err },
		"list cells":    func() error { _, _, err := client.Cells(ctx); return err },
		"list domains":  func() error { _, _, err := client.Domains(ctx); return err },
		"list tasks":    func() error { _, _, err := client.Tasks(ctx, bbsclient.TaskFilter{}); return err },
		"list many":     func() error { _, _, err := client.ActualsOf(ctx, []lrp.ProcessGUID{"before"}); return err },
		"one task":      func() error { _, err := client.Task(ctx, "absent"); return err },
		"desire a task": func() error { return client.DesireTask(ctx, echoTask("t"), bbsclient.RequestID("t")) },
		"start a task": func() error {
			_, err := rep.ApplyTask(ctx, task.Event{Name: task.Start, GUID: "t", Cell: "c1"})
			return err
		},
		"cancel a task": func() error { _, err := client.ApplyTask(ctx, task.Event{Name: task.Cancel, GUID: "t"}); return err },
		"evacuate": func() error {
			keep, err := rep.Evacuate(ctx, evacuating(lrp.EvacuateRunning, "before", by))
			if !keep {
				t.Error("nobody knows, and yet the container is to go")
			}
			return err
		},
		"desire many": func() error {
			answers := client.DesireAll(ctx, []lrp.Desired{app("b1", 1), {Process: "a b"}, app("b2", 1)})
			if status.Code(answers[0]) != codes.Unavailable || status.Code(answers[2]) != codes.Unavailable {
				t.Errorf("of a batch without PostgreSQL: %v", answers)
			}
			var inv *lrp.Invalid
			if !errors.As(answers[1], &inv) {
				t.Errorf("a bad record of a batch without PostgreSQL: %v, want what is wrong with it", answers[1])
			}
			return answers[0]
		},
		"watch ahead": func() error {
			watch, err := client.Watch(ctx, 1000, bbsclient.WatchFilter{})
			if err == nil {
				_, _, err = watch.Recv()
			}
			return err
		},
	} {
		err := call()
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s without PostgreSQL: %v, want %v", name, err, codes.Unavailable)
		}
		if delay, ok := bbsclient.RetryDelay(err); !ok || delay <= 0 {
			t.Errorf("%s without PostgreSQL: try again after %v (%t), want a pause", name, delay, ok)
		}
	}
	w.serving(t, address, healthv1.HealthCheckResponse_NOT_SERVING)
	_, err := pgcluster.Open(ctx, pgcluster.Config{Dir: c.Dir(), FastUnsafe: true})
	must(t, err)
	w.serving(t, address, healthv1.HealthCheckResponse_SERVING)

	must(t, client.Desire(ctx, app("after", 2)))
	must(t, rep.Apply(ctx, claim("before", 0, by)))
	must(t, rep.Heartbeat(ctx, cells.Presence{Cell: "c1"}, time.Second))
	infos, _, err := client.SchedulingInfos(ctx, bbsclient.DesiredFilter{})
	must(t, err)
	actuals, revision, err := client.Actuals(ctx, bbsclient.ActualFilter{})
	must(t, err)
	slots := map[lrp.ProcessGUID]int{}
	for _, a := range actuals {
		slots[a.Process]++
	}
	for _, info := range infos {
		if slots[info.Process] != 2 {
			t.Errorf("process %s has %d of 2 slots", info.Process, slots[info.Process])
		}
		delete(slots, info.Process)
	}
	if len(slots) != 0 {
		t.Errorf("slots without process: %v", slots)
	}
	f.until(t, "the newest change", func(f *follower) bool {
		return len(f.events) > 0 && f.events[len(f.events)-1].Revision >= revision
	})
	lists, events := f.seen()
	for i, ev := range events {
		if ev.Revision != uint64(i)+1 {
			t.Errorf("change %d has revision %d: lost or repeated", i, ev.Revision)
		}
	}
	if lists != 1 {
		t.Errorf("the follower listed %d times: its watch did not survive", lists)
	}
}

// Without Consul nobody converges, and everybody is served; the replica waits for it, and ends when told.
func TestConsulAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	cfg := w.config()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg.Kind, cfg.Consul.Address = lease.Consul, l.Addr().String()
	must(t, l.Close()) // nobody is there
	must(t, cfg.Validate())
	address, stop := w.replica(cfg)
	client := w.client(address, identity.Client)
	must(t, client.Desire(t.Context(), app("p", 1)))
	by := lrp.InstanceKey{Instance: "i", Cell: "c1"}
	must(t, w.cell(address, "c1").Apply(t.Context(), claim("p", 0, by)))
	list, revision, err := client.Actuals(t.Context(), bbsclient.ActualFilter{})
	if err != nil || len(list) != 1 || list[0].State != lrp.Claimed {
		t.Errorf("without Consul: %+v (%v), want a claimed instance", list, err)
	}
	watch, err := client.Watch(t.Context(), revision-1, bbsclient.WatchFilter{})
	must(t, err)
	if events, at, err := watch.Recv(); err != nil || at != revision || len(events) != 1 {
		t.Errorf("a watch without Consul: %d changes at %d (%v), want the newest at %d", len(events), at, err, revision)
	}
	w.serving(t, address, healthv1.HealthCheckResponse_SERVING)
	stop()
}

// cellGone waits for the event that a cell was dropped.
func cellGone(t *testing.T, f *follower, cell lrp.CellID) {
	t.Helper()
	f.until(t, "the cell is dropped", func(f *follower) bool {
		for _, ev := range f.events {
			if ev.Cell != nil && ev.Cell.After == nil && ev.Cell.Before.Cell == cell {
				return true
			}
		}
		return false
	})
}

// Nobody is declared silent for a silence in which nobody could be heard: after an outage of the
// database cells get time to come back.
func TestOutageIsNoSilence(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	w := newWorld(t, pgtest.DatabaseOn(t, c, nil))
	cfg := w.config()
	cfg.SweepInterval = daemon.Duration(50 * time.Millisecond)
	address, _ := w.replica(cfg)
	f := w.follow(w.client(address, identity.Auctioneer), bbsclient.FollowOptions{})
	f.until(t, "first list", func(f *follower) bool { return f.lists == 1 })
	const ttl = time.Second
	beat := func(cell string, ttl time.Duration) {
		t.Helper()
		must(t, w.cell(address, cell).Heartbeat(t.Context(), cells.Presence{Cell: lrp.CellID(cell)}, ttl))
	}
	beat("early", ttl)
	cellGone(t, f, "early") // so the replica has been listening for longer than ttl
	beat("lost", ttl)
	beat("alive", time.Minute)
	must(t, c.Stop(t.Context()))
	w.serving(t, address, healthv1.HealthCheckResponse_NOT_SERVING)
	back := time.Now()
	_, err := pgcluster.Open(t.Context(), pgcluster.Config{Dir: c.Dir(), FastUnsafe: true})
	must(t, err)
	conn, err := pgx.Connect(t.Context(), w.url)
	must(t, err)
	defer conn.Close(context.Background())
	// It was a long outage: both are far past their time.
	if _, err := conn.Exec(t.Context(), "update cells set last_seen = now() - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	cellGone(t, f, "lost")
	// Half of the time since then counts as silence; the last question without an answer may have
	// been a little before PostgreSQL was started.
	if grace := time.Since(back); grace < 2*ttl-500*time.Millisecond {
		t.Errorf("the cell was dropped %v after PostgreSQL was started again, before it could be heard for %v", grace, ttl)
	}
	beat("alive", time.Minute)
	list, _, err := w.client(address, identity.Client).Cells(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].Cell != "alive" {
		t.Errorf("cells that are left: %v, want the one that came back", list)
	}
}

// crashedInstance leaves an instance of process p that crashed too often, a moment before its back-off
// is over, and returns when that is.
func crashedInstance(t *testing.T, w *world, address string) time.Time {
	t.Helper()
	client, rep := w.client(address, identity.Client), w.cell(address, "c1")
	must(t, client.Desire(t.Context(), app("p", 1)))
	by := lrp.InstanceKey{Instance: "i", Cell: "c1"}
	for range lrp.ImmediateRestarts + 1 {
		must(t, rep.Apply(t.Context(), claim("p", 0, by)))
		must(t, rep.Apply(t.Context(), lrp.Event{Name: lrp.Crash, Key: key("p", 0), By: by, Reason: "r"}))
	}
	conn, err := pgx.Connect(t.Context(), w.url)
	must(t, err)
	defer conn.Close(context.Background())
	due := time.Now().Add(time.Second).Truncate(time.Microsecond)
	if _, err := conn.Exec(t.Context(), "update actual_lrps set since = $1", due.Add(-lrp.MinBackOff)); err != nil {
		t.Fatal(err)
	}
	return due
}

// An instance restarts when its back-off is over, not at the next full comparison after that.
func TestRestartIsPunctual(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	first, stop := w.replica(w.config())
	due := crashedInstance(t, w, first)
	stop()
	cfg := w.config()
	cfg.ConvergeInterval = daemon.Duration(time.Hour) // it compares when it starts and never again here
	address, _ := w.replica(cfg)
	f := w.follow(w.client(address, identity.Auctioneer), bbsclient.FollowOptions{})
	f.until(t, "the restart", func(f *follower) bool {
		for _, ev := range f.events {
			if ev.Actual != nil && ev.Actual.After != nil && ev.Actual.After.State == lrp.Unclaimed {
				if ev.At.Before(due) || ev.At.Sub(due) > time.Second {
					t.Errorf("restarted at %v, due was %v", ev.At, due)
				}
				return true
			}
		}
		return false
	})
}

// An update that does not fit the record, or says nothing, is refused by field, over the wire too.
func TestUpdateIsCheckedAgainstTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	conn := w.dial(address, identity.ID{Role: identity.Client})
	client, raw := bbsclient.New(conn), bbsv1.NewBBSServiceClient(conn)
	must(t, client.Desire(t.Context(), app("p", 1))) // opens port 8080
	route := func(port int) lrp.Update {
		return lrp.Update{Routes: map[string][]byte{"cf-router": fmt.Appendf(nil, `[{"hostnames":["a.example"],"port":%d}]`, port)}}
	}
	must(t, client.Update(t.Context(), "p", route(8080)))
	var inv *lrp.Invalid
	if err := client.Update(t.Context(), "p", route(9090)); !errors.As(err, &inv) || inv.Fields[0].Field != "routes" {
		t.Errorf("a route to a closed port: %v, want an error that names routes", err)
	}
	d, err := client.Desired(t.Context(), "p")
	if err != nil || string(d.Routes["cf-router"]) != string(route(8080).Routes["cf-router"]) {
		t.Errorf("routes are %s (%v) after the refused update", d.Routes, err)
	}
	for name, tc := range map[string]struct {
		request *bbsv1.UpdateDesiredLRPRequest
		field   string
	}{
		"no update":  {&bbsv1.UpdateDesiredLRPRequest{ProcessGuid: "p"}, "update"},
		"no process": {&bbsv1.UpdateDesiredLRPRequest{Update: &bbsv1.DesiredLRPUpdate{}}, "process_guid"},
	} {
		_, err := raw.UpdateDesiredLRP(t.Context(), tc.request, grpc.WaitForReady(true))
		violations := fieldViolations(err)
		if status.Code(err) != codes.InvalidArgument || len(violations) != 1 || violations[0] != tc.field {
			t.Errorf("%s: %v with violations of %v, want %v of %s", name, err, violations, codes.InvalidArgument, tc.field)
		}
	}
}

// fieldViolations returns the fields that a status says are wrong.
func fieldViolations(err error) []string {
	var fields []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.FieldViolations {
				fields = append(fields, v.Field)
			}
		}
	}
	return fields
}
