package auction

import (
	"maps"
	"net/url"
	"slices"
	"strconv"

	"muster/cells"
)

// constraint is what work demands of a cell besides resources: parsed once, not once a cell, and matched
// with each group once, not with each cell for each piece of work.
type constraint struct {
	scheme, name  string // of the root file system; no scheme: it cannot be parsed
	drivers, tags []string

	zones   []zoneGroups // those that match, as of when so many groups had been made
	matched int
	// misfits holds the smallest needs, for instances and for tasks, that found no room in the auction of
	// that number: nothing larger finds any.
	misfits   [2][]need
	misfitsIn uint64
}

// zoneGroups are the groups of a zone that match a constraint.
type zoneGroups struct {
	zone   int32
	groups []int32
}

// maxConstraints bounds how many constraints are remembered.
const maxConstraints = 1 << 16

func constraintOf(rootFS string, drivers, tags []string) constraint {
	c := constraint{drivers: slices.Clone(drivers), tags: slices.Clone(tags), matched: -1}
	if u, err := url.Parse(rootFS); err == nil {
		c.scheme, c.name = u.Scheme, u.Opaque
	}
	return c
}

// constraint returns the entry of a constraint. It is valid until the next auction.
func (f *Fleet) constraint(rootFS string, drivers, tags []string) int32 {
	key := append(f.name[:0], rootFS...)
	if len(drivers)+len(tags) > 0 {
		key = appendTexts(appendTexts(key, drivers), tags)
	}
	f.name = key
	i, known := f.constraintIDs[string(key)]
	if !known {
		i = int32(len(f.constraints))
		f.constraints = append(f.constraints, constraintOf(rootFS, drivers, tags))
		f.constraintIDs[string(key)] = i
	}
	return i
}

// appendTexts appends texts so that no two lists look the same.
func appendTexts(key []byte, texts []string) []byte {
	key = append(strconv.AppendInt(append(key, 0), int64(len(texts)), 10), ':')
	for _, t := range texts {
		key = append(strconv.AppendInt(key, int64(len(t)), 10), ':')
		key = append(key, t...)
	}
	return key
}

// match makes the list of groups that match a constraint, if groups were made since.
func (f *Fleet) match(c *constraint) {
	if c.matched == f.made {
		return
	}
	c.matched, c.zones = f.made, nil
	at := map[int32]int{}
	for i := range f.groups {
		g := &f.groups[i]
		if g.key == "" || g.offers.match(c) != fits {
			continue
		}
		n, known := at[g.zone]
		if !known {
			n = len(c.zones)
			at[g.zone] = n
			c.zones = append(c.zones, zoneGroups{zone: g.zone})
		}
		c.zones[n].groups = append(c.zones[n].groups, int32(i))
	}
}

// groupOf returns the group of cells with such a state.
func (f *Fleet) groupOf(zone int32, proxy int64, s cells.State) int32 {
	key := strconv.AppendInt(f.name[:0], int64(zone), 10)
	key = strconv.AppendInt(append(key, '+'), proxy, 10)
	for _, scheme := range slices.Sorted(maps.Keys(s.RootFSProviders)) {
		key = appendTexts(key, []string{scheme})
		key = appendTexts(key, slices.Sorted(slices.Values(s.RootFSProviders[scheme].Names)))
	}
	for _, names := range [][]string{s.VolumeDrivers, s.PlacementTags, s.OptionalPlacementTags} {
		key = appendTexts(key, slices.Sorted(slices.Values(names)))
	}
	f.name = key
	g, known := f.groupIDs[string(key)]
	if known {
		return g
	}
	if n := len(f.retired); n > 0 {
		g, f.retired = f.retired[n-1], f.retired[:n-1]
	} else {
		g = int32(len(f.groups))
		f.groups = append(f.groups, group{})
	}
	f.groups[g] = group{key: string(key), zone: zone, offers: offersOf(s), proxy: proxy}
	f.groupIDs[string(key)] = g
	f.made++
	return g
}

// offers is what a cell can run.
type offers struct {
	providers          map[string]cells.Provider
	drivers            []string
	required, optional []string
}

// offersOf copies what a state offers, since the caller may change it later.
func offersOf(s cells.State) offers {
	o := offers{
		providers: maps.Clone(s.RootFSProviders), drivers: slices.Clone(s.VolumeDrivers),
		required: slices.Clone(s.PlacementTags), optional: slices.Clone(s.OptionalPlacementTags),
	}
	for scheme, p := range o.providers {
		o.providers[scheme] = cells.Provider{Names: slices.Clone(p.Names)}
	}
	return o
}

// match is how far work comes on a cell.
type match int

const (
	failsRootFS match = iota
	failsDrivers
	failsTags
	fits
)

func (o *offers) match(c *constraint) match {
	switch {
	case !o.rootFS(c):
		return failsRootFS
	case !subset(c.drivers, o.drivers):
		return failsDrivers
	case !o.accepts(c.tags):
		return failsTags
	}
	return fits
}

// rootFS tells whether the cell offers the root file system. A cell with names for the scheme wants
// them in the form scheme:name; scheme://name has no name in that sense and matches nothing.
func (o *offers) rootFS(c *constraint) bool {
	if c.scheme == "" {
		return false
	}
	p, ok := o.providers[c.scheme]
	return ok && (len(p.Names) == 0 || slices.Contains(p.Names, c.name))
}

// accepts tells whether required ⊆ wanted ⊆ required ∪ optional.
func (o *offers) accepts(wanted []string) bool {
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
