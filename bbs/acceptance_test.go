package bbs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// What the acceptance tests of this package, one for each line of bbs reference §19, have in common.
// Every test names its line in its comment, with the paragraph; internal/arch looks that none is missing.

// patience bounds the wait for something that has to happen.
const patience = 60 * time.Second

// scene is a replica, its clients, and a way into its database: what takes long by itself is made old
// there.
type scene struct {
	*world
	address    string
	stop       func()
	client     *bbsclient.Client
	auctioneer *bbsclient.Client
	db         *pgxpool.Pool
}

// newScene runs a replica that compares everything after an interval: at an hour, what the test sees
// happened at once.
func newScene(t *testing.T, interval time.Duration) *scene {
	t.Helper()
	s := &scene{world: newWorld(t, pgtest.Database(t, nil))}
	s.address, s.stop = s.replica(s.every(interval))
	s.client, s.auctioneer = s.world.client(s.address, identity.Client), s.world.client(s.address, identity.Auctioneer)
	db, err := pgxpool.New(t.Context(), s.url)
	must(t, err)
	t.Cleanup(db.Close)
	s.db = db
	return s
}

func (s *scene) every(interval time.Duration) *Config {
	cfg := s.config()
	cfg.ConvergeInterval, cfg.LostCellGrace = daemon.Duration(interval), daemon.Duration(time.Second)
	return cfg
}

func (s *scene) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := s.db.Exec(t.Context(), sql, args...)
	must(t, err)
}

// pass returns when everything was compared, and repaired, by a comparison that began after it was
// called. Of two records that are found missing one after the other, the second is only looked for when
// the first is done with.
func (s *scene) pass(t *testing.T) {
	t.Helper()
	for range 2 {
		name := fmt.Sprintf("marker-%d", time.Now().UnixNano())
		must(t, s.client.Desire(t.Context(), app(name, 1)))
		s.exec(t, "delete from actual_lrps where process_guid = $1", name)
		must(t, s.client.Desire(t.Context(), app(name+"-change", 0))) // or the next tick is a quiet one
		s.until(t, name, "repaired", func(list []lrp.Actual) bool { return len(list) == 1 })
		must(t, s.client.RemoveDesired(t.Context(), lrp.ProcessGUID(name)))
	}
}

// actuals lists the instances of a process.
func (s *scene) actuals(t *testing.T, process string) []lrp.Actual {
	t.Helper()
	list, _, err := s.client.Actuals(t.Context(), bbsclient.ActualFilter{Process: lrp.ProcessGUID(process)})
	must(t, err)
	return list
}

// until waits until the instances of a process are so, asked again after every change.
func (s *scene) until(t *testing.T, process, what string, ok func([]lrp.Actual) bool) []lrp.Actual {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f := bbsclient.ActualFilter{Process: lrp.ProcessGUID(process)}
	list, revision, err := s.client.Actuals(ctx, f)
	must(t, err)
	watch, err := s.client.Watch(ctx, revision, bbsclient.WatchFilter{Process: f.Process})
	must(t, err)
	for !ok(list) {
		if _, _, err := watch.Recv(); err != nil {
			t.Fatalf("%s is not %s: %+v (%v)", process, what, list, err)
		}
		list, _, err = s.client.Actuals(ctx, f)
		must(t, err)
	}
	return list
}

// all returns a condition: so many instances, and all of them in a state.
func all(n int, state lrp.State) func([]lrp.Actual) bool {
	return func(list []lrp.Actual) bool {
		return len(list) == n && !slices.ContainsFunc(list, func(a lrp.Actual) bool { return a.State != state || a.Retiring })
	}
}

// one returns a condition: a single instance, ordinary, in a state after so many crashes.
func one(state lrp.State, crashes int32) func([]lrp.Actual) bool {
	return func(list []lrp.Actual) bool {
		return all(1, state)(list) && list[0].Presence == lrp.Ordinary && list[0].CrashCount == crashes
	}
}

// untilTask waits until a task is so; it is nil when there is none.
func (s *scene) untilTask(t *testing.T, guid, what string, ok func(*task.Task) bool) *task.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, revision, err := s.client.Tasks(ctx, bbsclient.TaskFilter{})
	must(t, err)
	watch, err := s.client.Watch(ctx, revision, bbsclient.WatchFilter{Task: task.GUID(guid)})
	must(t, err)
	for {
		now, err := s.client.Task(ctx, task.GUID(guid))
		got := &now
		if isTask(err, task.NotFound) {
			got, err = nil, nil
		}
		must(t, err)
		if ok(got) {
			return got
		}
		if _, _, err := watch.Recv(); err != nil {
			t.Fatalf("task %s is not %s: %+v (%v)", guid, what, got, err)
		}
	}
}

// ended is a condition of untilTask.
func ended(t *task.Task) bool { return t != nil && t.State == task.Completed }

func isLRP(err error, why lrp.Why) bool {
	var r *lrp.Refusal
	return errors.As(err, &r) && r.Why == why
}

func isTask(err error, why task.Why) bool {
	var r *task.Refusal
	return errors.As(err, &r) && r.Why == why
}

// names tells whether an error names a field as invalid.
func names(err error, field string) bool {
	var inv *lrp.Invalid
	return errors.As(err, &inv) && slices.ContainsFunc(inv.Fields, func(f lrp.FieldError) bool { return f.Field == field })
}

// testCell is a cell without containers: a rep that is its own auctioneer. It takes every slot that
// waits for a place, runs it, and stops what it is told to stop. What it did not start itself, and
// what the records say it has, it does not find: so it is after a restart of the machine.
type testCell struct {
	s     *scene
	id    lrp.CellID
	calls *bbsclient.Client

	mu      sync.Mutex
	made    int
	has     map[lrp.InstanceGUID]bool
	crashes map[lrp.ProcessGUID]bool // what ends as soon as it runs
	full    bool                     // it takes nothing more
}

// present announces a cell for a time, without anything that would follow for it.
func (s *scene) present(t *testing.T, id string, ttl time.Duration) *bbsclient.Client {
	t.Helper()
	c := s.cell(s.address, id)
	must(t, c.Heartbeat(t.Context(), cells.Presence{Cell: lrp.CellID(id), RepURL: "https://" + id + ":1"}, ttl))
	return c
}

// newCell starts a cell. It beats once: with a ttl of a second it is lost soon, when the test wants.
func (s *scene) newCell(t *testing.T, id string, ttl time.Duration, change ...func(*testCell)) (c *testCell, stop func()) {
	t.Helper()
	c = &testCell{s: s, id: lrp.CellID(id), has: map[lrp.InstanceGUID]bool{}, crashes: map[lrp.ProcessGUID]bool{}}
	for _, f := range change {
		f(c)
	}
	c.calls = s.present(t, id, ttl)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.auctioneer.Follow(ctx, bbsclient.FollowOptions{Log: quiet(), // ends with ctx
			List: func(ctx context.Context) (uint64, error) {
				list, revision, err := s.auctioneer.Actuals(ctx, bbsclient.ActualFilter{})
				for _, a := range list {
					c.look(ctx, a)
				}
				return revision, err
			},
			Apply: func(events []bbsclient.Event) {
				for _, ev := range events {
					if ev.Actual != nil && ev.Actual.After != nil {
						c.look(ctx, *ev.Actual.After)
					}
				}
			},
		})
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return c, stop
}

// look does what a record asks for.
func (c *testCell) look(ctx context.Context, a lrp.Actual) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case a.State == lrp.Unclaimed && !c.full:
		c.run(ctx, a.Key)
	case a.Cell == c.id && (a.Retiring || !c.has[a.Instance]):
		delete(c.has, a.Instance)
		c.report(ctx, lrp.Event{Name: lrp.Remove, Key: a.Key, By: a.InstanceKey})
	}
}

// run takes a slot and starts it, unless another cell was faster; c.mu is held.
func (c *testCell) run(ctx context.Context, k lrp.Key) {
	c.made++
	by := lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprintf("%s-%d-%d", c.id, c.made, time.Now().UnixNano())), Cell: c.id}
	c.has[by.Instance] = true
	if !c.report(ctx, lrp.Event{Name: lrp.Claim, Key: k, By: by}) {
		delete(c.has, by.Instance)
		return
	}
	ev := start(string(k.Slot.Process), k.Slot.Index, by)
	ev.Key = k
	if c.report(ctx, ev) && c.crashes[k.Slot.Process] {
		delete(c.has, by.Instance)
		c.report(ctx, lrp.Event{Name: lrp.Crash, Key: k, By: by, Reason: "APP: Exited with status 1"})
	}
}

// report makes a call, and reports whether it was accepted. A refusal is an answer; nothing else may go
// wrong while the cell lives.
func (c *testCell) report(ctx context.Context, ev lrp.Event) bool {
	err := c.calls.Apply(ctx, ev)
	var refused *lrp.Refusal
	if err != nil && !errors.As(err, &refused) && ctx.Err() == nil {
		c.s.t.Errorf("cell %s reports %s of %v: %v", c.id, ev.Name, ev.Key.Slot, err)
	}
	return err == nil
}

// set changes what a cell does from now on.
func (c *testCell) set(change func(*testCell)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}
