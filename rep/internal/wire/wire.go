// Package wire turns the messages of rep.v1 into domain types and back. It is the only place that
// does; the server and the client of the rep both use it. It decides nothing.
package wire

import (
	"muster/bbs/lrp"
	"muster/cells"
	repv1 "muster/proto/rep/v1"
)

// FromState returns the message for a state.
func FromState(s cells.State) *repv1.StateResponse {
	m := &repv1.StateResponse{
		CellId:                  string(s.Cell),
		Zone:                    s.Zone,
		CellIndex:               s.Index,
		RootfsProviders:         map[string]*repv1.RootFSProvider{},
		Available:               fromResources(s.Available),
		Total:                   fromResources(s.Capacity),
		StartingContainerCount:  s.StartingContainers,
		Evacuating:              s.Evacuating,
		VolumeDrivers:           s.VolumeDrivers,
		PlacementTags:           s.PlacementTags,
		OptionalPlacementTags:   s.OptionalPlacementTags,
		ProxyMemoryAllocationMb: s.ProxyMemoryAllocationMB,
		UnhealthyReason:         s.UnhealthyReason,
	}
	for scheme, p := range s.RootFSProviders {
		m.RootfsProviders[scheme] = &repv1.RootFSProvider{Names: p.Names}
	}
	for _, i := range s.Instances {
		m.Lrps = append(m.Lrps, FromInstance(i))
	}
	for _, t := range s.Tasks {
		m.Tasks = append(m.Tasks, FromTask(t))
	}
	return m
}

// ToState returns the state that a message holds. RepURL is not part of it.
func ToState(m *repv1.StateResponse) cells.State {
	s := cells.State{
		Presence: cells.Presence{
			Cell:                  lrp.CellID(m.GetCellId()),
			Zone:                  m.GetZone(),
			Capacity:              toResources(m.GetTotal()),
			RootFSProviders:       map[string]cells.Provider{},
			PlacementTags:         m.GetPlacementTags(),
			OptionalPlacementTags: m.GetOptionalPlacementTags(),
		},
		Index:                   m.GetCellIndex(),
		Available:               toResources(m.GetAvailable()),
		StartingContainers:      m.GetStartingContainerCount(),
		Evacuating:              m.GetEvacuating(),
		VolumeDrivers:           m.GetVolumeDrivers(),
		ProxyMemoryAllocationMB: m.GetProxyMemoryAllocationMb(),
		UnhealthyReason:         m.GetUnhealthyReason(),
	}
	for scheme, p := range m.GetRootfsProviders() {
		s.RootFSProviders[scheme] = cells.Provider{Names: p.GetNames()}
	}
	for _, i := range m.GetLrps() {
		s.Instances = append(s.Instances, ToInstance(i))
	}
	for _, t := range m.GetTasks() {
		s.Tasks = append(s.Tasks, ToTask(t))
	}
	return s
}

// FromInstance returns the message for an instance.
func FromInstance(i cells.Instance) *repv1.LRP {
	return &repv1.LRP{
		ProcessGuid:   string(i.Key.Process),
		Index:         i.Key.Index,
		Domain:        string(i.Key.Domain),
		InstanceGuid:  string(i.InstanceGUID),
		State:         string(i.State),
		MemoryMb:      i.Resources.MemoryMB,
		DiskMb:        i.Resources.DiskMB,
		MaxPids:       i.MaxPids,
		RootFs:        i.RootFS,
		PlacementTags: i.PlacementTags,
		VolumeDrivers: i.VolumeDrivers,
		TraceId:       i.TraceID,
	}
}

// ToInstance returns the instance that a message holds; it costs one container.
func ToInstance(m *repv1.LRP) cells.Instance {
	return cells.Instance{
		Key: lrp.Key{
			Slot:   lrp.Slot{Process: lrp.ProcessGUID(m.GetProcessGuid()), Index: m.GetIndex()},
			Domain: lrp.Domain(m.GetDomain()),
		},
		InstanceGUID:  lrp.InstanceGUID(m.GetInstanceGuid()),
		State:         cells.InstanceState(m.GetState()),
		Resources:     cells.Resources{MemoryMB: m.GetMemoryMb(), DiskMB: m.GetDiskMb(), Containers: 1},
		MaxPids:       m.GetMaxPids(),
		RootFS:        m.GetRootFs(),
		PlacementTags: m.GetPlacementTags(),
		VolumeDrivers: m.GetVolumeDrivers(),
		TraceID:       m.GetTraceId(),
	}
}

// FromTask returns the message for a task.
func FromTask(t cells.Task) *repv1.Task {
	return &repv1.Task{
		TaskGuid: string(t.Key.GUID), Domain: string(t.Key.Domain),
		MemoryMb: t.Resources.MemoryMB, DiskMb: t.Resources.DiskMB, MaxPids: t.MaxPids, RootFs: t.RootFS,
		PlacementTags: t.PlacementTags, VolumeDrivers: t.VolumeDrivers, TraceId: t.TraceID,
	}
}

// ToTask returns the task that a message holds; it costs one container.
func ToTask(m *repv1.Task) cells.Task {
	return cells.Task{
		Key:       cells.TaskKey{GUID: cells.TaskGUID(m.GetTaskGuid()), Domain: lrp.Domain(m.GetDomain())},
		Resources: cells.Resources{MemoryMB: m.GetMemoryMb(), DiskMB: m.GetDiskMb(), Containers: 1}, MaxPids: m.GetMaxPids(),
		RootFS: m.GetRootFs(), PlacementTags: m.GetPlacementTags(), VolumeDrivers: m.GetVolumeDrivers(), TraceID: m.GetTraceId(),
	}
}

// ToRefusal returns the refusal that a message holds.
func ToRefusal(m *repv1.Refusal) cells.Refusal {
	r := cells.Refusal{Instance: ToInstance(m.GetLrp()), Reason: m.GetReason()}
	if m.GetTask() != nil {
		t := ToTask(m.GetTask())
		r.Task = &t
	}
	return r
}

func fromResources(r cells.Resources) *repv1.Resources {
	return &repv1.Resources{MemoryMb: r.MemoryMB, DiskMb: r.DiskMB, Containers: r.Containers}
}

func toResources(m *repv1.Resources) cells.Resources {
	return cells.Resources{MemoryMB: m.GetMemoryMb(), DiskMB: m.GetDiskMb(), Containers: m.GetContainers()}
}
