package auction

import (
	"fmt"
	"slices"
	"strings"
)

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
func reason(c *constraint, seen Seen) string {
	switch {
	case seen.Avoided > 0:
		return reasonRefused
	case seen.Short > 0:
		return insufficient(seen)
	case seen.Tags > 0:
		return reasonTags + quoteTags(c.tags)
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

func remedyNoCells(seen Seen) string {
	if seen.Away == 0 {
		return "a cell: there is none"
	}
	return fmt.Sprintf("a cell that takes work: %d of %d are evacuating or not healthy", seen.Away, seen.Away)
}

func remedyStartLimit(starting, limit int64) string {
	return fmt.Sprintf("raise the start limit or wait: %d of %d are starting", starting, limit)
}

func remedyAvoided(seen Seen) string {
	return fmt.Sprintf("wait: what the %d cells with room refused is tried again when their state changes", seen.Avoided)
}

// remedyConstraint names what no cell offers, or what no cell offers together.
func (e *explainer) remedyConstraint(c *constraint, seen Seen) string {
	switch {
	case seen.Tags > 0:
		return e.remedyTags(c)
	case seen.Drivers > 0:
		missing := e.missingFrom(c.drivers, func(o *offers, d string) bool { return slices.Contains(o.drivers, d) })
		if len(missing) > 0 {
			return fmt.Sprintf("a cell with the volume drivers %q: none has %q", c.drivers, missing)
		}
		return fmt.Sprintf("a cell with all of the volume drivers %q: none has them together", c.drivers)
	case c.scheme == "":
		return "another rootfs: this one is not a URL with a scheme"
	}
	return fmt.Sprintf("a cell with rootfs %s:%s", c.scheme, c.name)
}

func (e *explainer) remedyTags(c *constraint) string {
	missing := e.missingFrom(c.tags, func(o *offers, t string) bool {
		return slices.Contains(o.required, t) || slices.Contains(o.optional, t)
	})
	switch {
	case len(missing) == 1:
		return "a cell with " + quoteTags(missing) + ": none offers it"
	case len(missing) > 1:
		return "a cell with " + quoteTags(missing) + ": none offers any of them"
	case len(c.tags) == 0:
		return "a cell that requires no placement tags, or the tags of one that does"
	}
	return fmt.Sprintf("a cell that offers %s together and requires no others", quoteTags(c.tags))
}

// missingFrom returns those of the names that no cell has.
func (e *explainer) missingFrom(names []string, has func(*offers, string) bool) (missing []string) {
	for _, name := range names {
		if !slices.ContainsFunc(e.groups, func(g group) bool { return g.key != "" && has(&g.offers, name) }) {
			missing = append(missing, name)
		}
	}
	return missing
}

// remedyRoom says what would make room on a cell. A need above the total of the cell cannot be met by ending
// something there.
func remedyRoom(c *cell, n need, missing amounts) string {
	var less, more []string
	for _, r := range []struct {
		what                 string
		missing, need, total int64
	}{{"memory", missing.memory, n.memory, c.total.memory}, {"disk", missing.disk, n.disk, c.total.disk}} {
		if r.missing == 0 {
			continue
		}
		less = append(less, fmt.Sprintf("%d MB less %s", r.missing, r.what))
		if r.need > r.total {
			more = append(more, fmt.Sprintf("a cell with %d MB of %s instead of the %d of %s", r.need, r.what, r.total, c.id))
		} else {
			more = append(more, fmt.Sprintf("%d MB of %s freed on %s", r.missing, r.what, c.id))
		}
	}
	if missing.containers > 0 {
		what := "containers"
		if missing.containers == 1 {
			what = "container"
		}
		more = append(more, fmt.Sprintf("%d %s ended on %s", missing.containers, what, c.id))
		return strings.Join(more, " and ")
	}
	return strings.Join(less, " and ") + ", or " + strings.Join(more, " and ")
}
