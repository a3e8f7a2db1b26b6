package backlog

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world drives a backlog the way the daemon does.
type world struct {
	t   *testing.T
	b   *Backlog
	now time.Time
	tag uint32
}

func newWorld(t *testing.T, ids ...string) *world {
	return newWeightedWorld(t, auction.Weights{Starting: 0.25}, ids...)
}

func newWeightedWorld(t *testing.T, weights auction.Weights, ids ...string) *world {
	w := &world{t: t, b: New(DefaultLimits(), weights), now: start}
	var present []lrp.CellID
	for _, id := range ids {
		present = append(present, lrp.CellID(id))
	}
	w.b.Load(World{Processes: []lrp.SchedulingInfo{process("p", 10)}, Cells: present}, w.now)
	for _, id := range ids {
		w.state(id, 100)
	}
	return w
}

func process(guid string, mb int32) lrp.SchedulingInfo {
	return lrp.SchedulingInfo{Process: lrp.ProcessGUID(guid), Domain: "d", Instances: 9, MemoryMB: mb, DiskMB: mb, RootFS: "docker:///x"}
}

func key(process string, index int32) lrp.Key {
	return lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(process), Index: index}, Domain: "d"}
}

func (w *world) actual(state lrp.State, cell string, index int32) lrp.Actual {
	w.tag++
	a := lrp.Actual{Key: key("p", index), State: state, Since: w.now, Tag: lrp.ModificationTag{Epoch: "e", Index: w.tag}}
	if cell != "" {
		a.InstanceKey = lrp.InstanceKey{Instance: "i", Cell: lrp.CellID(cell)}
	}
	return a
}

func (w *world) change(state lrp.State, cell string, index int32) {
	a := w.actual(state, cell, index)
	w.b.Change(lrp.Change{After: &a}, "")
}

// state reports the state of a cell with that much free memory and those indexes of p on it.
func (w *world) state(id string, free int32, has ...int32) {
	w.t.Helper()
	st := cells.State{
		Presence:  cells.Presence{Cell: lrp.CellID(id), Zone: "z", Capacity: cells.Resources{MemoryMB: 100, DiskMB: 1000, Containers: 10}, RootFSProviders: map[string]cells.Provider{"docker": {}}},
		Available: cells.Resources{MemoryMB: free, DiskMB: 1000, Containers: 10},
	}
	for _, i := range has {
		st.Instances = append(st.Instances, cells.Instance{Key: key("p", i), State: cells.InstanceClaimed})
	}
	if err := w.b.CellState(lrp.CellID(id), st, w.now); err != nil {
		w.t.Fatal(err)
	}
}

// round prints the orders of a round as CELL:index,index, sorted by cell, and its failures.
func (w *world) round(want string) Round {
	w.t.Helper()
	r := w.b.Round(w.now)
	var parts []string
	for _, o := range r.Orders {
		var idx []string
		for _, i := range o.Instances {
			idx = append(idx, fmt.Sprint(i.Key.Index))
		}
		parts = append(parts, fmt.Sprintf("%s:%s", o.Cell, strings.Join(idx, ",")))
	}
	slices.Sort(parts)
	for _, f := range r.Failures {
		parts = append(parts, "fail "+f.Reason)
	}
	if got := strings.Join(parts, " "); got != want {
		w.t.Fatalf("round: %q, want %q", got, want)
	}
	return r
}

func TestPlacesOnceAndSpreads(t *testing.T) { // K1, K2
	t.Parallel()
	w := newWorld(t, "a", "b", "c")
	for i := range int32(3) {
		w.change(lrp.Unclaimed, "", i)
	}
	w.round("a:0 b:1 c:2")
	w.round("") // all are on their way
	w.change(lrp.Unclaimed, "", 3)
	w.change(lrp.Claimed, "a", 0) // the BBS shows the claim before the cell shows the work
	w.b.Change(lrp.Change{}, "")  // nothing known is no reason to fall over
	w.round("a:3")
	w.change(lrp.Unclaimed, "", 4)
	w.round("b:4") // a holds two, although its state still shows none
}

func TestRefusedWork(t *testing.T) { // K4
	t.Parallel()
	w := newWorld(t, "a", "b")
	w.change(lrp.Unclaimed, "", 0)
	refuse := func(r Round) {
		t.Helper()
		o := r.Orders[0]
		w.b.Answered(o, []cells.Refusal{{Instance: o.Instances[0], Reason: "insufficient resources: ports"}}, Delivered, w.now)
	}
	refuse(w.round("a:0"))
	refuse(w.round("b:0")) // at once, elsewhere
	w.round("fail insufficient resources: ports")
	w.round("")
	w.now = w.now.Add(time.Second)
	w.state("a", 100) // a new state: it may be asked again
	refuse(w.round("a:0"))
	w.state("a", 100)
	w.now = w.now.Add(60 * time.Millisecond)
	w.round("") // second refusal in a row: not before its wait is over, and no second report
	at, ok := w.b.Next(w.now)
	if !ok || at.After(w.now.Add(minRefusalWait)) {
		t.Fatalf("next at %v", at)
	}
	w.now = w.now.Add(minRefusalWait)
	w.round("a:0")
}

// told has the BBS store what a round reports, and say so.
func (w *world) told(r Round) {
	for _, f := range r.Failures {
		a := w.actual(lrp.Unclaimed, "", f.Key.Index)
		a.PlacementError, a.Explanation = f.Reason, f.Explanation
		w.b.Change(lrp.Change{After: &a}, "")
	}
}

func TestUnplaceableWork(t *testing.T) { // K3, K7
	t.Parallel()
	w := newWorld(t, "a")
	w.state("a", 5)
	w.change(lrp.Unclaimed, "", 0)
	w.round("fail insufficient resources: memory")
	w.b.NotReported(key("p", 0))
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	w.told(w.round("fail insufficient resources: memory"))
	for range 3 { // changes that bring no room do not even lead to an auction
		w.now = w.now.Add(time.Second)
		w.state("a", 5)
		if r := w.round(""); r.Work != 0 {
			t.Fatalf("auction over %d pieces without need", r.Work)
		}
	}
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	if r := w.round(""); r.Work != 1 { // the safety net; the text is known
		t.Fatalf("the safety net tried %d pieces", r.Work)
	}
	w.state("a", 6)
	w.now = w.now.Add(time.Second)
	r := w.round("fail insufficient resources: memory") // something else is missing now
	if got := r.Failures[0].Explanation.Closest; got != (lrp.Shortfall{Cell: "a", Zone: "z", MemoryMB: 4}) {
		t.Errorf("closest: %+v", got)
	}
	w.told(r)
	w.state("a", 7)
	w.now = w.now.Add(time.Second)
	w.round("") // not again so soon
	w.now = w.now.Add(time.Second)
	w.state("a", 10) // capacity appears
	w.round("a:0")
}

func TestReportKnownToTheBBS(t *testing.T) { // K3, after a restart of the auctioneer
	t.Parallel()
	w := newWorld(t, "a")
	w.state("a", 5)
	a := w.actual(lrp.Unclaimed, "", 0)
	a.PlacementError = "insufficient resources: memory"
	w.b.Change(lrp.Change{After: &a}, "")
	r := w.round("fail insufficient resources: memory") // nobody has explained it yet
	w = newWorld(t, "a")
	w.state("a", 5)
	w.told(r)
	w.round("")
	if !sameStored(strings.Repeat("x", lrp.MaxReasonBytes), strings.Repeat("x", lrp.MaxReasonBytes+1)) {
		t.Error("a cut text counts as another")
	}
}

func TestUnknownFate(t *testing.T) { // K1
	t.Parallel()
	w := newWorld(t, "a", "b")
	w.change(lrp.Unclaimed, "", 0)
	r := w.round("a:0")
	w.b.Answered(r.Orders[0], nil, Unknown, w.now)
	w.b.CellSilent("a")
	w.now = w.now.Add(DefaultLimits().ClaimWait - time.Millisecond)
	w.round("")
	w.now = w.now.Add(time.Millisecond)
	w.round("b:0")
	w.b.Answered(r.Orders[0], nil, Undone, w.now) // a late answer to the first order changes nothing
	w.round("")
}

func TestOrderThatDidNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a", "b")
	w.change(lrp.Unclaimed, "", 0)
	r := w.round("a:0")
	w.b.Answered(r.Orders[0], nil, Undone, w.now)
	w.round("b:0")
}

func TestCellDropsWork(t *testing.T) { // K1
	t.Parallel()
	w := newWorld(t, "a", "b")
	w.change(lrp.Unclaimed, "", 0)
	r := w.round("a:0")
	w.b.Answered(r.Orders[0], nil, Delivered, w.now)
	w.state("a", 100) // older than the order
	w.round("")
	w.state("a", 90, 0)
	w.round("")
	w.state("a", 100) // it had it and has it no more
	w.round("a:0")
	w.b.CellGone("a")
	w.round("b:0")
}

func TestCrashedAndFreeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a", "b")
	w.change(lrp.Unclaimed, "", 0)
	w.round("a:0")
	w.change(lrp.Claimed, "a", 0)
	w.change(lrp.Running, "a", 0)
	w.round("")
	w.change(lrp.Unclaimed, "", 0) // crashed: must not wait for the order of before
	w.round("a:0")
}

func TestWhatIsNotWanted(t *testing.T) { // K5
	t.Parallel()
	w := newWorld(t, "a")
	w.change(lrp.Unclaimed, "", 0)
	w.b.RemoveProcess("p")
	w.round("")
	other := process("p", 10)
	other.Domain = "other"
	w.b.SetProcess(other)
	w.round("")
	if _, ok := w.b.Next(w.now); ok {
		t.Error("waits for something")
	}
	w.b.SetProcess(process("p", 10))
	a := w.actual(lrp.Unclaimed, "", 1)
	w.b.Change(lrp.Change{After: &a}, "")
	w.b.Change(lrp.Change{Before: &a}, "")
	w.round("a:0")
}

func TestOldChangesAreIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	old := w.actual(lrp.Unclaimed, "", 0)
	claimed := w.actual(lrp.Claimed, "a", 0)
	w.b.Load(World{Processes: []lrp.SchedulingInfo{process("p", 10)}, Actuals: []lrp.Actual{claimed}, Cells: []lrp.CellID{"a"}}, w.now)
	w.b.Change(lrp.Change{After: &old}, "")
	w.round("")
	suspect := claimed
	suspect.Presence = lrp.Suspect
	w.b.Change(lrp.Change{Before: &claimed, After: &suspect}, "") // its cell went silent
	w.change(lrp.Unclaimed, "", 0)
	w.round("a:0")
}

func TestRestartedAuctioneerWaitsForTheClaim(t *testing.T) { // K1
	t.Parallel()
	w := newWorld(t, "a", "b")
	w.change(lrp.Unclaimed, "", 0)
	w.state("b", 90, 0) // ordered by the auctioneer before this one
	w.round("")
	for began := w.now; w.now.Before(began.Add(DefaultLimits().HeldWait)); w.now = w.now.Add(DefaultLimits().ClaimWait) {
		w.round("") // the cell has it
	}
	w.state("b", 90, 0)
	w.round("a:0") // no claim ever came, and it is waited for once
}

// Work that a cell has accepted is left to it as long as the cell is heard of; when it falls silent, the claim has to
// come soon.
func TestAcceptedWorkIsLeftToItsCell(t *testing.T) { // K1
	t.Parallel()
	for name, shown := range map[string]bool{"by its answer": false, "by its state": true} {
		w := newWorld(t, "a", "b")
		w.change(lrp.Unclaimed, "", 0)
		r := w.round("a:0")
		if shown {
			w.state("a", 90, 0)
			w.b.Answered(r.Orders[0], nil, Unknown, w.now)
		} else {
			w.b.Answered(r.Orders[0], nil, Delivered, w.now)
		}
		for range 5 {
			w.now = w.now.Add(DefaultLimits().ClaimWait)
			if r := w.b.Round(w.now); r.Work != 0 {
				t.Errorf("%s: an auction over %d pieces", name, r.Work)
			}
		}
		w.b.CellSilent("a")
		w.now = w.now.Add(DefaultLimits().ClaimWait)
		w.round("b:0")
	}
}

func TestFirstAuctionWaitsForTheCells(t *testing.T) { // K6
	t.Parallel()
	b := New(DefaultLimits(), auction.Weights{})
	w := &world{t: t, b: b, now: start}
	w.round("")
	a := w.actual(lrp.Unclaimed, "", 0)
	b.Load(World{Processes: []lrp.SchedulingInfo{process("p", 10)}, Actuals: []lrp.Actual{a}, Cells: []lrp.CellID{"a", "b"}}, w.now)
	for range 3 { // the first of them is what counts
		w.state("b", 100)
		w.round("")
		at, ok := b.Next(w.now)
		if !ok || !at.Equal(start.Add(DefaultLimits().Settle)) {
			t.Fatalf("next %v %v", at, ok)
		}
	}
	at, _ := b.Next(w.now)
	w.now = at
	w.round("b:0")

	empty := New(DefaultLimits(), auction.Weights{})
	w = &world{t: t, b: empty, now: start}
	empty.Load(World{Processes: []lrp.SchedulingInfo{process("p", 10)}, Actuals: []lrp.Actual{a}}, w.now)
	w.round("")
	w.now = w.now.Add(DefaultLimits().Settle)
	w.round("fail unable to communicate to compatible cells")
	empty.CellPresent("a")
	w.now = w.now.Add(time.Second)
	w.state("a", 100)
	w.round("a:0")
}

func TestStateOfAnotherCell(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	if err := w.b.CellState("a", cells.State{Presence: cells.Presence{Cell: "b"}}, w.now); err == nil {
		t.Error("accepted")
	}
	w.change(lrp.Unclaimed, "", 0)
	w.round("fail unable to communicate to compatible cells")
}

// TestSettles: with cells that refuse, lose and drop work at random, every slot is claimed in the end,
// and no slot is ordered while it is on its way.
func TestSettles(t *testing.T) {
	t.Parallel()
	for seed := range int64(200) {
		r := rand.New(rand.NewSource(seed))
		w := newWorld(t, "a", "b", "c")
		const slots = 12
		claimed, ordered := map[int32]bool{}, map[int32]time.Time{}
		for i := range int32(slots) {
			w.change(lrp.Unclaimed, "", i)
		}
		for step := 0; len(claimed) < slots; step++ {
			if step > 2000 {
				t.Fatalf("seed %d: claimed only %v", seed, claimed)
			}
			for _, o := range w.b.Round(w.now).Orders {
				var refused []cells.Refusal
				for _, i := range o.Instances {
					n := i.Key.Index
					if until, ok := ordered[n]; ok && w.now.Before(until) || claimed[n] {
						t.Fatalf("seed %d: %d ordered twice", seed, n)
					}
					delete(ordered, n)
					switch r.Intn(4) {
					case 0:
						refused = append(refused, cells.Refusal{Instance: i, Reason: "no"})
					case 1: // lost
						ordered[n] = w.now.Add(DefaultLimits().ClaimWait)
					default:
						w.change(lrp.Claimed, string(o.Cell), n)
						claimed[n] = true
					}
				}
				w.b.Answered(o, refused, Delivered, w.now)
			}
			w.now = w.now.Add(time.Duration(r.Intn(500)) * time.Millisecond)
			w.state([]string{"a", "b", "c"}[r.Intn(3)], int32(50+r.Intn(50)))
		}
	}
}

func TestStartLimitCountsWhatIsComing(t *testing.T) { // K2
	t.Parallel()
	w := newWeightedWorld(t, auction.Weights{Starting: 0.25, MaxStarting: 1}, "a", "b")
	w.change(lrp.Unclaimed, "", 0)
	w.round("a:0")
	w.change(lrp.Unclaimed, "", 1)
	w.round("fail waiting to start instance: reached in-flight start limit")
	w.change(lrp.Claimed, "a", 0)
	w.state("a", 90, 0) // shown, and by its count not starting any more
	w.now = w.now.Add(time.Second)
	w.state("a", 95, 0)
	w.round("b:1")
}

func (w *world) task(state task.State, guid, cell string) {
	t := task.Task{
		GUID: task.GUID(guid), Domain: "d", State: state, Cell: lrp.CellID(cell), UpdatedAt: w.now,
		Definition: task.Definition{RootFS: "docker:///x", MemoryMB: 10, DiskMB: 10},
	}
	w.b.ChangeTask(task.Change{After: &t}, "trace")
}

// tasks prints the orders of a round as CELL:guid,guid, sorted by cell, and its rejections.
func (w *world) tasks(want string) Round {
	w.t.Helper()
	r := w.b.Round(w.now)
	var parts []string
	for _, o := range r.Orders {
		var guids []string
		for _, t := range o.Tasks {
			guids = append(guids, string(t.Key.GUID))
		}
		parts = append(parts, fmt.Sprintf("%s:%s", o.Cell, strings.Join(guids, ",")))
	}
	slices.Sort(parts)
	for _, f := range r.Rejections {
		parts = append(parts, fmt.Sprintf("reject %s %s", f.GUID, f.Reason))
	}
	if got := strings.Join(parts, " "); got != want {
		w.t.Fatalf("round: %q, want %q", got, want)
	}
	return r
}

func TestTasks(t *testing.T) { // K1, K2
	t.Parallel()
	w := newWorld(t, "a", "b")
	for _, guid := range []string{"t0", "t1", "t2"} {
		w.task(task.Pending, guid, "")
	}
	r := w.tasks("a:t0,t2 b:t1")
	if got := r.Orders[0]; got.Tasks[0].TraceID != "trace" || len(got.Since) != len(got.Tasks) {
		t.Errorf("order %+v", got)
	}
	w.tasks("")
	w.task(task.Running, "t0", "a")
	w.task(task.Completed, "t0", "")
	for _, o := range r.Orders {
		w.b.Answered(o, nil, Delivered, w.now)
	}
	w.now = w.now.Add(DefaultLimits().HeldWait)
	w.tasks("a:t1 b:t2") // what was kept for t0 is free
	w.b.ChangeTask(task.Change{Before: &task.Task{GUID: "t1"}}, "")
	w.b.CellGone("b")
	w.tasks("a:t2")
}

// A task that runs when its list comes, and one that is over, are nobody's work; so is what is not listed.
func TestListedTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	w.task(task.Pending, "gone", "")
	list := func(guids ...string) (all []task.Task) {
		for i, guid := range guids {
			all = append(all, task.Task{GUID: task.GUID(guid), State: task.State(i + 1), Definition: task.Definition{RootFS: "docker:///x"}})
		}
		return all
	}
	w.b.Load(World{Tasks: list("pending", "running", "completed", "resolving"), Cells: []lrp.CellID{"a"}}, w.now)
	w.tasks("a:pending")
	if len(w.b.all) != 1 {
		t.Errorf("%d pieces are known", len(w.b.all))
	}
}

func TestRejectedTasks(t *testing.T) { // K3
	t.Parallel()
	w := newWorld(t, "a")
	w.state("a", 5)
	w.task(task.Pending, "t", "")
	w.tasks("reject t insufficient resources: memory")
	w.task(task.Pending, "t", "") // the rejection is counted
	for free := range int32(4) {
		w.now = w.now.Add(time.Second)
		w.state("a", 6+free)
		if r := w.tasks(""); r.Work != 1 {
			t.Errorf("tried %d pieces, want 1", r.Work)
		}
	}
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	w.tasks("reject t insufficient resources: memory")
	w.b.NotRejected("t")
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	w.tasks("reject t insufficient resources: memory")
	w.state("a", 10)
	w.now = w.now.Add(time.Second)
	r := w.tasks("a:t")
	refused := r.Orders[0].Tasks[0]
	w.b.Answered(r.Orders[0], []cells.Refusal{{Task: &refused, Reason: "no tasks here"}}, Delivered, w.now)
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	w.tasks("reject t no tasks here")
}

// That as many are starting as may is not counted against a task.
func TestTasksWaitForTheStartLimit(t *testing.T) { // K3
	t.Parallel()
	w := newWeightedWorld(t, auction.Weights{MaxStarting: 1}, "a")
	w.task(task.Pending, "t0", "")
	w.task(task.Pending, "t1", "")
	w.tasks("a:t0")
}

// Much work that fits nowhere does not keep other work waiting, is tried together, and not all the time.
func TestHopelessWorkHoldsUpNobody(t *testing.T) { // K7
	t.Parallel()
	const hopeless = 100_000
	w := newWorld(t, "a")
	w.state("a", 99)
	big := process("big", 1000)
	big.DiskMB = 0
	w.b.SetProcess(big)
	for i := range int32(hopeless) {
		w.b.Change(lrp.Change{After: &lrp.Actual{Key: key("big", i), State: lrp.Unclaimed, Tag: lrp.ModificationTag{Epoch: "e"}}}, "")
	}
	if r := w.b.Round(w.now); r.Work != hopeless || len(r.Failures) != hopeless {
		t.Fatalf("%d pieces, %d failures", r.Work, len(r.Failures))
	}
	w.change(lrp.Unclaimed, "", 0)
	if r := w.round("a:0"); r.Work != 1 {
		t.Errorf("an auction over %d pieces, want the new one only", r.Work)
	}
	w.state("a", 100) // there may be more room
	at, ok := w.b.Next(w.now)
	if pause := at.Sub(w.now); !ok || pause != maxRetryPause {
		t.Errorf("all is tried again after %v, want %v", pause, maxRetryPause)
	}
	w.change(lrp.Unclaimed, "", 1)
	w.now = w.now.Add(time.Millisecond)
	if r := w.round("a:1"); r.Work != 1 {
		t.Errorf("an auction over %d pieces, want the new one only", r.Work)
	}
	w.now = at
	r := w.b.Round(w.now)
	if r.Work != hopeless || len(r.Failures) != 0 {
		t.Errorf("tried %d pieces and reported %d", r.Work, len(r.Failures))
	}
	w.now = w.now.Add(DefaultLimits().RetryInterval)
	if r := w.b.Round(w.now); r.Work < hopeless || len(r.Failures) != maxRenewals {
		t.Errorf("tried %d pieces and renewed %d explanations, want %d", r.Work, len(r.Failures), maxRenewals)
	}
	if n := len(w.b.alarms.queue); n > hopeless+10 {
		t.Errorf("%d alarms for %d pieces", n, hopeless)
	}
}

// An order is not longer than what a cell takes at once.
func TestLongOrdersAreParted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	st := cells.State{
		Presence:  cells.Presence{Cell: "a", Capacity: cells.Resources{MemoryMB: 1, DiskMB: 1, Containers: 10_000}, RootFSProviders: map[string]cells.Provider{"docker": {}}},
		Available: cells.Resources{MemoryMB: 1, DiskMB: 1, Containers: 10_000},
	}
	if err := w.b.CellState("a", st, w.now); err != nil {
		t.Fatal(err)
	}
	w.b.SetProcess(process("p", 0))
	for i := range int32(maxOrder + 1) {
		w.change(lrp.Unclaimed, "", i)
	}
	r := w.b.Round(w.now)
	if len(r.Orders) != 2 || len(r.Orders[0].Instances) != maxOrder || len(r.Orders[1].Instances) != 1 {
		t.Fatalf("%d orders", len(r.Orders))
	}
	for _, o := range r.Orders {
		w.b.Answered(o, nil, Undone, w.now)
	}
	if waiting, coming, _ := w.b.Counts(); waiting != maxOrder+1 || coming != 0 {
		t.Errorf("%d wait, %d are coming", waiting, coming)
	}
}

// What makes no sense in a state is said once, and does no harm.
func TestAbsurdStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	st := cells.State{
		Presence:  cells.Presence{Cell: "a", Capacity: cells.Resources{MemoryMB: 100, DiskMB: 100, Containers: 10}, RootFSProviders: map[string]cells.Provider{"docker": {}}},
		Available: cells.Resources{MemoryMB: -5, DiskMB: 100, Containers: 10},
	}
	err := w.b.CellState("a", st, w.now)
	if err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), "-5") {
		t.Errorf("complaint: %v", err)
	}
	if err := w.b.CellState("a", st, w.now); err != nil {
		t.Errorf("again: %v", err)
	}
	w.change(lrp.Unclaimed, "", 0)
	w.round("fail insufficient resources: memory")
	st.Available.MemoryMB = 10
	if err := w.b.CellState("a", st, w.now.Add(time.Second)); err != nil {
		t.Error(err)
	}
	w.now = w.now.Add(time.Second)
	w.round("a:0")
}

// As long as cells answer for the first time the first auction waits for more of them, but not for ever.
func TestFirstAuctionWaitsWhileCellsAnswer(t *testing.T) { // K6
	t.Parallel()
	settle := DefaultLimits().Settle
	var ids []lrp.CellID
	for i := range 30 {
		ids = append(ids, lrp.CellID(fmt.Sprint("c", i)))
	}
	w := &world{t: t, b: New(DefaultLimits(), auction.Weights{}), now: start}
	w.b.Load(World{Processes: []lrp.SchedulingInfo{process("p", 10)}, Actuals: []lrp.Actual{w.actual(lrp.Unclaimed, "", 0)}, Cells: ids}, w.now)
	answered := 0
	for _, id := range ids {
		w.state(string(id), 100)
		answered++
		w.now = w.now.Add(settle / 2)
		if r := w.b.Round(w.now); r.Work > 0 {
			break
		}
	}
	if took := w.now.Sub(start); took != maxSettle*settle || answered != 2*maxSettle {
		t.Errorf("the first auction was after %v, with %d cells", took, answered)
	}
}
