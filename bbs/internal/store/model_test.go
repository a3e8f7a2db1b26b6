package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/pgtest"
)

// model is what the store is to be: the rules of bbs/lrp and bbs/task over maps.
type model struct {
	now      time.Time
	desired  map[lrp.ProcessGUID]lrp.Desired
	groups   map[lrp.Slot]lrp.Group
	tasks    map[task.GUID]task.Task
	requests map[requestID][32]byte
	token    uint64
	changes  uint64 // how many entries the log should have
}

func newModel() model {
	return model{
		now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), desired: map[lrp.ProcessGUID]lrp.Desired{}, groups: map[lrp.Slot]lrp.Group{},
		tasks: map[task.GUID]task.Task{}, requests: map[requestID][32]byte{},
	}
}

// copy returns a model that can change without this one.
func (m *model) copy() model {
	c := *m
	c.desired, c.groups, c.tasks, c.requests = maps.Clone(m.desired), maps.Clone(m.groups), maps.Clone(m.tasks), maps.Clone(m.requests)
	return c
}

// answer is what the store should answer to a request, and the model what it becomes.
func (m *model) answer(r *request) (answer, error) {
	if f := r.call.Fence; f.Lease != "" {
		if f.Token < m.token {
			return answer{}, ErrFenced
		}
		if !r.call.ValidateOnly {
			m.token = f.Token
		}
	}
	if digest, known := m.requests[r.id]; known {
		if digest != r.call.RequestDigest {
			return answer{}, requestIDError("was used for another request")
		}
		return answer{}, nil
	}
	before := m.copy()
	a, err := m.decide(r.op)
	if err != nil || r.call.ValidateOnly {
		*m = before
	} else if r.id.id != "" {
		m.requests[r.id] = r.call.RequestDigest
	}
	if r.call.ValidateOnly {
		a.shouldStart = false
	}
	return a, err
}

// answer is what a call is told beside an error.
type answer struct{ keep, shouldStart bool }

// told is what the store told.
func told(o op) answer {
	switch o := o.(type) {
	case *eventOp:
		return answer{keep: o.keep}
	case *taskOp:
		return answer{shouldStart: o.shouldStart}
	}
	return answer{}
}

// apply runs the rules for one event of a slot.
func (m *model) apply(ev lrp.Event) (keep bool, err error) {
	slot := ev.Key.Slot
	d := m.desired[slot.Process]
	g := m.groups[slot]
	g.Wanted, g.Domain, g.Strategy = slot.Index < d.Instances, d.Domain, d.Strategy
	running := int32(0)
	for other, g := range m.groups {
		if other.Process == slot.Process && g.Ordinary != nil && g.Ordinary.State == lrp.Running {
			running++
		}
	}
	g.Complete = running >= d.Instances
	ev.Epoch = newEpoch()
	out, err := lrp.Apply(g, ev, m.now)
	if err != nil {
		return out.Keep, err
	}
	m.groups[slot] = out.Group
	m.changes += uint64(len(out.Crashes) + len(lrp.Diff(g, out.Group)))
	return out.Keep, nil
}

// applyTask runs the rules for one event of a task.
func (m *model) applyTask(ev task.Event) (shouldStart bool, err error) {
	var before *task.Task
	if x, there := m.tasks[ev.GUID]; there {
		before = &x
	}
	out, err := task.Apply(before, ev, task.DefaultPolicy(), m.now)
	if err != nil {
		return false, err
	}
	if task.Diff(before, out.Task) != nil {
		m.changes++
	}
	delete(m.tasks, ev.GUID)
	if out.Task != nil {
		m.tasks[ev.GUID] = *out.Task
	}
	return out.ShouldStart, nil
}

// put stores a DesiredLRP, or none, and makes the slots fit.
func (m *model) put(p lrp.ProcessGUID, domain lrp.Domain, d *lrp.Desired) error {
	m.changes++
	wanted := int32(0)
	delete(m.desired, p)
	if d != nil {
		m.desired[p], wanted = *d, d.Instances
	}
	var existing []int32
	for slot, g := range m.groups {
		if slot.Process == p && g.Ordinary != nil {
			existing = append(existing, slot.Index)
		}
	}
	for _, ev := range lrp.Resize(p, domain, existing, wanted) {
		if _, err := m.apply(ev); err != nil {
			return err
		}
	}
	return nil
}

// decide is what the store should answer to a call.
func (m *model) decide(o op) (a answer, err error) {
	switch o := o.(type) {
	case *desireOp:
		p := o.desired.Process
		if _, there := m.desired[p]; there {
			return a, &lrp.Refusal{Slot: lrp.Slot{Process: p}, Event: eventDesire, Why: lrp.Exists}
		}
		d := o.desired
		d.RunInfo.CreatedAt = m.now
		return a, m.put(p, d.Domain, &d)
	case *updateOp:
		d, there := m.desired[o.process]
		if !there {
			return a, &lrp.Refusal{Slot: lrp.Slot{Process: o.process}, Event: eventUpdate, Why: lrp.NotFound}
		}
		if err := o.update.ValidateFor(d); err != nil {
			return a, err
		}
		after := o.update.Apply(d)
		if cmp.Equal(d, after, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(lrp.Desired{}, "Tag")) {
			return a, nil
		}
		return a, m.put(o.process, d.Domain, &after)
	case *deleteOp:
		d, there := m.desired[o.process]
		if !there {
			return a, &lrp.Refusal{Slot: lrp.Slot{Process: o.process}, Event: eventDelete, Why: lrp.NotFound}
		}
		return a, m.put(o.process, d.Domain, nil)
	case *eventOp:
		a.keep, err = m.apply(o.ev)
		return a, err
	case *taskOp:
		a.shouldStart, err = m.applyTask(o.ev)
		return a, err
	}
	panic(fmt.Sprintf("no such call: %T", o))
}

// anyCall draws a call about few processes, slots and instances, so that calls meet.
func anyCall(t *rapid.T) op {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	process := pick("process", "p", "p", "p", "q")
	domain := lrp.Domain(pick("domain", "d", "d", "e"))
	instances := rapid.Int32Range(0, 3).Draw(t, "instances")
	switch pick("call", "desire", "update", "remove", "task", "task", "event", "event", "event", "event", "event", "event") {
	case "task":
		return anyTaskCall(t)
	case "desire":
		d := app(process, instances)
		d.Domain, d.RunInfo.Ports = domain, []uint32{8080}
		d.Strategy = rapid.SampledFrom([]lrp.UpdateStrategy{lrp.Rolling, lrp.Recreate}).Draw(t, "strategy")
		return &desireOp{desired: d, epoch: newEpoch}
	case "update":
		return &updateOp{process: lrp.ProcessGUID(process), update: anyUpdate(t, instances), epoch: newEpoch}
	case "remove":
		return &deleteOp{process: lrp.ProcessGUID(process), epoch: newEpoch}
	}
	name := rapid.SampledFrom(lrp.EventNames()).Draw(t, "event")
	key := slotKey(process, rapid.SampledFrom([]int32{0, 0, 0, 1, 2, 3}).Draw(t, "index"))
	key.Domain = domain
	ev := lrp.Event{Name: name, Key: key, Epoch: newEpoch(), Reason: pick("reason", "a", "b")}
	if name == lrp.Fail {
		ev.Explanation = &lrp.Explanation{Cells: int64(len(pick("cells", "", "c"))), Remedy: pick("remedy", "", "wait")}
	}
	if pick("by", "somebody", "somebody", "somebody", "nobody") == "somebody" {
		ev.By = lrp.InstanceKey{Instance: lrp.InstanceGUID(pick("instance", "i", "i", "i", "j")), Cell: lrp.CellID(pick("cell", "c1", "c1", "c1", "c2"))}
	}
	if name == lrp.Start || name == lrp.EvacuateRunning {
		ev.NetInfo = lrp.NetInfo{Address: pick("address", "10.0.0.1", "10.0.0.2"), Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61001}}}
		ev.InternalRoutes, ev.MetricTags = []string{"a.internal"}, map[string]string{"k": pick("tag", "v", "w")}
		ev.Routable = rapid.Bool().Draw(t, "routable")
	}
	return &eventOp{ev: ev}
}

// anyTaskCall draws an event of one of two tasks.
func anyTaskCall(t *rapid.T) op {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	ev := task.Event{
		Name: rapid.SampledFrom(task.EventNames()).Draw(t, "task event"), GUID: task.GUID(pick("guid", "t", "t", "u")),
		Cell: lrp.CellID(pick("cell", "", "c1", "c1", "c2")), Reason: pick("reason", "a", "b"), Result: pick("result", "", "r"),
		Failed: rapid.Bool().Draw(t, "failed"),
	}
	if rapid.IntRange(0, 3).Draw(t, "new") == 0 { // or most events would meet no task
		ev.Name = task.Desire
	}
	if ev.Name == task.Desire {
		x := job(string(ev.GUID))
		ev.Task = &x
	}
	return &taskOp{ev: ev, policy: task.DefaultPolicy()}
}

// anyRequest draws a call and what goes with it.
func anyRequest(t *rapid.T, o op) *request {
	r := &request{ctx: context.Background(), op: o, call: &Call{}, answer: make(chan error, 1)}
	r.call.ValidateOnly = rapid.IntRange(0, 7).Draw(t, "asks only") == 0
	if rapid.IntRange(0, 7).Draw(t, "fenced") == 0 {
		r.call.Fence = Fence{"l", rapid.Uint64Range(1, 4).Draw(t, "token")}
	}
	_, desires := o.(*desireOp)
	if x, ok := o.(*taskOp); (desires || ok && x.ev.Name == task.Desire) && rapid.Bool().Draw(t, "remembered") {
		r.id = requestID{rapid.SampledFrom([]string{"r", "s"}).Draw(t, "request id"), rapid.Int32Range(0, 1).Draw(t, "item")}
		r.call.RequestDigest[0] = byte(rapid.IntRange(0, 1).Draw(t, "digest"))
	}
	return r
}

func anyUpdate(t *rapid.T, instances int32) lrp.Update {
	var u lrp.Update
	if rapid.Bool().Draw(t, "scales") {
		u.Instances = &instances
	}
	if rapid.Bool().Draw(t, "annotates") {
		text := rapid.SampledFrom([]string{"", "a"}).Draw(t, "annotation")
		u.Annotation = &text
	}
	if rapid.Bool().Draw(t, "routes") {
		u.Routes = rapid.SampledFrom([]map[string][]byte{
			{}, {"other": []byte("x")}, {"cf-router": []byte(`[{"hostnames":["b.example"],"port":8080}]`)},
			{"cf-router": []byte(`[{"hostnames":["b.example"],"port":9999}]`)}, // a port that is not open
		}).Draw(t, "new routes")
	}
	if rapid.Bool().Draw(t, "credentials") {
		name, password := "u", rapid.SampledFrom([]string{"x", "y"}).Draw(t, "password")
		u.ImageUsername, u.ImagePassword = &name, &password
	}
	return u
}

// rewind empties a database as if it were new, but for some suspect and evacuating records, which
// take many calls to make.
func (m *model) rewind(t *rapid.T, s *Store) {
	ctx := context.Background()
	for _, sql := range []string{"truncate desired_lrps, actual_lrps, tasks, requests, fences, events", "update sequencer set revision = 0"} {
		if _, err := s.Pools.Read.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	var c actualRows
	for i, cell := range []lrp.CellID{"c1", "c2"} {
		if !rapid.Bool().Draw(t, "with an odd one") {
			continue
		}
		a := lrp.Actual{
			Key: slotKey("p", int32(i)), InstanceKey: lrp.InstanceKey{Instance: "j", Cell: cell}, State: lrp.Claimed,
			Presence: rapid.SampledFrom([]lrp.Presence{lrp.Suspect, lrp.Evacuating}).Draw(t, "presence"),
			Since:    m.now, Tag: lrp.ModificationTag{Epoch: newEpoch()},
		}
		if err := s.actualRow(&c, &a); err != nil {
			t.Fatal(err)
		}
		g := lrp.Group{Suspect: &a}
		if a.Presence == lrp.Evacuating {
			g = lrp.Group{Evacuating: &a}
		}
		m.groups[a.Slot] = g
	}
	if args := c.args(); args.has() {
		if _, err := s.Pools.Read.Exec(ctx, s.sql["insert_actuals"], args...); err != nil {
			t.Fatal(err)
		}
	}
}

// compare fails unless the tables hold what the model holds. Epochs are random.
func (m *model) compare(t *rapid.T, s *Store) {
	ctx := context.Background()
	all, err := s.Everything(ctx)
	if err != nil {
		t.Fatal(err)
	}
	whole, _, err := s.Desired(ctx, DesiredFilter{}, Page{})
	if err != nil {
		t.Fatal(err)
	}
	desired, actuals, wanted := map[lrp.ProcessGUID]lrp.Desired{}, map[instance]lrp.Actual{}, map[instance]lrp.Actual{}
	for _, d := range whole {
		desired[d.Process] = d
	}
	for _, a := range all.Actuals {
		actuals[of(a)] = a
	}
	for _, g := range m.groups {
		for _, a := range []*lrp.Actual{g.Ordinary, g.Evacuating, g.Suspect} {
			if a != nil {
				wanted[of(*a)] = *a
			}
		}
	}
	ignore := cmpopts.IgnoreFields(lrp.ModificationTag{}, "Epoch")
	if diff := cmp.Diff(m.desired, desired, cmpopts.EquateEmpty(), ignore); diff != "" {
		t.Fatalf("desired (-model +store):\n%s", diff)
	}
	if diff := cmp.Diff(wanted, actuals, cmpopts.EquateEmpty(), ignore); diff != "" {
		t.Fatalf("actual (-model +store):\n%s", diff)
	}
	stored, _, err := s.Tasks(ctx, TaskFilter{}, Page{})
	if err != nil {
		t.Fatal(err)
	}
	tasks := map[task.GUID]task.Task{}
	for _, x := range stored {
		tasks[x.GUID] = x
	}
	if diff := cmp.Diff(m.tasks, tasks, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("tasks (-model +store):\n%s", diff)
	}
	if token, err := s.Token(ctx, "l"); err != nil || token != m.token {
		t.Fatalf("the token is %d (%v), want %d", token, err, m.token)
	}
	if all.Revision != m.changes {
		t.Fatalf("the log has %d entries, want %d: one for each change and crash", all.Revision, m.changes)
	}
}

// Over random histories of calls, in batches of random size, the store answers and becomes what the
// rules of bbs/lrp say, and what changes nothing writes nothing.
func TestStoreIsTheRules(t *testing.T) {
	t.Parallel()
	m := &model{}
	s := open(t, pgtest.Database(t, Migrate), Options{Now: func() time.Time { return m.now }})
	accepted, refused, invalid := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		*m = newModel()
		m.rewind(rt, s)
		for batch := range rapid.IntRange(1, 12).Draw(rt, "batches") {
			m.now = m.now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, 10 * time.Minute}).Draw(rt, "later"))
			var requests []*request
			var want []error
			var wantTold []answer
			for n := range rapid.IntRange(1, 6).Draw(rt, "calls") {
				r := anyRequest(rt, anyCall(rt))
				if batch == 0 && n == 0 { // or most calls would be refused
					r = &request{ctx: context.Background(), op: &desireOp{desired: app("p", 3), epoch: newEpoch}, call: &Call{}, answer: make(chan error, 1)}
				}
				a, err := m.answer(r)
				want, wantTold, requests = append(want, err), append(wantTold, a), append(requests, r)
			}
			if rapid.IntRange(0, 3).Draw(rt, "bulk") == 0 {
				commitChunk(s, requests)
			} else {
				s.commit(context.Background(), requests, func() {})
			}
			for i, r := range requests {
				got := <-r.answer
				if !sameText(want[i], got) {
					rt.Fatalf("call %d, %T %+v: the store says %v, the rules %v", i, r.op, r.op, got, want[i])
				}
				if a := told(r.op); isDecision(got) && r.id.id == "" && a != wantTold[i] {
					rt.Fatalf("call %d, %T %+v: the store tells %+v, the rules %+v", i, r.op, r.op, a, wantTold[i])
				}
				var inv *lrp.Invalid
				switch {
				case got == nil:
					accepted++
				case errors.As(got, &inv):
					invalid++
				default:
					refused++
				}
			}
			m.compare(rt, s)
		}
	})
	t.Logf("%d calls accepted, %d refused, %d invalid", accepted, refused, invalid)
	if accepted == 0 || refused == 0 || invalid == 0 {
		t.Error("the generator is lopsided")
	}
}

// commitChunk commits requests as a chunk of a bulk call.
func commitChunk(s *Store, requests []*request) {
	items := make([]*request, len(requests))
	for i, r := range requests {
		item := *r
		items[i] = &item
	}
	c := newChunk(items)
	s.commit(context.Background(), items, func() {})
	c.collect(errors.New("no answer"), func(place int, err error) { requests[place].answer <- err })
}

// sameText compares errors that are data by all they say.
func sameText(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}
