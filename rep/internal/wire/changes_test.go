package wire

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/cells"
	repv1 "muster/proto/rep/v1"
)

// states generates a cell with some of a few instances and tasks, in any order and state.
func states() *rapid.Generator[cells.State] {
	return rapid.Custom(func(t *rapid.T) cells.State {
		s := cells.State{
			Presence: cells.Presence{
				Cell: "c", Zone: rapid.SampledFrom([]string{"z1", "z2"}).Draw(t, "zone"), Capacity: cells.Resources{MemoryMB: 10, DiskMB: 10, Containers: 10},
				RootFSProviders: map[string]cells.Provider{"docker": {}},
			},
			Available: cells.Resources{MemoryMB: rapid.Int32Range(0, 10).Draw(t, "free")}, StartingContainers: rapid.Int32Range(0, 3).Draw(t, "starting"),
		}
		for n := range 6 {
			if rapid.Bool().Draw(t, "instance") {
				s.Instances = append(s.Instances, cells.Instance{
					Key: lrp.Key{Slot: lrp.Slot{Process: "p", Index: int32(n)}, Domain: "d"}, InstanceGUID: lrp.InstanceGUID(fmt.Sprint("i", n)),
					State:     rapid.SampledFrom([]cells.InstanceState{cells.InstanceClaimed, cells.InstanceRunning}).Draw(t, "state"),
					Resources: cells.Resources{MemoryMB: 1, Containers: 1}, RootFS: "docker:///x", PlacementTags: []string{"t"},
				})
			}
			if rapid.Bool().Draw(t, "task") {
				s.Tasks = append(s.Tasks, cells.Task{
					Key: cells.TaskKey{GUID: cells.TaskGUID(fmt.Sprint("t", n)), Domain: "d"}, RootFS: "docker:///x",
					Resources: cells.Resources{MemoryMB: rapid.Int32Range(1, 2).Draw(t, "memory"), Containers: 1},
				})
			}
		}
		s.Instances, s.Tasks = rapid.Permutation(s.Instances).Draw(t, "order"), rapid.Permutation(s.Tasks).Draw(t, "order of tasks")
		return s
	})
}

// inOrder sorts the work: the order of a state means nothing.
func inOrder(s cells.State) cells.State {
	s.Instances, s.Tasks = slices.Clone(s.Instances), slices.Clone(s.Tasks)
	slices.SortFunc(s.Instances, func(a, b cells.Instance) int { return cmp.Compare(a.InstanceGUID, b.InstanceGUID) })
	slices.SortFunc(s.Tasks, func(a, b cells.Task) int { return cmp.Compare(a.Key.GUID, b.Key.GUID) })
	return s
}

// A stream of changes says the same as one of whole states, and leaves the states before as they were.
func TestChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var told, known cells.State
		for n, is := range rapid.SliceOfN(states(), 1, 6).Draw(t, "states") {
			m := FromState(is)
			if n > 0 {
				m = Changes(told, is)
			}
			data, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var read repv1.StateResponse
			if err := proto.Unmarshal(data, &read); err != nil {
				t.Fatal(err)
			}
			before := inOrder(known)
			next := Next(known, &read)
			if diff := gocmp.Diff(inOrder(is), inOrder(next), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("state %d (-is +known):\n%s", n, diff)
			}
			if diff := gocmp.Diff(before, inOrder(known), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("the state before %d changed:\n%s", n, diff)
			}
			told, known = is, next
		}
	})
}

// What does not change is not sent again.
func TestChangesAreSmall(t *testing.T) {
	t.Parallel()
	var was cells.State
	for n := range 250 {
		was.Instances = append(was.Instances, cells.Instance{InstanceGUID: lrp.InstanceGUID(fmt.Sprint(n)), State: cells.InstanceClaimed, RootFS: "docker:///x"})
	}
	is := was
	is.Instances = slices.Clone(was.Instances)[1:]
	is.Instances[7].State = cells.InstanceRunning
	if m := Changes(was, is); len(m.Lrps) != 1 || len(m.GoneInstanceGuids) != 1 || proto.Size(m) > 100 {
		t.Errorf("%d instances, %d gone, %d bytes", len(m.Lrps), len(m.GoneInstanceGuids), proto.Size(m))
	}
}
