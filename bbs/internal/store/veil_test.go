package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells"
)

// What a cell has reported of an instance survives that the cell is lost and returns, in its row and in
// every entry of the log, although nobody decodes it on the way; whatever else is in the same batch.
func TestVeiledRecords(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	must(t, s.Heartbeat(ctx, cells.Presence{Cell: "c"}, time.Hour, Call{}))
	runs, claimed, other := lrp.InstanceKey{Instance: "i", Cell: "c"}, lrp.InstanceKey{Instance: "j", Cell: "c"}, lrp.InstanceKey{Instance: "r", Cell: "d"}
	began := start("p", 0, runs)
	began.InternalRoutes, began.MetricTags, began.AvailabilityZone = []string{"a.internal"}, map[string]string{"source_id": "s", "empty": ""}, "z1"
	must(t, s.Desire(ctx, app("p", 2), Call{}))
	must(t, s.Apply(ctx, began, Call{}))
	must(t, s.Apply(ctx, claim("p", 1, claimed), Call{}))
	of := func(name lrp.EventName, by lrp.InstanceKey) lrp.Event {
		index := int32(0)
		if by == claimed {
			index = 1
		}
		return lrp.Event{Name: name, Key: slotKey("p", index), By: by}
	}
	unplaced := lrp.Event{Name: lrp.Fail, Key: slotKey("p", 0), Reason: "no room", Explanation: &lrp.Explanation{Cells: 2, Remedy: "wait"}}
	retire := lrp.Event{Name: lrp.Retire, Key: slotKey("p", 0)}
	for _, tt := range []struct {
		name   string
		events []lrp.Event
		left   lrp.InstanceKey // of slot 0, in any place
	}{
		{"lost", []lrp.Event{of(lrp.Lose, runs), of(lrp.Lose, claimed)}, runs},
		{"no cell is found for its successor", []lrp.Event{unplaced}, runs},
		{"back", []lrp.Event{of(lrp.Return, runs), of(lrp.Return, claimed)}, runs},
		{"lost and back at once: the row is written in place", []lrp.Event{of(lrp.Lose, runs), of(lrp.Return, runs), of(lrp.Lose, claimed)}, runs},
		{"lost, while another takes the slot", []lrp.Event{of(lrp.Lose, runs), claim("p", 0, other)}, runs},
		{"back, and the other goes", []lrp.Event{of(lrp.Return, runs)}, runs},
		{"lost again", []lrp.Event{of(lrp.Lose, runs)}, runs},
		{"replaced", []lrp.Event{start("p", 0, other)}, other},
		{"the replacement is lost, and comes back", []lrp.Event{of(lrp.Lose, other), of(lrp.Return, other)}, other},
		{"wound up with the rest", []lrp.Event{of(lrp.Lose, other), of(lrp.Return, other), retire}, other},
	} {
		for i, err := range s.ApplyAll(ctx, tt.events, Call{}) {
			if err != nil && tt.events[i].Name != lrp.Retire { // which is refused: somebody wants it
				t.Fatalf("%s: %s of %v: %v", tt.name, tt.events[i].Name, tt.events[i].By, err)
			}
		}
		checkReplay(t, s)
		list, _, err := s.Actuals(ctx, ActualFilter{Process: "p"}, Page{})
		must(t, err)
		found := false
		for _, a := range list {
			if a.InstanceKey != tt.left {
				continue
			}
			found = true
			want := began
			if tt.left == other {
				want = start("p", 0, other)
			}
			if diff := cmp.Diff([]any{want.NetInfo, want.InternalRoutes, want.MetricTags}, []any{a.NetInfo, a.InternalRoutes, a.MetricTags}); diff != "" {
				t.Errorf("%s: what is known of it (-want +got):\n%s", tt.name, diff)
			}
		}
		if !found {
			t.Fatalf("%s: %v is not there", tt.name, tt.left)
		}
	}
}
