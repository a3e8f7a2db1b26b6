package auction

import "strings"

// The reasons. Clients of Diego compare their beginnings.
const (
	reasonNoCells      = "unable to communicate to compatible cells"
	reasonStartLimit   = "waiting to start instance: reached in-flight start limit"
	reasonRootFS       = "found no compatible cell for required rootfs"
	reasonDrivers      = "found no compatible cell with required volume drivers"
	reasonTags         = "found no compatible cell with "
	reasonInsufficient = "insufficient resources"
	reasonRefused      = "cell refused the work"
)

// reason explains why no cell was found: the constraint on which the cell failed that came furthest,
// or the resources that every fitting cell lacks.
func reason(n need, seen Seen) string {
	switch {
	case seen.Avoided > 0:
		return reasonRefused
	case seen.Short > 0:
		return insufficient(seen)
	case seen.Tags > 0:
		return reasonTags + quoteTags(n.tags)
	case seen.Drivers > 0:
		return reasonDrivers
	}
	return reasonRootFS
}

func insufficient(seen Seen) string {
	var words []string
	for _, m := range []struct {
		word  string
		cells int
	}{{"containers", seen.Containers}, {"disk", seen.Disk}, {"memory", seen.Memory}} {
		if m.cells == seen.Short {
			words = append(words, m.word)
		}
	}
	if len(words) == 0 {
		return reasonInsufficient
	}
	return reasonInsufficient + ": " + strings.Join(words, ", ")
}

func quoteTags(tags []string) string {
	quoted := make([]string, len(tags))
	for i, t := range tags {
		quoted[i] = `"` + t + `"`
	}
	switch n := len(quoted); n {
	case 0:
		return "no placement tags"
	case 1:
		return "placement tag " + quoted[0]
	default:
		return "placement tags " + strings.Join(quoted[:n-1], ", ") + " and " + quoted[n-1]
	}
}
