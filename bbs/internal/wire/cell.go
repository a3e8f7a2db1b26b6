package wire

import (
	"strings"

	"muster/bbs/lrp"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// EncodePresence makes the message of a cell's presence. The address that older clients read is
// that of the URL.
func EncodePresence(p cells.Presence) *bbsv1.CellPresence {
	_, address, _ := strings.Cut(p.RepURL, "://")
	return &bbsv1.CellPresence{
		CellId: string(p.Cell), RepAddress: address, RepUrl: p.RepURL, Zone: p.Zone,
		Capacity: &bbsv1.CellCapacity{
			MemoryMb: p.Capacity.MemoryMB, DiskMb: p.Capacity.DiskMB, Containers: p.Capacity.Containers,
		},
		RootfsProviders: list(sortedKeys(p.RootFSProviders), func(scheme string) *bbsv1.Provider {
			return &bbsv1.Provider{Name: scheme, Properties: p.RootFSProviders[scheme].Names}
		}),
		PlacementTags: p.PlacementTags, OptionalPlacementTags: p.OptionalPlacementTags,
	}
}

// DecodePresence reads a cell's presence. A cell that announces only an address speaks plain HTTP.
func DecodePresence(m *bbsv1.CellPresence) cells.Presence {
	if m == nil {
		m = &bbsv1.CellPresence{}
	}
	url := m.RepUrl
	if url == "" && m.RepAddress != "" {
		url = "http://" + m.RepAddress
	}
	return cells.Presence{
		Cell: lrp.CellID(m.CellId), RepURL: url, Zone: m.Zone,
		Capacity: cells.Resources{
			MemoryMB: m.Capacity.GetMemoryMb(), DiskMB: m.Capacity.GetDiskMb(), Containers: m.Capacity.GetContainers(),
		},
		RootFSProviders: decodeProviders(m.RootfsProviders), PlacementTags: same(m.PlacementTags),
		OptionalPlacementTags: same(m.OptionalPlacementTags),
	}
}

// decodeProviders reads the providers. One scheme may be listed twice: a cell can then run what
// either entry names, and everything when either names nothing.
func decodeProviders(list []*bbsv1.Provider) map[string]cells.Provider {
	if len(list) == 0 {
		return nil
	}
	providers := map[string]cells.Provider{}
	for _, m := range list {
		p, seen := providers[m.GetName()]
		switch {
		case len(m.GetProperties()) == 0, seen && len(p.Names) == 0:
			p = cells.Provider{}
		default:
			p.Names = append(p.Names, m.GetProperties()...)
		}
		providers[m.GetName()] = p
	}
	return providers
}
