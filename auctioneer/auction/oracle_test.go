package auction_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"muster/auctioneer/auction"
	"muster/auctioneer/auction/naive"
	"muster/bbs/lrp"
	"muster/cells"
)

// model is what a fleet was told and has reserved, as states.
type model map[lrp.CellID]cells.State

// apply reserves what was placed.
func (m model) apply(w *auction.Work, id lrp.CellID) {
	s := m[id]
	r := w.Resources
	if w.Task != nil {
		r = w.Task.Resources
		s.Tasks = append(slices.Clip(s.Tasks), *w.Task)
	} else {
		s.Available.MemoryMB -= max(s.ProxyMemoryAllocationMB, 0)
		s.Instances = append(slices.Clip(s.Instances), w.Instance)
	}
	s.Available.MemoryMB -= max(r.MemoryMB, 0)
	s.Available.DiskMB -= max(r.DiskMB, 0)
	s.Available.Containers--
	s.StartingContainers = max(s.StartingContainers, 0) + 1
	m[id] = s
}

func (m model) states() []cells.State {
	var all []cells.State
	for _, s := range m {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b cells.State) int { return -1 + 2*btoi(a.Cell > b.Cell) })
	return all
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// draw makes random worlds. Few different values make many ties.
type draw struct {
	*rapid.T
	processes, zones int
	absurd           bool
}

func (d draw) oneOf(label string, values ...int32) int32 {
	return rapid.SampledFrom(values).Draw(d.T, label)
}

func (d draw) texts(label string, values ...[]string) []string {
	return rapid.SampledFrom(values).Draw(d.T, label)
}

func (d draw) resources(label string) cells.Resources {
	sizes := []int32{0, 10, 20, 37, 60, 61}
	if d.absurd {
		sizes = append(sizes, -5, math.MaxInt32, math.MinInt32)
	}
	return cells.Resources{MemoryMB: d.oneOf(label+" memory", sizes...), DiskMB: d.oneOf(label+" disk", sizes...), Containers: d.oneOf(label+" containers", append(sizes, 2, 3)...)}
}

func (d draw) state(id string) cells.State {
	s := cells.State{
		Presence: cells.Presence{
			Cell: lrp.CellID(id), Zone: fmt.Sprint(d.oneOf("zone", 0, 1, 2) % int32(d.zones)), Capacity: d.resources("total"),
			PlacementTags:         d.texts("required", nil, nil, []string{"a"}),
			OptionalPlacementTags: d.texts("optional", nil, []string{"a"}, []string{"b", "a"}),
			RootFSProviders: rapid.SampledFrom([]map[string]cells.Provider{
				{"preloaded": {Names: []string{"linux"}}}, {"preloaded": {Names: []string{"linux", "other"}}, "docker": {}},
			}).Draw(d.T, "providers"),
		},
		Index: d.oneOf("index", 0, 1, 2, 3), StartingContainers: d.oneOf("starting", 0, 0, 1, 2), VolumeDrivers: d.texts("drivers", nil, []string{"d"}),
		ProxyMemoryAllocationMB: d.oneOf("proxy", 0, 0, 4), Evacuating: d.oneOf("evacuating", 0, 0, 0, 0, 0, 0, 1) == 1,
	}
	s.Available = s.Capacity
	if d.absurd || d.oneOf("shrunk", 0, 0, 1) == 1 {
		s.Available = d.resources("available")
	}
	if d.absurd {
		s.StartingContainers = d.oneOf("absurd starting", -7, 0, 1, math.MaxInt32-1000)
		s.ProxyMemoryAllocationMB = d.oneOf("absurd proxy", -7, 0, 4, math.MaxInt32)
	}
	for range d.oneOf("instances", 0, 0, 1, 2, 3, 9) {
		s.Instances = append(s.Instances, cells.Instance{Key: d.key()})
	}
	s.Tasks = make([]cells.Task, d.oneOf("tasks", 0, 0, 1, 2))
	return s
}

func (d draw) key() lrp.Key {
	return lrp.Key{
		Slot:   lrp.Slot{Process: lrp.ProcessGUID(fmt.Sprint("p", rapid.IntRange(0, d.processes-1).Draw(d.T, "process"))), Index: d.oneOf("slot", 0, 0, 1, 2, 7)},
		Domain: lrp.Domain(d.texts("domain", []string{"x"}, []string{"y"})[0]),
	}
}

func (d draw) work() auction.Work {
	w := auction.Work{Instance: cells.Instance{
		Key: d.key(), Resources: d.resources("work"),
		RootFS:        rapid.SampledFrom([]string{"preloaded:linux", "preloaded:linux", "preloaded:other", "docker:///x", "preloaded://linux", "://"}).Draw(d.T, "rootfs"),
		PlacementTags: d.texts("tags", nil, nil, []string{"a"}, []string{"a", "b"}), VolumeDrivers: d.texts("wanted drivers", nil, nil, []string{"d"}),
	}}
	for n := d.oneOf("avoid", 0, 0, 0, 1, 2); n > 0; n-- {
		w.Avoid = append(w.Avoid, lrp.CellID(fmt.Sprint("c", n)))
	}
	if d.oneOf("task", 0, 0, 0, 1) == 1 {
		w.Task = &cells.Task{Key: cells.TaskKey{GUID: cells.TaskGUID(w.Key.Process), Domain: w.Key.Domain}, Resources: w.Resources,
			RootFS: w.RootFS, PlacementTags: w.PlacementTags, VolumeDrivers: w.VolumeDrivers}
		w.Instance = cells.Instance{}
	}
	return w
}

func (d draw) weights() auction.Weights {
	w := auction.Weights{
		Starting: rapid.SampledFrom([]float64{0, 0.25, 0.25, 0.5, 700, 1e6}).Draw(d.T, "starting weight"),
		BinPack:  rapid.SampledFrom([]float64{0, 0, 0.5, 3000}).Draw(d.T, "bin pack"), MaxStarting: d.oneOf("limit", 0, 0, -3, 5, 30),
	}
	if d.absurd {
		w.Starting = rapid.SampledFrom([]float64{w.Starting, -1, math.NaN(), math.Inf(1), math.Inf(-1), 1e300}).Draw(d.T, "absurd weight")
		w.BinPack = rapid.SampledFrom([]float64{w.BinPack, -1, math.NaN(), math.Inf(1)}).Draw(d.T, "absurd pack")
	}
	return w
}

// auctionOf compares one auction of a fleet with the rule, and reserves in the model what was placed.
func (m model) auctionOf(t *rapid.T, f *auction.Fleet, work []auction.Work, w auction.Weights) {
	states := m.states()
	dry := f.Clone()
	placed, refused := f.Place(work)
	answers := naive.New(states, w).Place(work)
	var p, r int
	for _, a := range answers {
		switch {
		case a.Cell != "":
			if p >= len(placed) || placed[p].Work != a.Work || placed[p].Cell != a.Cell {
				t.Fatalf("the rule says %v on %s; placed are %s", name(a.Work), a.Cell, show(placed))
			}
			if got := int64(placed[p].Score * (1 << 30)); a.Score < 1<<52 && got != a.Score {
				t.Fatalf("%v on %s scores %d, by the rule %d", name(a.Work), a.Cell, got, a.Score)
			}
			p++
			m.apply(a.Work, a.Cell)
		default:
			if r >= len(refused) || refused[r].Work != a.Work || a.Limited != (refused[r].Reason == "waiting to start instance: reached in-flight start limit") {
				t.Fatalf("the rule refuses %v (limit: %v); placed are %s", name(a.Work), a.Limited, show(placed))
			}
			r++
		}
	}
	if p != len(placed) || r != len(refused) {
		t.Fatalf("%d placed, %d refused; the rule says %d and %d", len(placed), len(refused), p, r)
	}
	for _, r := range refused { // by the cells as they are now
		if want := m.reason(r.Work); r.MaxStarting == 0 && r.Reason != want {
			t.Fatalf("%v: %q, want %q", name(r.Work), r.Reason, want)
		}
	}
	if again, _ := dry.Place(work); show(again) != show(placed) {
		t.Fatalf("a clone places %s, the original %s", show(again), show(placed))
	}
}

func name(w *auction.Work) string {
	if w.Task != nil {
		return fmt.Sprint("task ", w.Task.Key)
	}
	return fmt.Sprint(w.Key)
}

func show(placed []auction.Placement) string {
	text := ""
	for _, p := range placed {
		text += fmt.Sprintf("%s=%s ", name(p.Work), p.Cell)
	}
	return text
}

// TestAgreesWithTheRule: on random worlds, through changes and several auctions, the index places, scores and
// refuses as the rule does, and its reasons are those of the cells as they are after the auction.
func TestAgreesWithTheRule(t *testing.T) {
	t.Parallel()
	for _, absurd := range []bool{false, true} {
		t.Run(fmt.Sprintf("absurd=%v", absurd), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				d := draw{T: t, processes: rapid.IntRange(1, 4).Draw(t, "processes"), zones: rapid.IntRange(1, 3).Draw(t, "zones"), absurd: absurd}
				weights := d.weights()
				f, m := auction.New(weights), model{}
				set := func(i int) {
					s := d.state(fmt.Sprint("c", i))
					m[s.Cell] = s
					f.Set(s) // what it dislikes is another test's matter
				}
				n := rapid.IntRange(1, 12).Draw(t, "cells")
				for i := range n {
					set(i * 7 % 13)
				}
				for range rapid.IntRange(1, 3).Draw(t, "auctions") {
					work := make([]auction.Work, rapid.IntRange(1, 25).Draw(t, "pieces"))
					for i := range work {
						work[i] = d.work()
					}
					m.auctionOf(t, f, work, weights)
					for range rapid.IntRange(0, 3).Draw(t, "changes") {
						i := rapid.IntRange(0, 13).Draw(t, "changed")
						if rapid.Bool().Draw(t, "remove") {
							f.Remove(lrp.CellID(fmt.Sprint("c", i)))
							delete(m, lrp.CellID(fmt.Sprint("c", i)))
						} else {
							set(i)
						}
					}
				}
			})
		})
	}
}
