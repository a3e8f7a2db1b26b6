package auction

import "muster/bbs/lrp"

// Record returns the explanation as it is kept with an instance.
func (x *Explanation) Record() *lrp.Explanation {
	if x == nil {
		return nil
	}
	r := &lrp.Explanation{
		Cells: int64(x.Seen.Cells), Away: int64(x.Seen.Away),
		RootFS: int64(x.Seen.RootFS), Drivers: int64(x.Seen.Drivers), Tags: int64(x.Seen.Tags),
		Memory: int64(x.Seen.Memory), Disk: int64(x.Seen.Disk), Containers: int64(x.Seen.Containers), Refused: int64(x.Seen.Avoided),
		Starting: x.Starting, MaxStarting: x.MaxStarting, Remedy: x.Remedy,
	}
	if c := x.Closest; c != nil {
		r.Closest = lrp.Shortfall{Cell: c.Cell, Zone: c.Zone, MemoryMB: c.MemoryMB, DiskMB: c.DiskMB, Containers: c.Containers}
	}
	return r
}
