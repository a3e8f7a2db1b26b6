package store

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// subjects are what a batch is about: what it must lock and read before anything can be decided.
type subjects struct {
	// full are processes whose whole record and all instances are needed.
	full map[lrp.ProcessGUID]bool
	// slots are single slots; of their processes only the number of instances is needed.
	slots map[lrp.Slot]bool
	// seeing are slots of which what cells have reported is needed too.
	seeing map[lrp.Slot]bool
	// counted are processes of which it must be known whether they are complete.
	counted  map[lrp.ProcessGUID]bool
	cells    map[lrp.CellID]bool
	tasks    map[task.GUID]bool
	requests map[requestID]bool
	leases   map[string]bool
}

func newSubjects() subjects {
	return subjects{full: map[lrp.ProcessGUID]bool{}, slots: map[lrp.Slot]bool{}, cells: map[lrp.CellID]bool{}}
}

// compareSlots is the order of the primary key of actual_lrps.
func compareSlots(a, b lrp.Slot) int {
	return cmp.Or(cmp.Compare(a.Process, b.Process), cmp.Compare(a.Index, b.Index))
}

// lockKeys returns the advisory locks of the subjects, sorted, once each.
func (s subjects) lockKeys() []int64 {
	keys := map[int64]bool{}
	for p := range s.full {
		keys[lockKey("process", string(p))] = true
	}
	for slot := range s.slots {
		keys[lockKey("process", string(slot.Process))] = true
	}
	for c := range s.cells {
		keys[lockKey("cell", string(c))] = true
	}
	for guid := range s.tasks {
		keys[lockKey("task", string(guid))] = true
	}
	for id := range s.requests {
		keys[lockKey("request", id.id+"\x00"+strconv.Itoa(int(id.item)))] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// add notes a subject in a map that most batches do without.
func add[K comparable](m *map[K]bool, k K) {
	if *m == nil {
		*m = map[K]bool{}
	}
	(*m)[k] = true
}

// needs adds what a request is about.
func (r *request) needs(s *subjects) {
	r.op.needs(s)
	if r.id.id != "" {
		add(&s.requests, r.id)
	}
	if r.call.Fence.Lease != "" {
		add(&s.leases, r.call.Fence.Lease)
	}
}

// decide answers a request.
func (r *request) decide(w *world) error {
	if r.call.Fence.Lease != "" {
		if err := w.admit(r.call); err != nil {
			return err
		}
	}
	if r.id.id == "" {
		return r.op.decide(w, *r.call)
	}
	if known := w.requests[r.id]; known != nil {
		if known.digest != r.call.RequestDigest {
			return requestIDError("was used for another request")
		}
		return nil
	}
	err := r.op.decide(w, *r.call)
	if err == nil && !r.call.ValidateOnly {
		w.remember(r.id, r.call.RequestDigest)
	}
	return err
}

// lockKey names an advisory lock. Two subjects that share a key only wait for each other.
func lockKey(kind, name string) int64 {
	h := fnv.New64a()
	h.Write([]byte(kind + "\x00" + name))
	return int64(h.Sum64())
}

// wanted is how many instances a process wants; absent processes want none.
type wanted struct {
	domain    lrp.Domain
	instances int32
	strategy  lrp.UpdateStrategy
}

// desiredState is a DesiredLRP of a batch: as it was, and as it has become. nil: there is none.
type desiredState struct{ before, after *lrp.Desired }

// groupState is the group of a slot: as it was, and as it has become.
type groupState struct{ before, after lrp.Group }

// cellState is a cell: as it was, and as it has become.
type cellState struct {
	before, after *cells.Presence
	ttl           time.Duration // of after
	overdue       bool          // as it was, the cell had been silent for too long
	touched       bool          // heard of, so after must be stamped
}

// world is what a batch knows and has decided so far. It is plain data: deciding does no I/O.
type world struct {
	now     time.Time
	desired map[lrp.ProcessGUID]*desiredState
	wanted  map[lrp.ProcessGUID]wanted
	groups  map[lrp.ProcessGUID]map[int32]*groupState
	cells   map[lrp.CellID]*cellState
	// serving is how many ordinary instances of a process served, where that was counted in place of
	// reading all of them.
	serving map[lrp.ProcessGUID]int
	// Most batches do without these; they are nil then.
	tasks    map[task.GUID]*taskState
	requests map[requestID]*rememberedState
	fences   map[string]*fenceState
	events   []event.Event
	blocked  *blocked // what cannot be read
	veils    veils    // what is left encoded
	batch    int64    // names the transaction
}

func newWorld(now time.Time) *world {
	return &world{
		now: now, desired: map[lrp.ProcessGUID]*desiredState{}, wanted: map[lrp.ProcessGUID]wanted{},
		groups: map[lrp.ProcessGUID]map[int32]*groupState{}, cells: map[lrp.CellID]*cellState{},
	}
}

// place puts a record that was read into its group.
func (w *world) place(a lrp.Actual) {
	g := w.group(a.Slot)
	switch a.Presence {
	case lrp.Evacuating:
		g.before.Evacuating = &a
	case lrp.Suspect:
		g.before.Suspect = &a
	default:
		g.before.Ordinary = &a
	}
	g.after = g.before
}

func (w *world) group(s lrp.Slot) *groupState {
	if w.groups[s.Process] == nil {
		w.groups[s.Process] = map[int32]*groupState{}
	}
	g := w.groups[s.Process][s.Index]
	if g == nil {
		g = &groupState{}
		w.groups[s.Process][s.Index] = g
	}
	return g
}

func (w *world) current(p lrp.ProcessGUID) *desiredState {
	d := w.desired[p]
	if d == nil {
		d = &desiredState{}
		w.desired[p] = d
	}
	return d
}

// draft is what one call would change. It is thrown away when the call is refused or only validated.
type draft struct {
	w      *world
	groups map[lrp.Slot]lrp.Group
	events []event.Event

	process lrp.ProcessGUID // whose DesiredLRP changes; empty: none
	desired *lrp.Desired    // what it becomes; nil: it goes
	want    wanted          // what is wanted of it then

	guid task.GUID  // of the task that changes; empty: none
	task *task.Task // what it becomes; nil: it goes
}

func (w *world) draft() draft { return draft{w: w} }

// apply runs the rules for one event. keep has a meaning with an error too.
func (d *draft) apply(ev lrp.Event) (keep bool, err error) {
	slot := ev.Key.Slot
	before, drafted := d.groups[slot]
	if !drafted {
		before = d.w.group(slot).after
	}
	want := d.w.wanted[slot.Process]
	if slot.Process == d.process {
		want = d.want
	}
	before.Wanted, before.Domain, before.Strategy = slot.Index < want.instances, want.domain, want.strategy
	before.Complete = needsWholeProcess(ev.Name) && want.strategy == lrp.Recreate && d.w.complete(slot.Process, want.instances)
	out, err := lrp.Apply(before, ev, d.w.now)
	if err != nil {
		return out.Keep, err // a refusal already says which slot, which event, and why
	}
	changes := lrp.Diff(before, out.Group)
	if len(changes) == 0 && len(out.Crashes) == 0 {
		return out.Keep, nil
	}
	if d.groups == nil {
		d.groups = map[lrp.Slot]lrp.Group{}
	}
	d.groups[slot] = out.Group
	for i := range out.Crashes {
		d.events = append(d.events, event.Event{Crash: &out.Crashes[i]})
	}
	for i := range changes {
		d.events = append(d.events, event.Event{Actual: &changes[i]})
	}
	return out.Keep, nil
}

// needsWholeProcess tells whether the answer to an event can depend on other slots of the process.
func needsWholeProcess(name lrp.EventName) bool { return name == lrp.EvacuateRunning }

// complete tells whether as many ordinary instances of a process serve as are wanted.
func (w *world) complete(p lrp.ProcessGUID, instances int32) bool {
	n, counted := w.serving[p]
	for _, g := range w.groups[p] {
		if g.after.Ordinary.Serves(instances) {
			n++
		}
		if counted && g.before.Ordinary.Serves(instances) {
			n--
		}
	}
	return n >= int(instances)
}

// change makes the draft that of a DesiredLRP: from before to after, either of which can be nil, and
// its slots those that are wanted then.
func (d *draft) change(before, after *lrp.Desired, epoch func() string) error {
	var was, is *lrp.SchedulingInfo
	instances := int32(0)
	of := before
	if before != nil {
		info := before.SchedulingInfo()
		was, instances = &info, before.Instances
	}
	d.desired = after
	if after != nil {
		info := after.SchedulingInfo()
		is, of = &info, after
		d.want = wanted{after.Domain, after.Instances, after.Strategy}
	}
	d.process = of.Process
	d.events = append(d.events, event.Event{Desired: &event.DesiredChange{Before: was, After: is}})
	if before != nil && after != nil && d.want.instances == instances {
		return nil
	}
	return d.resize(of.Domain, epoch)
}

// resize makes the slots of the process those that are wanted now.
func (d *draft) resize(domain lrp.Domain, epoch func() string) error {
	var existing []int32
	for index, g := range d.w.groups[d.process] {
		if g.after.Ordinary != nil {
			existing = append(existing, index)
		}
	}
	slices.Sort(existing)
	for _, ev := range lrp.Resize(d.process, domain, existing, d.want.instances) {
		ev.Epoch = epoch()
		if _, err := d.apply(ev); err != nil {
			return fmt.Errorf("resize process %s to %d: %w", d.process, d.want.instances, unexpected(err))
		}
	}
	return nil
}

// keep makes the draft part of the world, unless the call only asks.
func (d *draft) keep(c Call) {
	if c.ValidateOnly {
		return
	}
	if d.process != "" {
		d.w.wanted[d.process] = d.want
		d.w.current(d.process).after = d.desired
	}
	if d.guid != "" {
		t := d.w.task(d.guid)
		t.after, t.gone = d.task, t.gone || d.task == nil
	}
	for slot, g := range d.groups {
		d.w.group(slot).after = g
	}
	for _, ev := range d.events {
		ev.At, ev.TraceID = d.w.now, c.TraceID
		d.w.events = append(d.w.events, ev)
	}
}

// unexpected hides a refusal of an event that the store made itself: it is no answer to the caller.
func unexpected(err error) error { return errors.New(err.Error()) }
