package wire

import (
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// EncodeActual makes the message of an instance's record.
func EncodeActual(a lrp.Actual) *bbsv1.ActualLRP {
	return &bbsv1.ActualLRP{
		ActualLrpKey: EncodeKey(a.Key), ActualLrpInstanceKey: EncodeInstanceKey(a.InstanceKey),
		ActualLrpNetInfo: EncodeNetInfo(a.NetInfo), CrashCount: a.CrashCount, CrashReason: a.CrashReason,
		State: string(a.State), PlacementError: a.PlacementError, PlacementExplanation: encodeExplanation(a.Explanation), Since: encodeTime(a.Since),
		ModificationTag: encodeTag(a.Tag), Presence: bbsv1.ActualLRP_Presence(a.Presence),
		ActualLrpInternalRoutes: list(a.InternalRoutes, encodeInternalRoute), MetricTags: a.MetricTags,
		Routable: &a.Routable, AvailabilityZone: a.AvailabilityZone, Retiring: a.Retiring,
	}
}

// DecodeActual reads an instance's record.
func DecodeActual(m *bbsv1.ActualLRP) lrp.Actual {
	if m == nil {
		m = &bbsv1.ActualLRP{}
	}
	return lrp.Actual{
		Key: DecodeKey(m.ActualLrpKey), InstanceKey: DecodeInstanceKey(m.ActualLrpInstanceKey),
		NetInfo: DecodeNetInfo(m.ActualLrpNetInfo), CrashCount: m.CrashCount, CrashReason: m.CrashReason,
		State: lrp.State(m.State), PlacementError: m.PlacementError, Explanation: decodeExplanation(m.PlacementExplanation), Since: decodeTime(m.Since),
		Tag: decodeTag(m.ModificationTag), Presence: lrp.Presence(m.Presence),
		InternalRoutes: list(m.ActualLrpInternalRoutes, decodeInternalRoute), MetricTags: sameMap(m.MetricTags),
		Routable: decodeRoutable(m.Routable), AvailabilityZone: m.AvailabilityZone, Retiring: m.Retiring,
	}
}

// decodeRoutable reads a routable flag: cells and servers that predate it send none and mean true.
func decodeRoutable(flag *bool) bool { return flag == nil || *flag }

// EncodeKey makes the message of an ActualLRP's key.
func EncodeKey(k lrp.Key) *bbsv1.ActualLRPKey {
	return &bbsv1.ActualLRPKey{ProcessGuid: string(k.Process), Index: k.Index, Domain: string(k.Domain)}
}

// DecodeKey reads an ActualLRP's key; an absent one is empty.
func DecodeKey(m *bbsv1.ActualLRPKey) lrp.Key {
	return lrp.Key{
		Slot:   lrp.Slot{Process: lrp.ProcessGUID(m.GetProcessGuid()), Index: m.GetIndex()},
		Domain: lrp.Domain(m.GetDomain()),
	}
}

// EncodeInstanceKey makes the message of an instance key.
func EncodeInstanceKey(k lrp.InstanceKey) *bbsv1.ActualLRPInstanceKey {
	return &bbsv1.ActualLRPInstanceKey{InstanceGuid: string(k.Instance), CellId: string(k.Cell)}
}

// DecodeInstanceKey reads an instance key; an absent one is zero.
func DecodeInstanceKey(m *bbsv1.ActualLRPInstanceKey) lrp.InstanceKey {
	return lrp.InstanceKey{Instance: lrp.InstanceGUID(m.GetInstanceGuid()), Cell: lrp.CellID(m.GetCellId())}
}

// EncodeNetInfo makes the message that says where an instance can be reached.
func EncodeNetInfo(n lrp.NetInfo) *bbsv1.ActualLRPNetInfo {
	return &bbsv1.ActualLRPNetInfo{
		Address: n.Address, InstanceAddress: n.InstanceAddress, InstanceIpv6Address: n.InstanceIPv6Address,
		PreferredAddress: bbsv1.ActualLRPNetInfo_PreferredAddress(n.Preferred), Ports: list(n.Ports, encodePorts),
	}
}

// DecodeNetInfo reads where an instance can be reached; an absent message is empty.
func DecodeNetInfo(m *bbsv1.ActualLRPNetInfo) lrp.NetInfo {
	return lrp.NetInfo{
		Address: m.GetAddress(), InstanceAddress: m.GetInstanceAddress(), InstanceIPv6Address: m.GetInstanceIpv6Address(),
		Preferred: lrp.PreferredAddress(m.GetPreferredAddress()), Ports: list(m.GetPorts(), decodePorts),
	}
}

func encodePorts(p lrp.PortMapping) *bbsv1.PortMapping {
	return &bbsv1.PortMapping{
		ContainerPort: p.ContainerPort, HostPort: p.HostPort,
		ContainerTlsProxyPort: p.ContainerTLSProxyPort, HostTlsProxyPort: p.HostTLSProxyPort,
	}
}

func decodePorts(m *bbsv1.PortMapping) lrp.PortMapping {
	return lrp.PortMapping{
		ContainerPort: m.GetContainerPort(), HostPort: m.GetHostPort(),
		ContainerTLSProxyPort: m.GetContainerTlsProxyPort(), HostTLSProxyPort: m.GetHostTlsProxyPort(),
	}
}

func encodeExplanation(x *lrp.Explanation) *bbsv1.PlacementExplanation {
	if x == nil {
		return nil
	}
	m := &bbsv1.PlacementExplanation{
		Cells: x.Cells, Away: x.Away, Rootfs: x.RootFS, VolumeDrivers: x.Drivers, PlacementTags: x.Tags,
		Memory: x.Memory, Disk: x.Disk, Containers: x.Containers, Refused: x.Refused,
		Starting: x.Starting, MaxStarting: x.MaxStarting, Remedy: x.Remedy,
	}
	if c := x.Closest; c != (lrp.Shortfall{}) {
		m.Closest = &bbsv1.PlacementShortfall{
			CellId: string(c.Cell), Zone: c.Zone, MemoryMb: c.MemoryMB, DiskMb: c.DiskMB, Containers: c.Containers,
		}
	}
	return m
}

func decodeExplanation(m *bbsv1.PlacementExplanation) *lrp.Explanation {
	if m == nil {
		return nil
	}
	c := m.GetClosest()
	return &lrp.Explanation{
		Cells: m.Cells, Away: m.Away, RootFS: m.Rootfs, Drivers: m.VolumeDrivers, Tags: m.PlacementTags,
		Memory: m.Memory, Disk: m.Disk, Containers: m.Containers, Refused: m.Refused,
		Starting: m.Starting, MaxStarting: m.MaxStarting, Remedy: m.Remedy,
		Closest: lrp.Shortfall{
			Cell: lrp.CellID(c.GetCellId()), Zone: c.GetZone(), MemoryMB: c.GetMemoryMb(), DiskMB: c.GetDiskMb(), Containers: c.GetContainers(),
		},
	}
}

func encodeInternalRoute(hostname string) *bbsv1.ActualLRPInternalRoute {
	return &bbsv1.ActualLRPInternalRoute{Hostname: hostname}
}

func decodeInternalRoute(m *bbsv1.ActualLRPInternalRoute) string { return m.GetHostname() }
