package bbs

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/event"
	"muster/bbs/internal/callback"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/internal/consul"
	"muster/internal/consultest"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/lease"
	"muster/internal/pgtest"
)

// tidings are a completion as a receiver gets it.
type tidings struct {
	by   identity.Role
	guid string
	text string
}

// owner is the owner of tasks, over HTTPS; it returns where it is to be told.
func owner(t *testing.T, ca *identity.CA) (url string, got chan tidings) {
	t.Helper()
	got = make(chan tidings, 16)
	files, err := ca.Issue(identity.ID{Role: identity.Client})
	must(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		id, _ := identity.Of(r.TLS.PeerCertificates[0])
		var m struct {
			GUID   string `json:"task_guid"`
			Result string `json:"result"`
		}
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		got <- tidings{id.Role, m.GUID, m.Result}
	}))
	s.TLS, err = files.Server(identity.BBS)
	must(t, err)
	s.StartTLS()
	t.Cleanup(s.Close)
	return fmt.Sprintf("https://localhost:%d/done", s.Listener.Addr().(*net.TCPAddr).Port), got
}

// A completion is told over HTTPS, with the certificate of the BBS, by the one replica that has the lease:
// once, and then the task is gone (bbs reference §19: callback, two replicas).
func TestCompletionIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	url, got := owner(t, w.ca)
	a, _ := w.replica(w.config())
	b, _ := w.replica(w.config())
	ctx := t.Context()
	client, cell := w.client(a, identity.Client), w.cell(b, "c1")
	_, revision, err := client.Tasks(ctx, bbsclient.TaskFilter{})
	must(t, err)
	watch, err := client.Watch(ctx, revision, bbsclient.WatchFilter{Domain: "d"})
	must(t, err)
	const count = 5
	want := map[tidings]bool{}
	for i := range count {
		one := echoTask(fmt.Sprintf("t%d", i))
		one.Definition.CompletionCallbackURL = url
		must(t, client.DesireTask(ctx, one))
		for _, ev := range []task.Event{{Name: task.Start, GUID: one.GUID, Cell: "c1"}, {Name: task.Complete, GUID: one.GUID, Cell: "c1", Result: "r"}} {
			_, err := cell.ApplyTask(ctx, ev)
			must(t, err)
		}
		want[tidings{identity.BBS, string(one.GUID), "r"}] = true
	}
	gone := 0 // one message may tell of several
	awaitChange(t, watch, "all tasks are gone", func(ev event.Event) bool {
		if ev.Task != nil && ev.Task.After == nil {
			gone++
		}
		return gone == count
	})
	for range count {
		one := <-got
		if !want[one] {
			t.Errorf("was told %+v, which is wrong or a repetition", one)
		}
		delete(want, one)
	}
	if len(got) > 0 {
		t.Errorf("was told %+v once more", <-got)
	}
}

// A leader that was paused and wakes up late tells nobody anything: its mark on the task is refused, and
// the new leader tells (bbs reference §13.1, fencing).
func TestPausedLeaderTellsNobody(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	ca, err := identity.OpenCA(t.TempDir())
	must(t, err)
	url, got := owner(t, ca)
	files, err := ca.Issue(identity.ID{Role: identity.BBS})
	must(t, err)
	tls, err := files.ClientByName()
	must(t, err)
	one := echoTask("t")
	one.Definition.CompletionCallbackURL = url
	must(t, r.store.DesireTask(ctx, one, store.Call{}))
	for _, ev := range []task.Event{{Name: task.Start, GUID: "t", Cell: "c"}, {Name: task.Complete, GUID: "t", Cell: "c"}} {
		_, err := r.store.ApplyTask(ctx, ev, store.Call{})
		must(t, err)
	}
	done, err := r.store.Task(ctx, "t")
	must(t, err)
	old, newer := r.converger(7), r.converger(8)
	r.running("p", "c")
	r.exec("update desired_lrps set instances = 2") // a step for the new leader
	if _, err := newer.compare(ctx); err != nil {
		t.Fatal(err)
	}
	for _, side := range []struct {
		c    *converger
		want callback.Outcome
	}{{old, callback.Later}, {newer, callback.Told}} {
		ended := make(chan callback.Outcome, 1)
		side.c.callbacks.Done = func(o callback.Outcome, _ time.Duration) { ended <- o }
		side.c.callbacks.TLS = tls
		pool := callback.New(side.c.callbacks.Options)
		if !pool.Submit(*done, "") {
			t.Fatal("the delivery is not begun")
		}
		running, stop := context.WithCancel(ctx)
		over := make(chan error, 1)
		go func() { over <- pool.Run(running) }()
		if outcome := <-ended; outcome != side.want {
			t.Errorf("token %d: the delivery ended as %q, want %q", side.c.call.Fence.Token, outcome, side.want)
		}
		stop()
		<-over
	}
	if n := len(got); n != 1 {
		t.Errorf("was told %d times, want once", n)
	}
	if left, err := r.store.Task(ctx, "t"); left != nil {
		t.Errorf("the task is still there: %+v (%v)", left, err)
	}
}

// With "lease: consul", a cell whose heartbeats fail keeps its tasks while its session in Consul lives,
// however long; when that is gone too, they fail (bbs reference §9.5, §20.2).
func TestConsulIsTheSecondWitness(t *testing.T) {
	t.Parallel()
	agent, prefix := consultest.Shared(t)
	w := newWorld(t, pgtest.Database(t, nil))
	cfg := w.config()
	cfg.Kind, cfg.Consul = lease.Consul, consul.Defaults()
	cfg.Consul.Address, cfg.Consul.Prefix, cfg.Consul.Token = agent.Address(), prefix, daemon.Secret(agent.Token())
	cfg.LostCellGrace, cfg.ConvergeInterval, cfg.SweepInterval = daemon.Duration(time.Second), daemon.Duration(time.Second), daemon.Duration(50*time.Millisecond)
	must(t, cfg.Validate())
	directory, err := consul.Open(cfg.Consul)
	must(t, err)
	session, endSession := context.WithCancel(t.Context())
	defer endSession()
	ended := make(chan struct{})
	for _, cell := range []string{"cut-off", "alive"} {
		ctx := t.Context()
		if cell == "cut-off" {
			ctx = session
		}
		go func() {
			directory.Announce(ctx, quiet(), consul.Presence{Key: cell, TTL: 10 * time.Second})
			if cell == "cut-off" {
				close(ended)
			}
		}()
	}
	for seen := 0; seen < 2; {
		present, err := directory.Present(t.Context())
		must(t, err)
		seen = len(present)
	}
	address, _ := w.replica(cfg)
	ctx := t.Context()
	client := w.client(address, identity.Client)
	_, revision, err := client.Tasks(ctx, bbsclient.TaskFilter{})
	must(t, err)
	watch, err := client.Watch(ctx, revision, bbsclient.WatchFilter{Domain: "d"})
	must(t, err)
	for _, cell := range []lrp.CellID{"cut-off", "dead", "alive"} {
		ttl := time.Second
		if cell == "alive" {
			ttl = time.Minute
		}
		rep := w.cell(address, string(cell))
		must(t, client.DesireTask(ctx, echoTask(string(cell))))
		must(t, rep.Heartbeat(ctx, cells.Presence{Cell: cell, RepURL: "https://c:1"}, ttl))
		_, err := rep.ApplyTask(ctx, task.Event{Name: task.Start, GUID: task.GUID(cell), Cell: cell})
		must(t, err)
	}
	fails := func(guid task.GUID) {
		t.Helper()
		awaitChange(t, watch, "the task fails", func(ev event.Event) bool {
			if ev.Task == nil || ev.Task.After == nil || ev.Task.After.State != task.Completed {
				return false
			}
			if ev.Task.After.GUID != guid {
				t.Fatalf("the task of %s fails, want that of %s to be first", ev.Task.After.GUID, guid)
			}
			return ev.Task.After.Failed
		})
	}
	fails("dead") // which was silent for no longer than the one that is cut off
	endSession()
	<-ended
	fails("cut-off")
	if one, err := client.Task(ctx, "alive"); err != nil || one.State != task.Running {
		t.Errorf("the task of the cell that is alive has become %+v (%v)", one, err)
	}
}

// Cells are in doubt while the second witness sees them or is mute, and a cell that only that one sees is
// neither present nor gone, whether or not heartbeats can be stored.
func TestDoubt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	heard := now.Add(-time.Hour)
	c := &converger{options: ConvergeOptions{Heard: func() time.Time { return heard }}}
	list := func() cells.Presences {
		return cells.Presences{Known: true, Cells: map[lrp.CellID]cells.Sight{"here": {}, "lost": {LostAt: now.Add(-time.Hour)}, "seen": {LostAt: now.Add(-time.Hour)}}}
	}
	ask := func() cells.Presences {
		p := list()
		c.doubt(t.Context(), &p)
		return p
	}
	later := time.Now().Add(time.Hour) // all that was seen since a while ago has settled
	type verdict struct{ present, lost, gone bool }
	of := func(p cells.Presences, cell lrp.CellID) verdict {
		return verdict{p.Present(cell), p.Lost(cell, later), p.Gone(cell, later, time.Minute)}
	}
	check := func(when string, p cells.Presences, want map[lrp.CellID]verdict) {
		t.Helper()
		for cell, want := range want {
			if got := of(p, cell); got != want {
				t.Errorf("%s: cell %s is %+v, want %+v", when, cell, got, want)
			}
		}
	}
	gone, lost := verdict{lost: true, gone: true}, verdict{lost: true}
	check("without second witness", ask(), map[lrp.CellID]verdict{"here": {present: true}, "lost": gone, "seen": gone, "unlisted": gone})
	answer, known := map[lrp.CellID]bool{"seen": true, "unlisted": true}, true
	c.options.Witness = func(context.Context) (map[lrp.CellID]bool, bool) { return answer, known }
	check("with one", ask(), map[lrp.CellID]verdict{"here": {present: true}, "lost": gone, "seen": lost, "unlisted": lost, "nowhere": gone})
	heard = time.Time{}
	check("while nobody is heard", ask(), map[lrp.CellID]verdict{"here": {present: true}, "seen": lost, "unlisted": {}, "nowhere": {}})
	heard, known = now, false
	check("while it is mute", ask(), map[lrp.CellID]verdict{"here": {present: true}, "lost": lost, "seen": lost, "unlisted": {}})
}

// Right after the table of cells was wiped, the first cell that is heard of again does not make the
// instances of all others suspect; those that stay away are lost once that has settled.
func TestWipedCells(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	ctx := t.Context()
	r.running("p", "first")
	r.running("q", "second")
	c := r.converger(1)
	compare := func(want int) {
		t.Helper()
		if steps, err := c.compare(ctx); err != nil || steps != want {
			t.Fatalf("%d steps (%v), want %d", steps, err, want)
		}
	}
	compare(0)
	c.completeSince = c.completeSince.Add(-time.Hour)
	r.exec("delete from cells")
	must(t, r.store.Heartbeat(ctx, cells.Presence{Cell: "first"}, time.Minute, store.Call{}))
	compare(0)
	if due := c.seen.due; due.Before(time.Now()) || due.After(time.Now().Add(cells.Settle)) {
		t.Errorf("looks again at %v, want when it has settled", due)
	}
	must(t, c.repair(ctx, []lrp.CellID{"first", "second"}))
	compare(0)
	c.completeSince = c.completeSince.Add(-cells.Settle)
	compare(1)
	if got := r.actuals("q"); len(got) != 2 {
		t.Errorf("the slot of the cell that stayed away has %v, want a suspect and its successor", got)
	}
}

// What is out of bounds, or makes no sense together, is named.
func TestTaskSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "postgres:///x")
	if got, want := w.config().taskPolicy(), task.DefaultPolicy(); got != want {
		t.Errorf("by default, tasks have the limits %+v, want %+v", got, want)
	}
	for field, spoil := range map[string]func(*Config){
		"max_task_retries -1":                   func(c *Config) { c.MaxTaskRejections = -1 },
		"expire_pending_task_duration 999ms":    func(c *Config) { c.ExpirePendingTask = daemon.Duration(999 * time.Millisecond) },
		"kick_task_duration 1h0m1s":             func(c *Config) { c.KickTask = daemon.Duration(time.Hour + time.Second) },
		"expire_completed_task_duration 168h0m": func(c *Config) { c.ExpireCompletedTask = daemon.Duration(168*time.Hour + time.Second) },
		"want more than kick_task_duration":     func(c *Config) { c.ExpireCompletedTask = c.KickTask },
		"task_callback_workers 10001":           func(c *Config) { c.TaskCallbackWorkers = 10_001 },
		"communication_timeout 10s: want at most 9.999999999s, five sixths of kick_task_duration, 11.999999999s": func(c *Config) { c.KickTask = daemon.Duration(12*time.Second - 1) },
		"communication_timeout 99ms": func(c *Config) { c.CallbackTimeout = daemon.Duration(99 * time.Millisecond) },
	} {
		cfg := w.config()
		spoil(cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v, want it to say %q", err, field)
		}
	}
}
