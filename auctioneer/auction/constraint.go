package auction

import (
	"net/url"
	"slices"

	"muster/bbs/lrp"
	"muster/cells"
)

// need is a piece of work as the scan wants it: parsed once, not once a cell.
type need struct {
	process      lrp.ProcessGUID
	memory, disk int64
	scheme, name string // of the root file system; no scheme: it cannot be parsed
	drivers      []string
	tags         []string
	avoid        []lrp.CellID
}

func needOf(w Work) need {
	n := need{
		process: w.Key.Process,
		memory:  int64(max(w.Resources.MemoryMB, 0)), disk: int64(max(w.Resources.DiskMB, 0)),
		drivers: w.VolumeDrivers, tags: w.PlacementTags, avoid: w.Avoid,
	}
	if u, err := url.Parse(w.RootFS); err == nil {
		n.scheme, n.name = u.Scheme, u.Opaque
	}
	return n
}

func (n need) avoids(c lrp.CellID) bool { return slices.Contains(n.avoid, c) }

// offers is what a cell can run.
type offers struct {
	providers          map[string]cells.Provider
	drivers            []string
	required, optional []string
}

func offersOf(s cells.State) offers {
	return offers{providers: s.RootFSProviders, drivers: s.VolumeDrivers, required: s.PlacementTags, optional: s.OptionalPlacementTags}
}

// match is how far a need comes on a cell.
type match int

const (
	failsRootFS match = iota
	failsDrivers
	failsTags
	fits
)

func (o offers) match(n need) match {
	switch {
	case !o.rootFS(n):
		return failsRootFS
	case !subset(n.drivers, o.drivers):
		return failsDrivers
	case !o.accepts(n.tags):
		return failsTags
	}
	return fits
}

// rootFS tells whether the cell offers the root file system. A cell with names for the scheme wants
// them in the form scheme:name; scheme://name has no name in that sense and matches nothing.
func (o offers) rootFS(n need) bool {
	if n.scheme == "" {
		return false
	}
	p, ok := o.providers[n.scheme]
	return ok && (len(p.Names) == 0 || slices.Contains(p.Names, n.name))
}

// accepts tells whether required ⊆ wanted ⊆ required ∪ optional.
func (o offers) accepts(wanted []string) bool {
	if !subset(o.required, wanted) {
		return false
	}
	for _, t := range wanted {
		if !slices.Contains(o.required, t) && !slices.Contains(o.optional, t) {
			return false
		}
	}
	return true
}

func subset(a, b []string) bool {
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}
