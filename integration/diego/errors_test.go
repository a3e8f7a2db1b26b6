package diego_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"muster/bbs"
	"muster/integration/diego"
	"muster/internal/daemon"
	"muster/internal/pgtest"
)

// Each error that a call can end with has its type and its text, inside a response with status 200.
func TestErrors(t *testing.T) {
	t.Parallel()
	var database string
	i := install(t, func(c *bbs.Config) { database = string(c.DatabaseURL) })
	s := &story{t, map[string]bool{}}
	c1, by, other := i.cell("c1"), instance("i1", "c1"), instance("i2", "c1")
	s.want(i.cc, "/v1/desired_lrp/desire.r2", m().Message(1, desired("p", 2)), done)
	s.want(c1, "/v1/actual_lrps/start.r1", start("p", 0, by), done)
	for _, g := range []string{"t", "broken"} {
		s.want(i.cc, "/v1/tasks/desire.r2", task(g), done)
	}
	s.want(c1, "/v1/tasks/start", m().Text(1, "t").Text(2, "c1"), m().Flag(2, true))

	for _, tc := range []struct {
		as   *diego.Client
		path string
		body diego.Message
		kind int64
		text string
	}{
		{i.cc, "/v1/desired_lrp/desire.r2", m().Message(1, desired("p", 1)), diego.ResourceExists, "the requested resource already exists"},
		{i.cc, "/v1/tasks/desire.r2", task("t"), diego.ResourceExists, "the requested resource already exists"},
		{i.cc, "/v1/desired_lrp/update", m().Text(1, "absent").Message(2, m().Present(1, 1)), diego.ResourceNotFound, "the requested resource could not be found"},
		{i.cc, "/v1/desired_lrp/remove", guid("absent"), diego.ResourceNotFound, "the requested resource could not be found"},
		{i.cc, "/v1/desired_lrps/get_by_process_guid.r2", guid("absent"), diego.ResourceNotFound, "the requested resource could not be found"},
		{i.cc, "/v1/desired_lrp_scheduling_infos/get_by_process_guid", guid("absent"), diego.ResourceNotFound, "the requested resource could not be found"},
		{i.cc, "/v1/actual_lrps/retire", m().Message(1, key("p", 7)), diego.ResourceNotFound, "the requested resource could not be found"},
		{i.cc, "/v1/actual_lrp_groups/get_by_process_guid_and_index", m().Text(1, "p").Number(2, 7), diego.ResourceNotFound, "the requested resource could not be found"},
		{i.cc, "/v1/tasks/cancel", guid("absent"), diego.ResourceNotFound, "the requested resource could not be found"},
		{i.cc, "/v1/tasks/get_by_task_guid.r2", guid("absent"), diego.ResourceNotFound, "the requested resource could not be found"},
		{c1, "/v1/actual_lrps/claim", claim("p", 0, other), diego.CannotBeClaimed, "cannot claim actual LRP"},
		{c1, "/v1/actual_lrps/start.r1", start("p", 0, other), diego.CannotBeStarted, "cannot start actual LRP"},
		{c1, "/v1/actual_lrps/crash", crash("p", 0, other, "x"), diego.CannotBeCrashed, "cannot crash actual LRP"},
		{i.auctioneer, "/v1/actual_lrps/fail", m().Message(1, key("p", 0)).Text(2, "x"), diego.CannotBeFailed, "cannot fail actual LRP"},
		{i.cc, "/v1/tasks/resolving", guid("t"), diego.InvalidStateTransition, "Cannot transition from Running to Resolving"},
		{i.cell("c2"), "/v1/tasks/complete", m().Text(1, "t").Text(2, "c2"), diego.RunningOnDifferentCell, "Running on cell c1 not c2"},
		{i.cc, "/v1/actual_lrps/claim", claim("p", 1, by), diego.UnknownError, "client may not call /bbs.v1.BBSService/ClaimActualLRP"},
		{c1, "/v1/actual_lrps/claim", claim("p", 1, instance("i", "c2")), diego.UnknownError, `cell "c1" may call /bbs.v1.BBSService/ClaimActualLRP only about itself, not about cell "c2"`},
	} {
		s.want(tc.as, tc.path, tc.body, failed(tc.kind, tc.text))
	}

	// What is wrong with a request is named, all of it, in the form that clients look for.
	bad := m().Text(1, "a b").Number(4, -1).Text(3, "nothing").Message(7, run("")).EntryMessage(35, "x", m())
	_, err := i.cc.Do(t.Context(), "/v1/desired_lrp/desire.r2", m().Message(1, bad))
	var e *diego.Error
	if !errors.As(err, &e) || e.Type != diego.InvalidRequest {
		t.Fatalf("nonsense desired: %v", err)
	}
	for _, field := range []string{"process_guid", "domain", "rootfs", "instances", "path", "metric_tags"} {
		if !strings.Contains(e.Message, "Invalid field: "+field) {
			t.Errorf("%q does not name %s", e.Message, field)
		}
	}
	for path, body := range map[string]diego.Message{
		"/v1/domains/upsert": m(), "/v1/desired_lrp/update": m().Text(1, "p"), "/v1/tasks/reject": guid("t"),
		"/v1/actual_lrps/list_by_process_guids": m(), "/v1/actual_lrp_groups/list_by_process_guid": m(),
		"/v1/desired_lrps/list.r3": m().Element(3, ""),
	} {
		as := i.cc
		if path == "/v1/tasks/reject" {
			as = i.auctioneer
		}
		if _, err := as.Do(t.Context(), path, body); !errors.As(err, &e) || e.Type != diego.InvalidRequest || !strings.HasPrefix(e.Message, "Invalid field: ") {
			t.Errorf("%s without what it needs: %v", path, err)
		}
	}
	s.want(c1, "/v1/tasks/complete", m().Text(1, "t").Text(2, "c1"), done)
	s.want(i.auctioneer, "/v1/tasks/reject", m().Text(1, "t").Text(2, "late"), failed(diego.InvalidRequest, "the request received is invalid"))

	// A record that is there and cannot be read.
	db, err := pgx.Connect(t.Context(), database)
	must(t, err)
	defer db.Close(t.Context())
	_, err = db.Exec(t.Context(), `update tasks set definition = '\x00' where task_guid = 'broken'`)
	must(t, err)
	s.want(i.cc, "/v1/tasks/cancel", guid("broken"), failed(diego.Deserialize, "could not deserialize record"))
}

// With an error an evacuating cell is told what to do with the container: what the rules say, or, when they
// could not be asked, what harms nobody.
func TestContainersOfEvacuationsThatFail(t *testing.T) {
	t.Parallel()
	i := install(t)
	c1 := i.cell("c1")
	for path, keep := range map[string]bool{"claimed": true, "running.r1": true, "running": true, "crashed": false, "stopped": false} {
		for what, body := range map[string]diego.Message{
			"no message": m().Text(1, "x"), "no instance": m(), "another cell's": of("p", 0, instance("i", "c2")),
		} {
			res, err := c1.Do(t.Context(), "/v1/actual_lrps/evacuate_"+path, body)
			if err == nil || (res.NumberAt(2) == 1) != keep {
				t.Errorf("evacuate_%s with %s: keep %d (%v), want %v and an error", path, what, res.NumberAt(2), err, keep)
			}
		}
	}
	res, err := c1.Do(t.Context(), "/v1/actual_lrps/evacuate_running.r1", start("absent", 0, instance("i", "c1")))
	if res.NumberAt(2) != 0 {
		t.Errorf("of a process that nobody wants the container is kept (%v)", err)
	}
}

// A database that takes too long, and one that is away, are errors inside of responses, too: 503 is for one
// that was never there.
func TestDatabasesThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := pgtest.DatabaseOn(t, cluster, nil)
	i := install(t, func(c *bbs.Config) { c.DatabaseURL = daemon.Secret(url) })
	db, err := pgx.Connect(t.Context(), url)
	must(t, err)
	_, err = db.Exec(t.Context(), "begin; lock table desired_lrps in access exclusive mode")
	must(t, err)
	var e *diego.Error
	if _, err := i.cc.Do(t.Context(), "/v1/desired_lrps/get_by_process_guid.r2", guid("p")); !errors.As(err, &e) || e.Type != diego.UnknownError || e.Message == "" {
		t.Errorf("a call that takes too long: %v, want type %d", err, diego.UnknownError)
	}
	must(t, db.Close(t.Context()))
	must(t, cluster.Stop(t.Context()))
	if _, err := i.cc.Do(t.Context(), "/v1/desired_lrp/remove", guid("p")); !errors.As(err, &e) || e.Type != diego.UnknownError || e.Message == "" {
		t.Errorf("without a database: %v, want type %d", err, diego.UnknownError)
	}
}
