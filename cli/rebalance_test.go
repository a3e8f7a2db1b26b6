package cli

import (
	"bytes"
	"strings"
	"testing"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

// What an added cell would take over is shown with the reason, and that there may be more.
func TestMovesArePrinted(t *testing.T) {
	t.Parallel()
	state := func(id, zone string, n int32) cells.State {
		total := cells.Resources{MemoryMB: 100, DiskMB: 100, Containers: 100}
		s := cells.State{
			Presence:  cells.Presence{Cell: lrp.CellID(id), Zone: zone, Capacity: total, RootFSProviders: map[string]cells.Provider{"docker": {}}},
			Available: total,
		}
		for i := range n {
			in := cells.Instance{
				Key: lrp.Key{Slot: lrp.Slot{Process: "web", Index: i}, Domain: "d"}, InstanceGUID: "i", State: cells.InstanceRunning,
				Resources: cells.Resources{MemoryMB: 10, DiskMB: 10, Containers: 1}, RootFS: "docker:///x",
			}
			s.Instances, s.Available = append(s.Instances, in), s.Available.Sub(in.Resources)
		}
		return s
	}
	moves := auction.Rebalance([]cells.State{state("old", "z1", 4), state("new", "z2", 0)}, auction.Weights{}, 2)
	for _, tt := range []struct {
		json bool
		most int
		want []string
	}{
		{false, 2, []string{"INSTANCE  FROM  TO   WHY", "web/", "old   new  its application is spread over zones more evenly", "There may be more: --most is 2."}},
		{true, 3, []string{`"from_cell_id": "old"`, `"to_cell_id": "new"`, `"why": "its application`}},
	} {
		var out bytes.Buffer
		a := &app{Env: Env{Out: &out, Err: &out}}
		a.json = tt.json
		if err := a.printMoves(moves, tt.most); err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("printed %q, want %q in it", out.String(), want)
			}
		}
	}
}
