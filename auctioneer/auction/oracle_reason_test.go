package auction_test

import (
	"net/url"
	"slices"
	"strings"

	"muster/auctioneer/auction"
	"muster/cells"
)

// reason is the reason for work that was refused, in plain loops over the cells as they are now.
func (m model) reason(w *auction.Work) string {
	t := w.Task
	if t == nil {
		t = &cells.Task{RootFS: w.RootFS, PlacementTags: w.PlacementTags, VolumeDrivers: w.VolumeDrivers, Resources: w.Resources}
	}
	furthest, avoided := "unable to communicate to compatible cells", false
	stage := 0
	reach := func(s int, text string) {
		if s > stage {
			stage, furthest = s, text
		}
	}
	words := map[string]bool{"containers": true, "disk": true, "memory": true}
	for _, c := range m {
		switch {
		case c.Evacuating || c.UnhealthyReason != "":
			continue
		case !hasRootFS(c, t.RootFS):
			reach(1, "found no compatible cell for required rootfs")
			continue
		case !all(t.VolumeDrivers, c.VolumeDrivers):
			reach(2, "found no compatible cell with required volume drivers")
			continue
		case !all(c.PlacementTags, t.PlacementTags) || !all(t.PlacementTags, slices.Concat(c.PlacementTags, c.OptionalPlacementTags)):
			reach(3, "found no compatible cell with "+tagText(t.PlacementTags))
			continue
		}
		reach(4, "insufficient resources")
		memory := int64(max(t.Resources.MemoryMB, 0))
		if w.Task == nil {
			memory += int64(max(c.ProxyMemoryAllocationMB, 0))
		}
		short := map[string]bool{}
		short["memory"] = int64(c.Available.MemoryMB) < memory
		short["disk"] = int64(c.Available.DiskMB) < int64(max(t.Resources.DiskMB, 0))
		short["containers"] = c.Available.Containers < 1
		if !short["memory"] && !short["disk"] && !short["containers"] {
			avoided = true // or it would have been placed
			continue
		}
		for word := range words {
			words[word] = words[word] && short[word]
		}
	}
	if avoided {
		return "cell refused the work"
	}
	if stage == 4 {
		var common []string
		for _, word := range []string{"containers", "disk", "memory"} {
			if words[word] {
				common = append(common, word)
			}
		}
		if len(common) > 0 {
			return furthest + ": " + strings.Join(common, ", ")
		}
	}
	return furthest
}

func hasRootFS(c cells.State, text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return false
	}
	p, ok := c.RootFSProviders[u.Scheme]
	return ok && (len(p.Names) == 0 || slices.Contains(p.Names, u.Opaque))
}

func all(needed, there []string) bool {
	return !slices.ContainsFunc(needed, func(n string) bool { return !slices.Contains(there, n) })
}

func tagText(tags []string) string {
	switch len(tags) {
	case 0:
		return "no placement tags"
	case 1:
		return `placement tag "` + tags[0] + `"`
	case 2:
		return `placement tags "` + tags[0] + `" and "` + tags[1] + `"`
	}
	panic("the worlds have no more tags")
}
