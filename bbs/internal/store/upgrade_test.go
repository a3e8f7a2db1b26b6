package store

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"muster/bbs/event"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/internal/pgtest"
)

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// versionOne makes a database as version 1 of the schema left it, with rows in every state.
func versionOne(t testing.TB) (url string, conn *pgx.Conn) {
	t.Helper()
	url = pgtest.Database(t, nil)
	conn = connect(t, url)
	file, err := fs.ReadFile(migrationFiles, "migrations/001_records.sql")
	must(t, err)
	up, _, _ := strings.Cut(string(file), "---- create above")
	d := app("p", 4)
	recipe, err := proto.Marshal(wire.EncodeRunInfo(d.RunInfo))
	must(t, err)
	info := d.SchedulingInfo()
	change := wire.EncodeEvent(event.Event{Desired: &event.DesiredChange{After: &info}})
	payload, err := proto.Marshal(change)
	must(t, err)
	for _, step := range []struct {
		sql  string
		args []any
	}{
		{up, nil},
		{"create table public.schema_version (version int4 not null)", nil},
		{"insert into public.schema_version values (1)", nil},
		{`insert into desired_lrps values ('p', 'd', 'log', 4, 'note', jsonb_build_object('cf-router', $1::text), '{"source_id":{"Static":"s","Dynamic":0}}',
			'docker://r/i#t', 1, 2, 3, '["tag"]', '["nfs"]', 0, 'e', 7, $2),
			('bare', 'd', '', 0, '', '{}', '{}', 'docker://r/i#t', 0, 0, 0, '[]', '[]', 1, 'e', 0, $2)`,
			[]any{base64.StdEncoding.EncodeToString(d.Routes["cf-router"]), recipe}},
		{`insert into actual_lrps values
			('p', 0, 'ORDINARY', 'd', 'UNCLAIMED', '', '', '', '', '', 0, '[]', 'no room', 0, '', '2030-01-01Z', 'e', 1, '[]', '{}', false, '', false),
			('p', 1, 'ORDINARY', 'd', 'CLAIMED', 'i1', 'c', '', '', '', 0, '[]', '', 1, 'r', '2030-01-01Z', 'e', 2, '[]', '{}', false, '', false),
			('p', 2, 'ORDINARY', 'd', 'RUNNING', 'i2', 'c', '10.0.0.1', '10.1.0.1', '::1', 2,
				'[{"ContainerPort":8080,"HostPort":61001,"ContainerTLSProxyPort":61002,"HostTLSProxyPort":61003}]',
				'', 0, '', '2030-01-01Z', 'e', 3, '["a.internal"]', '{"k":"v"}', true, 'z1', true),
			('p', 2, 'SUSPECT', 'd', 'RUNNING', 'i0', 'c2', '10.0.0.2', '', '', 0, '[]', '', 0, '', '2030-01-01Z', 'e', 3, '[]', '{"k":"v"}', true, '', false),
			('p', 3, 'ORDINARY', 'd', 'CRASHED', '', '', '', '', '', 0, '[]', '', 3, 'r', '2030-01-01Z', 'e', 4, '["b.internal"]', '{}', false, '', false)`, nil},
		{`insert into domains values ('d', null)`, nil},
		{`insert into events values (1, '2030-01-01Z', 5, 'trace', 'p', 'd', '', '', $1)`, []any{payload}},
		{`update sequencer set revision = 1`, nil},
	} {
		_, err := conn.Exec(t.Context(), step.sql, step.args...)
		must(t, err)
	}
	return url, conn
}

// checkUpgraded fails unless a store shows what versionOne left.
func checkUpgraded(t testing.TB, s *Store) {
	t.Helper()
	got := readAll(t, s)
	d := app("p", 4)
	d.LogGUID, d.Annotation, d.MemoryMB, d.DiskMB, d.MaxPids, d.PlacementTags = "log", "note", 1, 2, 3, []string{"tag"}
	d.Tag = lrp.ModificationTag{Epoch: "e", Index: 7}
	bare := lrp.Desired{Process: "bare", Domain: "d", RootFS: d.RootFS, Strategy: lrp.Recreate, RunInfo: d.RunInfo, Tag: lrp.ModificationTag{Epoch: "e"}}
	if diff := cmp.Diff([]lrp.Desired{bare, d}, got.Desired, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("desired (-version 1 +read):\n%s", diff)
	}
	list, _, err := s.Scheduling(t.Context(), DesiredFilter{Processes: []lrp.ProcessGUID{"p"}}, Page{})
	if err != nil || len(list) != 1 || !cmp.Equal(list[0].VolumeDrivers, []string{"nfs"}) {
		t.Errorf("scheduling information: %+v, %v; want the driver nfs", list, err)
	}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	instance := func(index int32, state lrp.State, tag uint32) lrp.Actual {
		return lrp.Actual{Key: slotKey("p", index), State: state, Since: at, Tag: lrp.ModificationTag{Epoch: "e", Index: tag}}
	}
	unclaimed, claimed, running := instance(0, lrp.Unclaimed, 1), instance(1, lrp.Claimed, 2), instance(2, lrp.Running, 3)
	suspect, crashed := instance(2, lrp.Running, 3), instance(3, lrp.Crashed, 4)
	unclaimed.PlacementError = "no room"
	claimed.InstanceKey, claimed.CrashCount, claimed.CrashReason = lrp.InstanceKey{Instance: "i1", Cell: "c"}, 1, "r"
	running.InstanceKey = lrp.InstanceKey{Instance: "i2", Cell: "c"}
	running.NetInfo = lrp.NetInfo{Address: "10.0.0.1", InstanceAddress: "10.1.0.1", InstanceIPv6Address: "::1", Preferred: lrp.PreferHost,
		Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61001, ContainerTLSProxyPort: 61002, HostTLSProxyPort: 61003}}}
	running.InternalRoutes, running.MetricTags = []string{"a.internal"}, map[string]string{"k": "v"}
	running.Routable, running.AvailabilityZone, running.Retiring = true, "z1", true
	suspect.Presence, suspect.InstanceKey, suspect.NetInfo.Address = lrp.Suspect, lrp.InstanceKey{Instance: "i0", Cell: "c2"}, "10.0.0.2"
	suspect.MetricTags, suspect.Routable = map[string]string{"k": "v"}, true
	crashed.CrashCount, crashed.CrashReason, crashed.InternalRoutes = 3, "r", []string{"b.internal"}
	if diff := cmp.Diff([]lrp.Actual{unclaimed, claimed, running, suspect, crashed}, got.Actuals, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("actual (-version 1 +read):\n%s", diff)
	}
	if log := history(t, s); len(log) != 1 || log[0].Desired == nil || log[0].Desired.After.Process != "p" || log[0].TraceID != "trace" {
		t.Errorf("log: %+v, want the entry of version 1", log)
	}
}

// A database of version 1 is read as it is, sealed in the background, and reads the same then.
func TestUpgradeFromVersionOne(t *testing.T) {
	t.Parallel()
	url, _ := versionOne(t)
	must(t, Migrate(t.Context(), url))
	s, _ := enrolled(t, url, Options{}, "k1")
	checkUpgraded(t, s)
	if got := labelsOf(t, s); got[""] == 0 || len(got) != 1 {
		t.Errorf("values by label: %v, want plain ones only", got)
	}
	if retired := rotated(t, s); !cmp.Equal(retired, []string{""}) {
		t.Errorf("retired: %q, want the plain ones", retired)
	}
	if got := labelsOf(t, s); got[""] != 0 || got["k1"] == 0 {
		t.Errorf("values by label: %v, want sealed ones only", got)
	}
	checkUpgraded(t, s)
	must(t, s.Apply(t.Context(), start("p", 1, lrp.InstanceKey{Instance: "i1", Cell: "c"}), Call{}))
}

// Replicas that start at once on the previous version take turns.
func TestUpgradeByTwo(t *testing.T) {
	t.Parallel()
	url, _ := versionOne(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := Migrate(context.Background(), url); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, _ := enrolled(t, url, Options{}, "k1")
	checkUpgraded(t, s)
}

// A migration that is killed leaves the version before it, whole; the next one succeeds.
func TestKilledMigration(t *testing.T) {
	t.Parallel()
	url, conn := versionOne(t)
	blocker, err := conn.Begin(t.Context())
	must(t, err)
	// Migration 002 gets as far as actual_lrps, when it has already changed desired_lrps.
	_, err = blocker.Exec(t.Context(), "lock table actual_lrps in access share mode")
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- Migrate(context.Background(), url) }()
	watcher := connect(t, url)
	var pid uint32
	for pid == 0 { // until it waits for the lock
		must(t, watcher.QueryRow(t.Context(), `select coalesce(max(pid), 0)::bigint from pg_locks where not granted
			and relation = 'actual_lrps'::regclass and database = (select oid from pg_database where datname = current_database())`).Scan(&pid))
	}
	_, err = watcher.Exec(t.Context(), "select pg_terminate_backend($1)", pid)
	must(t, err)
	if err := <-ended; err == nil {
		t.Error("the killed migration says that it succeeded")
	}
	must(t, blocker.Rollback(t.Context()))
	var version int
	var routes string
	must(t, watcher.QueryRow(t.Context(), "select (select version from schema_version), pg_typeof(routes)::text from desired_lrps limit 1").Scan(&version, &routes))
	if version != 1 || routes != "jsonb" {
		t.Errorf("after it was killed: version %d, routes of type %s; want 1 and jsonb", version, routes)
	}
	must(t, Migrate(t.Context(), url))
	s, _ := enrolled(t, url, Options{}, "k1")
	checkUpgraded(t, s)
}

// A schema that is newer than this program knows refuses the start.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	_, err := connect(t, url).Exec(t.Context(), "update schema_version set version = version + 1")
	must(t, err)
	if err := Migrate(t.Context(), url); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "newer than version") {
		t.Errorf("migrated: %v, want a refusal that says why", err)
	}
}

// Rows that cannot be read are kept and named in the log. Lists and other records do without them, and
// who would write them is told which they are (bbs reference §20.2). Their key stays in use.
func TestUnreadableRows(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	var mu sync.Mutex
	metered := map[string]int{}
	s, leave := enrolled(t, url, Options{Unreadable: func(table string) {
		mu.Lock()
		defer mu.Unlock()
		metered[table]++
	}}, "k1")
	ctx := t.Context()
	for _, p := range []string{"good", "bad", "half"} {
		fill(t, s, p, 4)
	}
	rotated(t, s)
	var log strings.Builder
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	for _, sql := range []string{
		"update desired_lrps set run_info = set_byte(run_info, 30, get_byte(run_info, 30) # 1) where process_guid = 'bad'",
		"update actual_lrps set net_info = (select net_info from actual_lrps where process_guid = 'half' and index = 0) where process_guid = 'half' and index = 1",
		"update tasks set definition = substring(definition from 1 for 20) where task_guid = 'bad-job'",
	} {
		tag, err := s.Pools.Read.Exec(ctx, sql)
		must(t, err)
		if tag.RowsAffected() != 1 {
			t.Fatalf("%s: %d rows", sql, tag.RowsAffected())
		}
	}
	got := readAll(t, s)
	if len(got.Desired) != 2 || len(got.Actuals) != 11 || len(got.Tasks) != 2 {
		t.Errorf("lists have %d processes, %d instances and %d tasks; want 2, 11 and 2", len(got.Desired), len(got.Actuals), len(got.Tasks))
	}
	if list, _, err := s.Scheduling(ctx, DesiredFilter{}, Page{}); err != nil || len(list) != 3 {
		t.Errorf("without recipes: %d, %v; want all 3", len(list), err)
	}
	for table, row := range map[string]string{"desired_lrps": "row=bad", "actual_lrps": "half/1", "tasks": "bad-job"} {
		if !strings.Contains(log.String(), row) || metered[table] == 0 {
			t.Errorf("%s: metric %d, log:\n%s\nwant it to name %s", table, metered[table], log.String(), row)
		}
	}
	two := int32(2)
	for what, call := range map[string]struct {
		row string
		err error
	}{
		"update":      {"bad", s.Update(ctx, "bad", lrp.Update{Instances: &two}, Call{})},
		"remove":      {"bad", s.RemoveDesired(ctx, "bad", Call{})},
		"an event":    {"half/1", s.Apply(ctx, started("half", 1), Call{})},
		"its process": {"half/1", s.RemoveDesired(ctx, "half", Call{})},
		"a task":      {"bad-job", s.DesireTask(ctx, aJob("bad-job"), Call{})},
	} {
		var u *Unreadable
		if !errors.As(call.err, &u) || !strings.Contains(u.Error(), call.row) || errors.Is(call.err, ErrUnavailable) {
			t.Errorf("%s: %v, want an error that names %s", what, call.err, call.row)
		}
	}
	must(t, s.Apply(ctx, started("half", 2), Call{}))
	must(t, s.Update(ctx, "good", lrp.Update{Instances: &two}, Call{}))
	if log := history(t, s); len(log) == 0 {
		t.Error("the log is empty")
	}
	leave()

	next, _ := enrolled(t, url, Options{}, "k2", "k1")
	for range 2 {
		r, err := next.Rotate(ctx)
		must(t, err)
		if fmt.Sprint(r.InUse) != "[k1]" || r.Unreadable["k1"] != 3 {
			t.Errorf("rotation: %+v, want k1 in use for 3 values", r)
		}
	}
	var kept int
	must(t, next.Pools.Read.QueryRow(ctx, "select (select count(*) from desired_lrps) + (select count(*) from actual_lrps) + (select count(*) from tasks)").Scan(&kept))
	if kept != 3+10+3 { // two instances went when their process was made smaller
		t.Errorf("%d rows are left, want all %d", kept, 3+10+3)
	}
}

// A watch that needs an entry of the log which cannot be read must list again, as if it were pruned.
func TestUnreadableEntryOfTheLog(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	must(t, s.Desire(t.Context(), app("p", 5), Call{}))
	_, err := s.Pools.Read.Exec(t.Context(), "update events set payload = '\\x01' where revision = 3")
	must(t, err)
	records, newest, err := s.Events(t.Context(), 0, 100)
	if err != nil || len(records) != 2 || newest != 6 {
		t.Errorf("from the beginning: %d entries up to %d, %v; want the 2 before it", len(records), newest, err)
	}
	if _, _, err := s.Events(t.Context(), 2, 100); !errors.Is(err, ErrPruned) {
		t.Errorf("at the entry: %v, want %v", err, ErrPruned)
	}
	if records, _, err := s.Events(t.Context(), 3, 100); err != nil || len(records) != 3 {
		t.Errorf("after it: %d entries, %v; want 3", len(records), err)
	}
}
