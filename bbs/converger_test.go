package bbs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"muster/bbs/bbsclient"
	"muster/bbs/event"
	"muster/bbs/internal/callback"
	"muster/bbs/internal/hub"
	"muster/bbs/internal/seal"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// records are a store and a hub that run, for convergers.
type records struct {
	t     testing.TB
	store *store.Store
	hub   *hub.Hub
}

func newRecords(t testing.TB) *records { return newRecordsAt(t, nil) }

// newRecordsAt is newRecords with a clock; nil: the wall clock.
func newRecordsAt(t testing.TB, now func() time.Time) *records {
	t.Helper()
	url := pgtest.Database(t, store.Migrate)
	pools, err := store.OpenPools(context.Background(), url, 8)
	must(t, err)
	sealer, err := seal.New("k", map[string]string{"k": "a passphrase"})
	must(t, err)
	r := &records{t: t, hub: hub.New(quiet(), 0)}
	r.store, err = store.New(store.Options{Pools: pools, Log: quiet(), Sealer: sealer, Published: r.hub.Publish, Now: now})
	must(t, err)
	must(t, r.hub.Start(t.Context(), r.store))
	var running daemon.Group
	running.Add("store", r.store.Run)
	running.Add("hub", r.hub.Run)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); running.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; pools.Close() })
	return r
}

// converger returns a converger of a term of leadership.
func (r *records) converger(token uint64) *converger {
	heard := time.Now().Add(-time.Hour)
	return newConverger(quiet(), r.store, r.hub, newMetrics(r.hub), ConvergeOptions{
		Interval: time.Hour, Grace: 15 * time.Second, Tasks: task.DefaultPolicy(), Heard: func() time.Time { return heard },
	}, store.Fence{Lease: convergeLease, Token: token})
}

func (r *records) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.store.Pools.Read.Exec(r.t.Context(), sql, args...)
	must(r.t, err)
}

// actuals are the instances of a process, in words.
func (r *records) actuals(process string) (all []string) {
	r.t.Helper()
	list, _, err := r.store.Actuals(r.t.Context(), store.ActualFilter{Process: lrp.ProcessGUID(process)}, store.Page{})
	must(r.t, err)
	for _, a := range list {
		text := []string{"ordinary", "evacuating", "suspect"}[a.Presence] + " " + string(a.State)
		if a.Retiring {
			text += " retiring"
		}
		all = append(all, text)
	}
	return all
}

// running makes a process of one instance that runs on a cell, which is present.
func (r *records) running(process string, cell lrp.CellID) {
	r.t.Helper()
	ctx, by := r.t.Context(), lrp.InstanceKey{Instance: lrp.InstanceGUID("i-" + process), Cell: cell}
	must(r.t, r.store.Heartbeat(ctx, cells.Presence{Cell: cell}, time.Minute, store.Call{}))
	must(r.t, r.store.Desire(ctx, app(process, 1), store.Call{}))
	must(r.t, r.store.Apply(ctx, claim(process, 0, by), store.Call{}))
	must(r.t, r.store.Apply(ctx, start(process, 0, by), store.Call{}))
}

// lose declares a cell lost, as a sweep does.
func (r *records) lose(cell lrp.CellID) {
	r.t.Helper()
	r.exec("update cells set last_seen = now() - interval '1 hour' where cell_id = $1", string(cell))
	lost, err := r.store.Sweep(r.t.Context(), time.Hour)
	must(r.t, err)
	if diff := cmp.Diff([]lrp.CellID{cell}, lost); diff != "" {
		r.t.Fatalf("lost (-want +got):\n%s", diff)
	}
}

// A leader that was paused and wakes up late does no harm: whoever has the newer token has written
// since, so its steps are refused, all of them, and it steps down (bbs reference §13.1, fencing; §20.2).
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	r.running("p", "c")
	r.exec("update desired_lrps set instances = 3") // as if a record got lost, twice
	old, newer := r.converger(7), r.converger(8)
	stale, err := r.store.Compare(ctx, time.Second) // the old leader has read, and is paused here
	must(t, err)
	if len(stale.Groups) == 0 {
		t.Fatal("the old leader has nothing to do")
	}
	if steps, err := newer.compare(ctx); err != nil || steps != 2 {
		t.Fatalf("the new leader took %d steps (%v), want 2", steps, err)
	}
	r.exec("delete from actual_lrps where index = 2") // there would be something for it to do
	mark, err := r.store.Revision(ctx)
	must(t, err)
	if _, err := old.compare(ctx); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the old leader was told %v, want that the lease is lost", err)
	}
	if err := old.run(ctx); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the work of the old leader ended with %v", err)
	}
	if now, err := r.store.Revision(ctx); err != nil || now != mark {
		t.Errorf("the old leader wrote %d changes (%v)", now-mark, err)
	}
	if steps, err := newer.compare(ctx); err != nil || steps != 1 {
		t.Errorf("the new leader took %d steps (%v), want 1", steps, err)
	}
}

// A tick in which nothing changed reads next to nothing; one after a change compares everything.
func TestQuietTick(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	r.running("p", "c")
	c := r.converger(1)
	for i, want := range []struct {
		before func()
		full   bool
	}{
		{func() {}, true}, // a new leader knows nothing
		{func() {}, false},
		{func() { r.running("q", "c") }, true},
		{func() {}, false},
		{func() { must(t, r.store.UpsertDomain(ctx, "d", 0)) }, true},
		{func() {}, false},
		{func() { c.seen.due = time.Now() }, true},
		{func() { c.seen.at = time.Now().Add(-fullShare*c.options.Interval - time.Second) }, true}, // the net
		{func() {}, false},
	} {
		want.before()
		before := c.seen.at
		if _, err := c.tick(ctx); err != nil {
			t.Fatal(err)
		}
		if full := c.seen.at != before; full != want.full {
			t.Errorf("tick %d compared everything: %v, want %v", i, full, want.full)
		}
	}
	for name, want := range map[string]float64{
		"bbs_converge_seconds quiet": 4, "bbs_converge_seconds full": 5, "bbs_lrps RUNNING": 2, "bbs_lrps_desired": 2, "bbs_cells present": 1,
		"bbs_cells lost": 0, "bbs_domain_fresh d": 1,
	} {
		if got, ok := metric(t, c.metrics, name); !ok || got != want {
			t.Errorf("metric %s: %v (%v), want %v", name, got, ok, want)
		}
	}
}

// What the log tells of as CRASHED restarts when its back-off is over, by the queue, and not before: 30 s after
// the third crash, 60 s after the fourth; each index for itself (bbs reference §4, §19 "crash back-off").
func TestRestartsByTheQueue(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	r := newRecordsAt(t, now)
	ctx := t.Context()
	must(t, r.store.Desire(ctx, app("p", 2), store.Call{}))
	crash := func(index int32, times int) {
		t.Helper()
		by := lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", index)), Cell: "c"}
		for range times {
			must(t, r.store.Apply(ctx, start("p", index, by), store.Call{}))
			must(t, r.store.Apply(ctx, lrp.Event{Name: lrp.Crash, Key: key("p", index), By: by, Reason: "r"}, store.Call{}))
		}
	}
	c := r.converger(1)
	seen := uint64(0)
	// wait lets some time pass, and does what the log and the clock ask for.
	wait := func(d time.Duration) []string {
		t.Helper()
		records, _, err := r.store.Events(ctx, seen, 1000)
		must(t, err)
		for i := range records {
			seen = records[i].Revision
			c.see([]*store.Record{&records[i]}, map[lrp.CellID]bool{})
		}
		clock.Add(int64(d))
		must(t, c.restartDue(ctx, now()))
		return r.actuals("p")
	}
	crash(0, 3)
	wait(10 * time.Second)
	crash(1, 3)
	for i, step := range []struct {
		wait  time.Duration
		then  func()
		first string
		other string
	}{
		{19 * time.Second, nil, "CRASHED", "CRASHED"},
		{time.Second, func() { crash(0, 1) }, "UNCLAIMED", "CRASHED"},
		{10 * time.Second, nil, "CRASHED", "UNCLAIMED"},
		{49 * time.Second, nil, "CRASHED", "UNCLAIMED"},
		{time.Second, nil, "UNCLAIMED", "UNCLAIMED"},
	} {
		if diff := cmp.Diff([]string{"ordinary " + step.first, "ordinary " + step.other}, wait(step.wait)); diff != "" {
			t.Errorf("step %d, after %v more (-want +got):\n%s", i, step.wait, diff)
		}
		if step.then != nil {
			step.then()
		}
	}
	list, _, err := r.store.Actuals(ctx, store.ActualFilter{Process: "p"}, store.Page{})
	must(t, err)
	if list[0].CrashCount != 4 || list[1].CrashCount != 3 {
		t.Errorf("crashes are %d and %d, want 4 and 3", list[0].CrashCount, list[1].CrashCount)
	}
}

// A restart that could not be taken is no longer due in the queue, and nothing in the log tells of it: the
// next tick finds it all the same, though the tick before found nothing to do.
func TestRestartThatFailed(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx, by := t.Context(), lrp.InstanceKey{Instance: "i", Cell: "c"}
	must(t, r.store.Desire(ctx, app("p", 1), store.Call{}))
	for range lrp.ImmediateRestarts + 1 {
		must(t, r.store.Apply(ctx, start("p", 0, by), store.Call{}))
		must(t, r.store.Apply(ctx, lrp.Event{Name: lrp.Crash, Key: key("p", 0), By: by, Reason: "r"}, store.Call{}))
	}
	c := r.converger(1)
	if _, err := c.tick(ctx); err != nil {
		t.Fatal(err)
	}
	due, ok := c.restart.next()
	if !ok {
		t.Fatalf("nothing is remembered of %v", r.actuals("p"))
	}
	r.exec("update actual_lrps set since = since - interval '1 hour'") // time passes
	r.exec("alter table actual_lrps rename to away")
	if err := c.restartDue(ctx, due); err == nil {
		t.Fatal("a restart was taken without a table")
	}
	r.exec("alter table away rename to actual_lrps")
	if _, err := c.tick(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ordinary UNCLAIMED"}, r.actuals("p")); diff != "" {
		t.Errorf("after the database was away (-want +got):\n%s", diff)
	}
	before := c.seen.at
	for range 2 { // one for what it changed itself
		_, err := c.tick(ctx)
		must(t, err)
	}
	at := c.seen.at
	if _, err := c.tick(ctx); err != nil || c.seen.at != at || at == before {
		t.Errorf("it does not become quiet again (%v)", err)
	}
}

// A callback whose task could not be marked is submitted again by the next tick, though nothing changed.
func TestCallbackThatFailed(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	one := echoTask("t")
	one.Definition.CompletionCallbackURL = "http://owner.example/done"
	must(t, r.store.DesireTask(ctx, one, store.Call{}))
	_, err := r.store.ApplyTask(ctx, task.Event{Name: task.Cancel, GUID: "t"}, store.Call{})
	must(t, err)
	c := r.converger(1)
	c.options.Tasks.Kick = time.Hour // not by its own time
	if _, err := c.tick(ctx); err != nil {
		t.Fatal(err)
	}
	at := c.seen.at
	r.exec("alter table tasks rename to away")
	ended := make(chan struct{})
	note := c.callbacks.Done
	c.callbacks.Done = func(o callback.Outcome, took time.Duration) { note(o, took); close(ended) }
	running, stop := context.WithCancel(ctx)
	over := make(chan error, 1)
	go func() { over <- c.callbacks.Run(running) }()
	one.State = task.Completed
	if !c.callbacks.Submit(one, "") {
		t.Fatal("the callback is not on its way")
	}
	<-ended
	stop()
	<-over
	r.exec("alter table away rename to tasks")
	if _, err := c.tick(ctx); err != nil || c.seen.at == at {
		t.Errorf("nobody looked at the task again (%v)", err)
	}
}

// A row that cannot be read is kept, and does not keep convergence from coming to an end.
func TestUnreadableRowIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	must(t, r.store.DesireTask(ctx, echoTask("t"), store.Call{}))
	r.exec("update tasks set definition = 'spoilt', created_at = now() - interval '1 hour'")
	c := r.converger(1)
	if steps, err := c.compare(ctx); err != nil || steps != 1 {
		t.Errorf("%d steps (%v), want that of the task that was not started, and no failure", steps, err)
	}
	if n, ok := metric(t, c.metrics, "bbs_converge_steps_total task expire"); ok {
		t.Errorf("%v steps are counted that were not taken", n)
	}
}

// metric returns the value of a metric, by its name and the values of its labels; of a histogram, how
// often it was used.
func metric(t *testing.T, m *metrics, name string) (float64, bool) {
	t.Helper()
	families, err := m.registry.Gather()
	must(t, err)
	for _, f := range families {
		for _, one := range f.GetMetric() {
			full := f.GetName()
			for _, l := range one.GetLabel() {
				full += " " + l.GetValue()
			}
			if full == name {
				return one.GetGauge().GetValue() + one.GetCounter().GetValue() + float64(one.GetHistogram().GetSampleCount()), true
			}
		}
	}
	return 0, false
}

// What was lost is repaired, and what nobody wants in a fresh domain is wound up, soon after the domain
// became fresh (bbs reference §9.4).
func TestFreshDomain(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	r.running("p", "c")
	r.exec("delete from desired_lrps")
	c := r.converger(1)
	if _, err := c.compare(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ordinary RUNNING"}, r.actuals("p")); diff != "" {
		t.Errorf("while the domain is stale (-want +got):\n%s", diff)
	}
	must(t, r.store.UpsertDomain(ctx, "d", 0))
	c.seen.at = c.seen.at.Add(-earlyPause)
	c.lookAtDomains(ctx)
	select {
	case <-c.early:
	default:
		t.Fatal("a domain became fresh, and nobody noticed")
	}
	if _, err := c.compare(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ordinary RUNNING retiring"}, r.actuals("p")); diff != "" {
		t.Errorf("once it is fresh (-want +got):\n%s", diff)
	}
}

// Tasks of a cell fail when it was lost for the whole grace time, both witnesses agree and another cell
// is there; until then they run on (bbs reference §9.5, §20.2).
func TestLostTasks(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	must(t, r.store.Heartbeat(ctx, cells.Presence{Cell: "dead"}, time.Minute, store.Call{}))
	must(t, r.store.DesireTask(ctx, task.Task{GUID: "t", Domain: "d", Definition: task.Definition{
		RootFS: "docker://r/i#t", Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/t", User: "vcap"}},
	}}, store.Call{}))
	_, err := r.store.ApplyTask(ctx, task.Event{Name: task.Start, GUID: "t", Cell: "dead"}, store.Call{})
	must(t, err)
	r.lose("dead")
	c := r.converger(1)
	state := func() task.State {
		t.Helper()
		if _, err := c.compare(ctx); err != nil {
			t.Fatal(err)
		}
		got, err := r.store.Task(ctx, "t")
		must(t, err)
		return got.State
	}
	age := func() { r.exec("update cells set lost_at = now() - interval '16 seconds' where cell_id = 'dead'") }
	if got := state(); got != task.Running {
		t.Errorf("within the grace time: state %v", got)
	}
	age()
	if got := state(); got != task.Running {
		t.Errorf("without any cell: state %v", got)
	}
	must(t, r.store.Heartbeat(ctx, cells.Presence{Cell: "alive"}, time.Minute, store.Call{}))
	for name, witness := range map[string]Witness{
		"sees it": func(context.Context) (map[lrp.CellID]bool, bool) { return map[lrp.CellID]bool{"dead": true}, true },
		"is mute": func(context.Context) (map[lrp.CellID]bool, bool) { return nil, false },
	} {
		c.options.Witness = witness
		if got := state(); got != task.Running {
			t.Errorf("while the second witness %s: state %v", name, got)
		}
	}
	c.options.Witness = func(context.Context) (map[lrp.CellID]bool, bool) { return map[lrp.CellID]bool{"alive": true}, true }
	if got := state(); got != task.Completed {
		t.Errorf("after the grace time: state %v", got)
	}
}

// A task that a new cell starts while everything is being read is not met without its cell: what is known of
// tasks and of cells is of one moment (bbs reference §9.5).
func TestTaskOnANewCell(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	must(t, r.store.Heartbeat(ctx, cells.Presence{Cell: "other"}, time.Minute, store.Call{}))
	must(t, r.store.DesireTask(ctx, echoTask("t"), store.Call{}))
	c := r.converger(1)
	if _, err := c.compare(ctx); err != nil {
		t.Fatal(err)
	}
	c.completeSince = c.completeSince.Add(-time.Hour) // the cells have been complete for long
	// The comparison has begun, and waits in the midst of it: it has the connection of the first one, where
	// all statements are prepared.
	conn, err := pgx.Connect(ctx, r.store.Pools.Read.Config().ConnString())
	must(t, err)
	defer conn.Close(context.Background())
	tx, err := conn.Begin(ctx)
	must(t, err)
	_, err = tx.Exec(ctx, "lock table actual_lrps in access exclusive mode")
	must(t, err)
	compared := make(chan error, 1)
	go func() {
		_, err := c.compare(ctx)
		compared <- err
	}()
	for waits := false; !waits; {
		err := tx.QueryRow(ctx, "select exists (select from pg_locks where relation = 'actual_lrps'::regclass and not granted)").Scan(&waits)
		must(t, err)
	}
	must(t, r.store.Heartbeat(ctx, cells.Presence{Cell: "new"}, time.Minute, store.Call{}))
	_, err = r.store.ApplyTask(ctx, task.Event{Name: task.Start, GUID: "t", Cell: "new"}, store.Call{})
	must(t, err)
	must(t, tx.Commit(ctx))
	must(t, <-compared)
	if got, err := r.store.Task(ctx, "t"); err != nil || got.State != task.Running {
		t.Errorf("the task that runs on a new cell has become %+v (%v)", got, err)
	}
}

// The instances of a cell become suspect in the moment it is lost, and get their slots back in the moment
// it returns: no pass is due for an hour. Another replica wrote what the leader acts on (bbs reference §6
// and §19: cell loss, promote).
func TestLostCellAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	cfg := func() *Config {
		c := w.config()
		c.ConvergeInterval = daemon.Duration(time.Hour)
		return c
	}
	_, stopLeader := w.replica(cfg())
	address, _ := w.replica(cfg())
	ctx := t.Context()
	client, cell := w.client(address, identity.Client), w.cell(address, "c1")
	must(t, client.Desire(ctx, app("p", 1)))
	by := lrp.InstanceKey{Instance: "i", Cell: "c1"}
	_, revision, err := client.Actuals(ctx, bbsclient.ActualFilter{})
	must(t, err)
	watch, err := w.client(address, identity.Auctioneer).Watch(ctx, revision, bbsclient.WatchFilter{})
	must(t, err)
	beat := func(ttl time.Duration) {
		must(t, cell.Heartbeat(ctx, cells.Presence{Cell: "c1", RepURL: "https://c1:1"}, ttl))
	}
	beat(time.Second)
	must(t, cell.Apply(ctx, claim("p", 0, by)))
	must(t, cell.Apply(ctx, start("p", 0, by)))
	awaitChange(t, watch, "the instance is suspect", func(ev event.Event) bool {
		return ev.Actual != nil && ev.Actual.After != nil && ev.Actual.After.Presence == lrp.Suspect
	})
	list, _, err := client.Actuals(ctx, bbsclient.ActualFilter{})
	if err != nil || len(list) != 2 {
		t.Errorf("records of the slot: %v (%v), want a suspect one and an UNCLAIMED one", list, err)
	}
	stopLeader() // the other one takes over, and finds it
	beat(time.Minute)
	awaitChange(t, watch, "the instance is ordinary again", func(ev event.Event) bool {
		return ev.Actual != nil && ev.Actual.After != nil && ev.Actual.After.Presence == lrp.Ordinary && ev.Actual.After.State == lrp.Running &&
			ev.Actual.Before != nil && ev.Actual.Before.Presence == lrp.Suspect
	})
}

// awaitChange reads a watch until something has happened.
func awaitChange(t *testing.T, w *bbsclient.Watch, what string, is func(event.Event) bool) {
	t.Helper()
	for {
		events, _, err := w.Recv()
		if err != nil {
			t.Fatalf("while waiting until %s: %v", what, err)
		}
		for _, ev := range events {
			if is(ev) {
				return
			}
		}
	}
}
