package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"muster/bbs/internal/seal"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/pgtest"
)

// aJob is a task that passes validation.
func aJob(guid string) task.Task {
	return task.Task{GUID: task.GUID(guid), Domain: "d", Definition: task.Definition{
		RootFS: "docker://r/i#t", Env: []lrp.EnvVar{{Name: "E", Value: "v"}},
		Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/job", User: "vcap"}},
	}}
}

// started is a Start that reports something of everything.
func started(process string, index int32) lrp.Event {
	ev := start(process, index, lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", index)), Cell: "c"})
	ev.InternalRoutes, ev.MetricTags = []string{"a.internal"}, map[string]string{"k": "v"}
	return ev
}

// fill stores something of everything: a process of n instances, half of which run, and a task.
func fill(t testing.TB, s *Store, process string, n int32) {
	t.Helper()
	d := app(process, n)
	d.RunInfo.VolumeMounts = []lrp.VolumeMount{{Driver: "nfs", ContainerDir: "/v", Mode: "r", Shared: &lrp.SharedDevice{VolumeID: "v"}}}
	must(t, s.Desire(t.Context(), d, Call{}))
	var evs []lrp.Event
	for i := range n / 2 {
		evs = append(evs, started(process, i))
	}
	for _, err := range s.ApplyAll(t.Context(), evs, Call{}) {
		must(t, err)
	}
	must(t, s.DesireTask(t.Context(), aJob(process+"-job"), Call{}))
}

// holdings is everything that is stored.
type holdings struct {
	Desired []lrp.Desired
	Actuals []lrp.Actual
	Tasks   []task.Task
	Log     int
}

func readAll(t testing.TB, s *Store) holdings {
	t.Helper()
	var c holdings
	var err error
	c.Desired, _, err = s.Desired(t.Context(), DesiredFilter{}, Page{})
	must(t, err)
	c.Actuals, _, err = s.Actuals(t.Context(), ActualFilter{}, Page{})
	must(t, err)
	c.Tasks, _, err = s.Tasks(t.Context(), TaskFilter{}, Page{})
	must(t, err)
	c.Log = len(history(t, s))
	return c
}

func sameHoldings(t testing.TB, what string, want, got holdings) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// labelsOf counts the values of all sealed columns by the label of their key; plain ones have none.
func labelsOf(t testing.TB, s *Store) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, table := range sealedTables() {
		for _, column := range table.columns {
			name := strings.TrimPrefix(string(column), table.name+".")
			rows, err := s.Pools.Read.Query(t.Context(), "select "+name+" from "+table.name+" where "+name+" <> ''")
			must(t, err)
			values, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
			must(t, err)
			for _, v := range values {
				label, err := seal.Label(v)
				if err != nil && v[0] != plainFormat {
					t.Fatalf("%s: %v", column, err)
				}
				found[label]++
			}
		}
	}
	return found
}

// enrolled starts a replica that knows some keys and seals with the first one, until the end of the
// test or until it is left.
func enrolled(t testing.TB, url string, o Options, keys ...string) (s *Store, leave func()) {
	t.Helper()
	o.Sealer = sealer(t, keys...)
	s = open(t, url, o)
	e, err := s.Enrol(t.Context())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	leave = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(leave)
	return s, leave
}

// rotated calls Rotate until only the newest key is in use.
func rotated(t testing.TB, s *Store) (retired []string) {
	t.Helper()
	for range 20 {
		r, err := s.Rotate(t.Context())
		must(t, err)
		retired = append(retired, r.Retired...)
		if len(r.InUse) == 0 {
			return retired
		}
	}
	r, err := s.Rotate(t.Context())
	t.Fatalf("the rotation does not end: %+v, %v", r, err)
	return nil
}

// Old and new keys are readable after a change of the key, and the old one is dispensable after
// everything was sealed again, while calls go on (bbs reference §19, encryption).
func TestRotationWhileWriting(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	old, leave := enrolled(t, url, Options{}, "k1")
	fill(t, old, "p", 1500)
	rotated(t, old)
	before := readAll(t, old)
	if got := labelsOf(t, old); len(got) != 1 || got["k1"] == 0 {
		t.Fatalf("values by label: %v, want k1 only", got)
	}
	leave()

	both, leave := enrolled(t, url, Options{}, "k2", "k1")
	sameHoldings(t, "with both keys, before anything was sealed again", before, readAll(t, both))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()
	for c := range int32(4) { // crash, claim and start the instances that run, again and again
		wg.Go(func() {
			for i := c; ; i = (i + 4) % 700 {
				select {
				case <-stop:
					return
				default:
				}
				by := lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", i)), Cell: "c"}
				for _, ev := range []lrp.Event{{Name: lrp.Crash, Key: slotKey("p", i), By: by, Reason: "r"}, started("p", i)} {
					var refusal *lrp.Refusal
					if err := both.Apply(t.Context(), ev, Call{}); err != nil && !errors.As(err, &refusal) {
						t.Error(err)
					}
				}
			}
		})
	}
	retired := rotated(t, both)
	end()
	if !slices.Contains(retired, "k1") {
		t.Errorf("retired: %q, want k1", retired)
	}
	if got := labelsOf(t, both); len(got) != 1 || got["k2"] == 0 {
		t.Errorf("values by label: %v, want k2 only", got)
	}
	checkReplay(t, both)
	want := readAll(t, both)
	leave()

	after, _ := enrolled(t, url, Options{}, "k2")
	sameHoldings(t, "without the old key", want, readAll(t, after))
	checkReplay(t, after)
	// Whatever became of it meanwhile: it may have crashed too often to run.
	must(t, after.Apply(t.Context(), lrp.Event{Name: lrp.Retire, Key: slotKey("p", 0)}, Call{}))
}

// A rotation that is killed goes on where it was: what it had sealed again is not touched any more.
func TestKilledRotationResumes(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	old, leave := enrolled(t, url, Options{}, "k1")
	fill(t, old, "p", 2400)
	rotated(t, old)
	want := readAll(t, old)
	total := labelsOf(t, old)["k1"]
	leave()

	ctx, kill := context.WithCancel(t.Context())
	first := 0
	dying, leave := enrolled(t, url, Options{Resealed: func(table string, rows int) {
		if first += rows; table == "actual_lrps" { // after one portion of them
			kill()
		}
	}}, "k2", "k1")
	if _, err := dying.Rotate(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("the killed rotation answers %v", err)
	}
	mixed := labelsOf(t, dying)
	if mixed["k1"] == 0 || mixed["k2"] == 0 {
		t.Fatalf("values by label: %v, want both keys", mixed)
	}
	sameHoldings(t, "in the middle", want, readAll(t, dying))
	leave()

	second := 0
	next, _ := enrolled(t, url, Options{Resealed: func(_ string, rows int) { second += rows }}, "k2", "k1")
	rotated(t, next)
	if got := labelsOf(t, next); got["k1"] != 0 || got["k2"] != total {
		t.Errorf("values by label: %v, want %d of k2", got, total)
	}
	var rows int
	must(t, next.Pools.Read.QueryRow(t.Context(), `select (select count(*) from desired_lrps) + (select count(*) from tasks)
		+ (select count(*) from events) + (select count(*) from actual_lrps where net_info is not null)`).Scan(&rows))
	if first == 0 || first+second != rows {
		t.Errorf("%d and %d rows were sealed again, of %d", first, second, rows)
	}
	sameHoldings(t, "at the end", want, readAll(t, next))
}

// A key stays in use for as long as a replica seals with it; once it is closed, a replica that was
// away seals nothing with it any more.
func TestReplicasOfOneDatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	o := Options{Sealer: sealer(t, "k1", "k2")}
	old := open(t, url, o)
	e, err := old.Enrol(t.Context())
	must(t, err)
	fill(t, old, "p", 2)

	fresh, leave := enrolled(t, url, Options{}, "k2", "k1")
	for range 2 {
		r, err := fresh.Rotate(t.Context())
		must(t, err)
		if !slices.Equal(r.InUse, []string{"k1"}) || slices.Contains(r.Retired, "k1") {
			t.Errorf("while a replica seals with k1: %+v, want it in use", r)
		}
	}
	if r, err := old.Rotate(t.Context()); err != nil || r.Resealed != 0 {
		t.Errorf("the replica with the older key rotates: %+v, %v", r, err)
	}
	fill(t, old, "q", 2) // sealed with k1, after everything was sealed with k2
	readAll(t, old)
	readAll(t, fresh)

	must(t, e.conn.Close(t.Context())) // the old replica is cut off
	if retired := rotated(t, fresh); !slices.Contains(retired, "k1") {
		t.Errorf("retired: %q, want k1", retired)
	}
	if err := old.Desire(t.Context(), app("r", 1), Call{}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errKeyClosed) {
		t.Errorf("a call of the replica that was cut off: %v, want %v", err, errKeyClosed)
	}
	if err := e.Run(t.Context()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), `"k2"`) {
		t.Errorf("the replica that was cut off ends with %v, want a refusal naming the active key", err)
	}
	if got := labelsOf(t, fresh); got["k1"] != 0 {
		t.Errorf("values by label: %v, want none of k1", got)
	}
	leave()
	// Back to the old key, by a restart that says so.
	back, _ := enrolled(t, url, Options{}, "k1", "k2")
	if retired := rotated(t, back); !slices.Equal(retired, []string{"k2"}) {
		t.Errorf("retired: %q, want k2", retired)
	}
}

// A connection that is lost while nothing changed is enrolled again.
func TestEnrolmentSurvivesItsConnection(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	e, err := s.Enrol(t.Context())
	must(t, err)
	pid := e.conn.PgConn().PID()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	holders := func(sql string) (n int) {
		must(t, s.Pools.Read.QueryRow(t.Context(), sql, int64(usesClass), pid).Scan(&n))
		return n
	}
	const others = `select count(*) from pg_locks where locktype = 'advisory' and classid = $1::bigint::oid and pid <> $2
		and database = (select oid from pg_database where datname = current_database())`
	_, err = s.Pools.Read.Exec(t.Context(), "select pg_terminate_backend($1)", pid)
	must(t, err)
	for holders(others) == 0 { // until another session holds the lock
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// What is missing or wrong refuses the start, and says what to do.
func TestStartIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	first, leave := enrolled(t, url, Options{}, "k1")
	fill(t, first, "p", 2)
	rotated(t, first)
	try := func(active string, keys map[string]string) error {
		t.Helper()
		sl, err := seal.New(active, keys)
		must(t, err)
		e, err := open(t, url, Options{Sealer: sl}).Enrol(t.Context())
		if err == nil {
			e.Close()
		}
		return err
	}
	const right = "passphrase of k1"
	refused := func(what string, err error, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want a refusal with %q", what, err, part)
			}
		}
	}
	refused("the key is missing", try("k2", map[string]string{"k2": "x"}), `"k1"`, "not in encryption.keys", "add it")
	refused("the passphrase is wrong", try("k1", map[string]string{"k1": "x"}), `"k1"`, "passphrase", "correct it")
	refused("another replica lacks the new key", try("k2", map[string]string{"k1": right, "k2": "x"}), "1 running replicas", `"k2"`, "restart them")
	must(t, try("k1", map[string]string{"k1": right, "k2": "x"}))
	leave()
	must(t, try("k2", map[string]string{"k1": right, "k2": "x"}))
	refused("the new passphrase is wrong", try("k2", map[string]string{"k1": right, "k2": "y"}), `"k2"`, "passphrase")
	refused("back to one key too early", try("k2", map[string]string{"k2": "x"}), `"k1"`)
}

// markerText is part of every text that must not be found in the database.
const markerText = "SENSITIVE"

// Nothing sensitive is stored in plain text, wherever it may be kept: neither while it is there nor in
// the log of changes.
func TestNothingSensitiveInPlainText(t *testing.T) {
	t.Parallel()
	s, _ := enrolled(t, pgtest.Database(t, Migrate), Options{}, "k1")
	ctx := t.Context()
	d := app("p", 1)
	d.Routes["internal-router"] = []byte(`[{"hostname":"SENSITIVE-route.internal"}]`)
	d.MetricTags["tag"] = lrp.MetricTag{Static: "SENSITIVE-tag"}
	d.RunInfo.Env = []lrp.EnvVar{{Name: "PASSWORD", Value: "SENSITIVE-env"}}
	d.RunInfo.ImageUsername, d.RunInfo.ImagePassword = "u", "SENSITIVE-password"
	d.RunInfo.VolumeMounts = []lrp.VolumeMount{{Driver: "SENSITIVE-driver", ContainerDir: "/v", Mode: "r", Shared: &lrp.SharedDevice{VolumeID: "SENSITIVE-volume"}}}
	must(t, s.Desire(ctx, d, Call{RequestID: "r"}))
	ev := started("p", 0)
	ev.NetInfo.Address, ev.NetInfo.InstanceAddress = "SENSITIVE-address", "SENSITIVE-instance"
	ev.InternalRoutes, ev.MetricTags = []string{"SENSITIVE-internal"}, map[string]string{"SENSITIVE-name": "SENSITIVE-value"}
	must(t, s.Apply(ctx, ev, Call{}))
	routes := map[string][]byte{"other": []byte(`[{"hostnames":["SENSITIVE.example"],"port":8080}]`)}
	must(t, s.Update(ctx, "p", lrp.Update{Routes: routes}, Call{}))
	j := aJob("j")
	j.Definition.Env = []lrp.EnvVar{{Name: "E", Value: "SENSITIVE-task-env"}}
	j.Definition.ImageUsername, j.Definition.ImagePassword = "u", "SENSITIVE-task-password"
	j.Definition.CompletionCallbackURL = "http://u:SENSITIVE-callback@example"
	must(t, s.DesireTask(ctx, j, Call{RequestID: "r2"}))
	_, err := s.ApplyTask(ctx, task.Event{Name: task.Start, GUID: "j", Cell: "c"}, Call{})
	must(t, err)
	rotated(t, s)

	rows, err := s.Pools.Read.Query(ctx, `select table_name::text, column_name::text, data_type::text from information_schema.columns where table_schema = 'public'`)
	must(t, err)
	type column struct{ Table, Name, Type string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	must(t, err)
	searched := map[string]bool{}
	for _, c := range all {
		text := c.Name + "::text"
		if c.Type == "bytea" {
			text = "encode(" + c.Name + ", 'escape')"
		}
		var found []string
		must(t, s.Pools.Read.QueryRow(ctx, fmt.Sprintf("select coalesce(array_agg(%s) filter (where %s ilike '%%%s%%'), '{}') from %s", text, text, markerText, c.Table)).Scan(&found))
		if len(found) > 0 {
			t.Errorf("%s.%s shows %q", c.Table, c.Name, found)
		}
		searched[c.Table+"."+c.Name] = true
	}
	for _, table := range sealedTables() {
		for _, c := range table.columns {
			if !searched[string(c)] {
				t.Errorf("%s was not searched: %v", c, slices.Sorted(maps.Keys(searched)))
			}
		}
	}
	if got := readAll(t, s); len(got.Desired) != 1 || got.Desired[0].RunInfo.ImagePassword != "SENSITIVE-password" ||
		got.Actuals[0].NetInfo.Address != "SENSITIVE-address" || got.Tasks[0].Definition.ImagePassword != "SENSITIVE-task-password" {
		t.Errorf("and yet it must be there: %+v", got)
	}
}
