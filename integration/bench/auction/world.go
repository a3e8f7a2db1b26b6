package main

import (
	"fmt"
	"math/rand/v2"

	"muster/auctioneer/auction"
	"muster/bbs/lrp"
	"muster/cells"
)

// fill is the share of the memory of all cells that the work takes, proxies included.
const fill = 0.8

// The sizes of instances in MB, and how many of a hundred have them.
var sizes = []struct {
	memoryMB int32
	percent  int
}{{64, 10}, {128, 15}, {256, 25}, {512, 25}, {1024, 15}, {2048, 7}, {4096, 3}}

// One in isolatedCells cells belongs to an isolation segment: it takes only work with its tag. One in
// isolatedWork processes, which is less, has the tag.
const (
	isolatedCells, isolatedWork = 10, 14
	isolationTag                = "isolated"
	// One in fastCells cells has a tag that work may ask for, and one in fastWork processes does.
	fastCells, fastWork = 4, 10
	fastTag             = "fast"
	// One in dockerWork processes has an image of its own, one in taskWork pieces is a task.
	dockerWork, taskWork = 10, 25
	zones                = 3
	proxyMB              = 32
)

// work makes so many pieces: processes of one instance up to hundreds, and tasks.
func work(pieces int, r *rand.Rand) []auction.Work {
	all := make([]auction.Work, 0, pieces)
	for n := 0; len(all) < pieces; n++ {
		i := cells.Instance{
			Key:       lrp.Key{Slot: lrp.Slot{Process: process(n)}, Domain: "cf-apps"},
			Resources: cells.Resources{MemoryMB: size(r), Containers: 1}, MaxPids: 1024, RootFS: "preloaded:cflinuxfs4",
		}
		i.Resources.DiskMB = 512 << r.IntN(3)
		if r.IntN(dockerWork) == 0 {
			i.RootFS = fmt.Sprintf("docker:///registry.example.com/team/app-%d#v1", n)
		}
		switch {
		case r.IntN(isolatedWork) == 0:
			i.PlacementTags = []string{isolationTag}
		case r.IntN(fastWork) == 0:
			i.PlacementTags = []string{fastTag}
		}
		if r.IntN(taskWork) == 0 {
			all = append(all, auction.Work{Task: &cells.Task{Key: cells.TaskKey{GUID: cells.TaskGUID(i.Key.Process), Domain: i.Key.Domain},
				Resources: i.Resources, RootFS: i.RootFS, PlacementTags: i.PlacementTags}})
			continue
		}
		for range min(instances(r), pieces-len(all)) {
			all = append(all, auction.Work{Instance: i})
			i.Key.Index++
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// process names the n-th process as Cloud Foundry does.
func process(n int) lrp.ProcessGUID {
	return lrp.ProcessGUID(fmt.Sprintf("%08x-93b4-4c7d-8e1f-%012x-6d5f1e2a-%04x-4000-8000-%012x", uint32(n)*2654435761, n, n>>16&0xffff, n))
}

func size(r *rand.Rand) int32 {
	p := r.IntN(100)
	for _, s := range sizes {
		if p -= s.percent; p < 0 {
			return s.memoryMB
		}
	}
	return sizes[0].memoryMB
}

// instances draws how many instances a process has: most have few, few have hundreds.
func instances(r *rand.Rand) int {
	switch p := r.IntN(1000); {
	case p < 600:
		return 1 + r.IntN(2)
	case p < 900:
		return 3 + r.IntN(8)
	case p < 990:
		return 11 + r.IntN(90)
	}
	return 101 + r.IntN(400)
}

// fleet makes cells in which the work fits: some are half as large as the mean, some twice.
func fleet(n int, work []auction.Work, r *rand.Rand) []cells.State {
	var memory, disk float64
	for i := range work {
		res := work[i].Resources
		if work[i].Task != nil {
			res = work[i].Task.Resources
		}
		memory, disk = memory+float64(res.MemoryMB+proxyMB), disk+float64(res.DiskMB)
	}
	all := make([]cells.State, n)
	for i := range all {
		factor := []float64{0.5, 0.75, 1, 1.25, 1.5}[r.IntN(5)]
		of := func(sum, fill float64) int32 { return int32(sum / float64(n) / fill * factor) }
		all[i] = cells.State{
			Presence: cells.Presence{
				Cell: lrp.CellID(fmt.Sprintf("cell-%05d", i)), Zone: fmt.Sprintf("z%d", i%zones+1),
				Capacity:        cells.Resources{MemoryMB: of(memory, fill), DiskMB: of(disk, 0.7), Containers: of(float64(len(work)), 0.7)},
				RootFSProviders: map[string]cells.Provider{"preloaded": {Names: []string{"cflinuxfs4"}}, "docker": {}},
			},
			Index: int32(i), ProxyMemoryAllocationMB: proxyMB,
		}
		all[i].Available = all[i].Capacity
		switch {
		case i/zones%isolatedCells == 0:
			all[i].PlacementTags = []string{isolationTag}
		case i/zones%fastCells == 1:
			all[i].OptionalPlacementTags = []string{fastTag}
		}
	}
	return all
}
