package auction

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"muster/bbs/lrp"
	"muster/cells"
)

// TestExplanations: what was seen, the closest cell and what would help.
func TestExplanations(t *testing.T) {
	t.Parallel()
	tags := func(tags ...string) Work {
		w := want("p", 0, 10)
		w.PlacementTags = tags
		return w
	}
	with := func(change func(*cells.State)) cells.State {
		s := cellOf("cell-7", "z1", cells.Resources{MemoryMB: 4096, DiskMB: 4096, Containers: 10}, on("x", 0, 3584))
		change(&s)
		return s
	}
	same := with(func(*cells.State) {})
	iso := with(func(s *cells.State) { s.PlacementTags = []string{"iso"} })
	driver, rootFS := want("p", 0, 10), want("p", 0, 10)
	driver.VolumeDrivers, rootFS.RootFS = []string{"smb", "nfs"}, "preloaded:windows"
	noURL := want("p", 0, 10)
	noURL.RootFS = "cflinuxfs4"
	thin, flat := want("p", 0, 1024), want("p", 0, 1024)
	thin.Resources.DiskMB, flat.Resources.MemoryMB = 10, 10
	for name, tt := range map[string]struct {
		work    Work
		cells   []cells.State
		seen    Seen
		closest *Closest
		remedy  string
	}{
		"memory": {thin, []cells.State{same}, Seen{Cells: 1, Memory: 1, Short: 1}, &Closest{Cell: "cell-7", Zone: "z1", MemoryMB: 512},
			"512 MB less memory, or 512 MB of memory freed on cell-7"},
		"memory and proxy": {thin, []cells.State{with(func(s *cells.State) { s.ProxyMemoryAllocationMB = 32 })}, Seen{Cells: 1, Memory: 1, Short: 1},
			&Closest{Cell: "cell-7", Zone: "z1", MemoryMB: 544}, "544 MB less memory, or 544 MB of memory freed on cell-7"},
		"disk": {flat, []cells.State{same}, Seen{Cells: 1, Disk: 1, Short: 1}, &Closest{Cell: "cell-7", Zone: "z1", DiskMB: 512},
			"512 MB less disk, or 512 MB of disk freed on cell-7"},
		"both, and more than there ever is": {want("p", 0, 8192), []cells.State{same}, Seen{Cells: 1, Memory: 1, Disk: 1, Short: 1},
			&Closest{Cell: "cell-7", Zone: "z1", MemoryMB: 7680, DiskMB: 7680},
			"7680 MB less memory and 7680 MB less disk, or a cell with 8192 MB of memory instead of the 4096 of cell-7 and a cell with 8192 MB of disk instead of the 4096 of cell-7"},
		"containers": {want("p", 0, 1), []cells.State{with(func(s *cells.State) { s.Available.Containers = 0 })}, Seen{Cells: 1, Containers: 1, Short: 1},
			&Closest{Cell: "cell-7", Zone: "z1", Containers: 1}, "1 container ended on cell-7"},
		"the closest of several": {want("p", 0, 1024), []cells.State{cellOf("a", "z2", cells.Resources{MemoryMB: 1000, DiskMB: 1000, Containers: 1}), same,
			cellOf("b", "z2", cells.Resources{MemoryMB: 1000, DiskMB: 1000, Containers: 1})}, Seen{Cells: 3, Memory: 3, Disk: 3, Short: 3},
			&Closest{Cell: "a", Zone: "z2", MemoryMB: 24, DiskMB: 24},
			"24 MB less memory and 24 MB less disk, or a cell with 1024 MB of memory instead of the 1000 of a and a cell with 1024 MB of disk instead of the 1000 of a"},
		"a tag nobody offers": {tags("gpu"), []cells.State{iso}, Seen{Cells: 1, Tags: 1}, nil, `a cell with placement tag "gpu": none offers it`},
		"tags nobody offers":  {tags("gpu", "tpu"), []cells.State{same}, Seen{Cells: 1, Tags: 1}, nil, `a cell with placement tags "gpu" and "tpu": none offers any of them`},
		"no tags":             {tags(), []cells.State{iso}, Seen{Cells: 1, Tags: 1}, nil, "a cell that requires no placement tags, or the tags of one that does"},
		"tags not together": {tags("iso", "b"), []cells.State{iso, cellOf("other", "z", hundred)}, Seen{Cells: 2, Tags: 2}, nil,
			`a cell with placement tag "b": none offers it`},
		"drivers": {driver, []cells.State{with(func(s *cells.State) { s.VolumeDrivers = []string{"nfs"} })}, Seen{Cells: 1, Drivers: 1}, nil,
			`a cell with the volume drivers ["smb" "nfs"]: none has ["smb"]`},
		"rootfs":                       {rootFS, []cells.State{same}, Seen{Cells: 1, RootFS: 1}, nil, "a cell with rootfs preloaded:windows"},
		"a rootfs that is none":        {noURL, []cells.State{same}, Seen{Cells: 1, RootFS: 1}, nil, "another rootfs: this one is not a URL with a scheme"},
		"no cell":                      {thin, nil, Seen{}, nil, "a cell: there is none"},
		"only cells that take no work": {thin, []cells.State{with(func(s *cells.State) { s.Evacuating = true })}, Seen{Away: 1}, nil, "a cell that takes work: 1 of 1 are evacuating or not healthy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fleetOf(t, Weights{}, tt.cells...)
			_, refused := f.Place([]Work{tt.work})
			x := refused[0].Explanation
			if x == nil || x.Seen != tt.seen || x.Remedy != tt.remedy || (x.Closest == nil) != (tt.closest == nil) || x.Closest != nil && *x.Closest != *tt.closest {
				t.Errorf("%+v, closest %+v", x, x.Closest)
			}
			_, refused = f.Place([]Work{tt.work, tt.work})
			if len(refused) != 2 || refused[0].Explanation != refused[1].Explanation || refused[0].Remedy != tt.remedy {
				t.Errorf("%+v", refused)
			}
		})
	}
}

// Refusals of work that avoids cells are its own matter.
func TestExplainsRefusedBefore(t *testing.T) {
	t.Parallel()
	w, other := want("p", 0, 10), want("p", 1, 10)
	w.Avoid = []lrp.CellID{"B", "A", "B", "nowhere"}
	other.Avoid = []lrp.CellID{"A"}
	r := Run([]Work{w, other}, baseL(), Weights{})
	check(t, r, map[string]string{"p/0": "cell refused the work", "p/1": "B"})
	if x := r.Refused[0]; x.Seen.Avoided != 2 || x.Remedy != "wait: what the 2 cells with room refused is tried again when their state changes" {
		t.Errorf("%+v", x.Explanation)
	}
}

// Many different needs are all answered, and the search for the closest cell is limited.
func TestExplainsAtMostSoManyClosest(t *testing.T) {
	t.Parallel()
	var work []Work
	for i := range int32(maxClosest + 10) {
		work = append(work, want("p", 0, 1000+i))
	}
	closest := 0
	for _, r := range Run(work, baseL(), Weights{}).Refused {
		if r.Reason != "insufficient resources: disk, memory" {
			t.Fatal(r.Reason)
		}
		if r.Closest != nil {
			closest++
		}
	}
	if closest != maxClosest {
		t.Errorf("%d closest cells", closest)
	}
}

// TestComplaints: what makes no sense is named with cell, field, value and bound. (A9)
func TestComplaints(t *testing.T) {
	t.Parallel()
	bad := cellOf("bad", "z", cells.Resources{MemoryMB: -1, DiskMB: 100, Containers: 10})
	bad.Available.DiskMB, bad.StartingContainers, bad.ProxyMemoryAllocationMB = 101, -3, math.MinInt32
	err := New(Weights{}).Set(bad)
	for _, part := range []string{
		`state of cell "bad": total memory_mb is -1, want 1 or more`,
		`available disk_mb is 101, want 0 to 100, the total`,
		`starting_container_count is -3, want 0 or more`, `proxy_memory_allocation_mb is -2147483648, want 0 or more`,
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
	var of *StateError
	f := New(Weights{})
	if err := f.Set(cells.State{}); !errors.As(err, &of) || of.Field != "cell_id" || f.Len() != 0 {
		t.Errorf("%v, %d cells", err, f.Len())
	}
	if err := f.Set(cellOf("good", "", hundred)); err != nil {
		t.Error(err)
	}
	for _, w := range []Weights{{Starting: math.NaN()}, {Starting: -1}, {BinPack: math.Inf(1)}, {BinPack: MaxWeight * 2}} {
		if w.Check() == nil {
			t.Errorf("%+v is accepted", w)
		}
	}
	if err := (Weights{Starting: MaxWeight, BinPack: 0.5, MaxStarting: -1}).Check(); err != nil {
		t.Error(err)
	}
}

// Of two states of one cell the later counts. (A9)
func TestLaterStateCounts(t *testing.T) {
	t.Parallel()
	small := cellOf("A", "z", cells.Resources{MemoryMB: 1, DiskMB: 1, Containers: 1})
	check(t, Run([]Work{want("p", 0, 10)}, []cells.State{cellOf("A", "z", hundred), small}, Weights{}), map[string]string{"p/0": "insufficient resources: disk, memory"})
	check(t, Run([]Work{want("p", 0, 10)}, []cells.State{small, cellOf("A", "z", hundred)}, Weights{}), map[string]string{"p/0": "A"})
}

// TestFleetForgets: what is gone leaves nothing behind, however often cells come and go.
func TestFleetForgets(t *testing.T) {
	t.Parallel()
	f := New(defaults)
	for round := range 50 {
		for i := range 20 {
			s := cellOf(fmt.Sprint("c", (i*7+round)%31), fmt.Sprint("z", i%3), hundred, on(fmt.Sprint("p", round), 0, 1), on(fmt.Sprint("q", i), 0, 1))
			s.OptionalPlacementTags = []string{fmt.Sprint("tag-", round)}
			must(t, f.Set(s))
		}
		f.Place(of(3, 3, 1))
		for i := range 31 {
			f.Remove(lrp.CellID(fmt.Sprint("c", i)))
		}
		f.Place(nil)
	}
	if f.Len() != 0 || f.taking != 0 || f.starting != 0 || len(f.processIDs) != 0 || len(f.groupIDs) != 0 {
		t.Errorf("%d cells, %d taking work, %d starting, %d processes, %d groups", f.Len(), f.taking, f.starting, len(f.processIDs), len(f.groupIDs))
	}
	if len(f.cells) > 31 || len(f.processes) > 40 || len(f.groups) > 10 {
		t.Errorf("entries: %d cells, %d processes, %d groups", len(f.cells), len(f.processes), len(f.groups))
	}
}
