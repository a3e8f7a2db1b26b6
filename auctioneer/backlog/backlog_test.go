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
	w.b.CellSilent("a", w.now)
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
		w.b.CellSilent("a", w.now)
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
	empty.CellPresent("a", w.now)
	w.now = w.now.Add(time.Second)
	w.state("a", 100)
	w.round("a:0")
}

// Work is not refused while the cells that are present are about to be heard of: after all of them were upgraded
// together, perhaps with the auctioneer.
func TestWorkWaitsForCellsThatAreSilentForAMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a", "b")
	w.b.CellSilent("a", w.now)
	w.b.CellSilent("b", w.now)
	w.change(lrp.Unclaimed, "", 0)
	w.round("")
	at, ok := w.b.Next(w.now)
	if end := start.Add(DefaultLimits().BlindWait); !ok || !at.Equal(end) {
		t.Errorf("the next round is at %v (%v), want %v", at, ok, end)
	}
	w.now = at.Add(-time.Millisecond)
	w.b.CellSilent("a", w.now) // it failed to answer again, which prolongs nothing
	w.round("")
	w.state("b", 100)
	w.round("b:0")

	w.b.CellSilent("b", w.now)
	w.change(lrp.Unclaimed, "", 1)
	w.round("")
	w.now = w.now.Add(DefaultLimits().BlindWait)
	w.round("fail unable to communicate to compatible cells")

	// What fitted nowhere waits too, although it was to be tried again by now.
	w = newWorld(t, "a")
	w.state("a", 5)
	w.change(lrp.Unclaimed, "", 0)
	w.round("fail insufficient resources: memory")
	w.state("a", 7)
	w.b.CellSilent("a", w.now)
	end := w.now.Add(DefaultLimits().BlindWait)
	w.now = w.now.Add(time.Second)
	w.round("")
	if at, ok := w.b.Next(w.now); !ok || !at.Equal(end) {
		t.Errorf("the next round is at %v (%v), want %v", at, ok, end)
	}

	w = newWorld(t, "a")
	w.round("")
	w.b.CellGone("a")
	w.change(lrp.Unclaimed, "", 0)
	w.round("fail unable to communicate to compatible cells") // no cell is present: there is nothing to wait for
}

func TestStateOfAnotherCell(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	if err := w.b.CellState("a", cells.State{Presence: cells.Presence{Cell: "b"}}, w.now); err == nil {
		t.Error("accepted")
	}
	w.change(lrp.Unclaimed, "", 0)
	w.now = w.now.Add(DefaultLimits().BlindWait)
	w.round("fail unable to communicate to compatible cells")
}

func TestStateWithoutAnID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	st := cells.State{
		Presence:  cells.Presence{Capacity: cells.Resources{MemoryMB: 100, DiskMB: 100, Containers: 10}, RootFSProviders: map[string]cells.Provider{"docker": {}}},
		Available: cells.Resources{MemoryMB: 100, DiskMB: 100, Containers: 10},
	}
	if err := w.b.CellState("a", st, w.now); err != nil {
		t.Error(err)
	}
	w.change(lrp.Unclaimed, "", 0)
	w.round("a:0")
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

// A cell that shrinks below what it runs gets nothing more, and says what is wrong once; when it grows again it takes
// part as before. Its zone may be one that nobody has heard of.
func TestCellThatShrinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	sized := func(total, free int32) error {
		return w.b.CellState("a", cells.State{
			Presence:  cells.Presence{Cell: "a", Zone: "elsewhere", Capacity: cells.Resources{MemoryMB: total, DiskMB: 100, Containers: 10}, RootFSProviders: map[string]cells.Provider{"docker": {}}},
			Available: cells.Resources{MemoryMB: free, DiskMB: 100, Containers: 10},
		}, w.now)
	}
	if err := sized(50, 30); err != nil {
		t.Error(err)
	}
	if err := sized(10, -10); err == nil || !strings.Contains(err.Error(), "-10") {
		t.Errorf("a cell that has shrunk below what it runs: %v", err)
	}
	w.change(lrp.Unclaimed, "", 0)
	w.round("fail insufficient resources: memory")
	w.now = w.now.Add(time.Second)
	if err := sized(100, 80); err != nil {
		t.Error(err)
	}
	w.round("a:0")
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
