package lrp

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Diff lists what changed from one group to another, in the order in which it is to be announced:
// what is RUNNING now comes first, so that a router learns of a new instance before it forgets the
// old one (bbs reference §11.3). Otherwise the order is ordinary, evacuating, suspect.
//
// An instance that went from one place to another is one change, even where its record has another
// epoch: whoever follows it must not think that it ended. A record that was replaced by another in its
// place is removed before that one comes, because readers may know records by their place.
func Diff(before, after Group) []Change {
	was, is := before.instances(), after.instances()
	origin, stays := match(was, is)
	var changes []Change
	for i, b := range was {
		if b != nil && !stays[i] && is[i] != nil {
			changes = append(changes, Change{Before: b})
		}
	}
	replaced := len(changes)
	for i := range is {
		switch a := is[i]; {
		case a == nil && was[i] != nil && !stays[i]:
			changes = append(changes, Change{Before: was[i]})
		case a == nil:
		case origin[i] < 0:
			changes = append(changes, Change{After: a})
		case !same(was[origin[i]], a):
			changes = append(changes, Change{Before: was[origin[i]], After: a})
		}
	}
	slices.SortStableFunc(changes[replaced:], func(x, y Change) int { return x.order() - y.order() })
	return changes
}

// match pairs records of before and after: those of one instance, and then those in one place that are
// versions of one record. Epochs are drawn anew for each creation, so another epoch is another record.
// It returns the place before of each record after, -1 for new ones, and which records before are paired.
func match(was, is [3]*Actual) (origin [3]int, stays [3]bool) {
	origin = [3]int{-1, -1, -1}
	pair := func(i, j int) { origin[j], stays[i] = i, true }
	for j, a := range is {
		for i, b := range was {
			if a != nil && b != nil && !a.InstanceKey.IsZero() && a.InstanceKey == b.InstanceKey {
				pair(i, j)
			}
		}
	}
	for i, b := range was {
		if a := is[i]; a != nil && b != nil && origin[i] < 0 && !stays[i] && a.Tag.Epoch == b.Tag.Epoch {
			pair(i, i)
		}
	}
	return origin, stays
}

// order is the place of a change among those of one event: smaller comes first. Whoever moves does so
// before another comes to where it was.
func (c Change) order() int {
	moved := c.Before != nil && c.After != nil && c.Before.Presence != c.After.Presence
	if moved || c.After != nil && c.After.State == Running {
		return 0
	}
	return 1
}

// same tells whether two records are equal. Nil and empty lists and maps are, and so are equal times
// in different zones.
func same(a, b *Actual) bool {
	if a == nil || b == nil || a == b {
		return a == b
	}
	return a.Key == b.Key && a.InstanceKey == b.InstanceKey && a.Presence == b.Presence && a.State == b.State &&
		a.NetInfo.equal(b.NetInfo) && a.PlacementError == b.PlacementError && a.Explanation.equal(b.Explanation) &&
		a.CrashCount == b.CrashCount && a.CrashReason == b.CrashReason && a.Since.Equal(b.Since) && a.Tag == b.Tag &&
		slices.Equal(a.InternalRoutes, b.InternalRoutes) && maps.Equal(a.MetricTags, b.MetricTags) &&
		a.Routable == b.Routable && a.AvailabilityZone == b.AvailabilityZone && a.Retiring == b.Retiring
}

// equal compares addresses and ports; the order of ports counts, since cells report it stably.
func (n NetInfo) equal(o NetInfo) bool {
	return n.Address == o.Address && n.InstanceAddress == o.InstanceAddress &&
		n.InstanceIPv6Address == o.InstanceIPv6Address && n.Preferred == o.Preferred && slices.Equal(n.Ports, o.Ports)
}

// isZero tells whether nothing is known of where an instance can be reached.
func (n NetInfo) isZero() bool { return n.equal(NetInfo{}) }

// Check reports every invariant of the package that the group breaks, by number. Apply keeps them; a
// store checks what it reads and writes.
func (g Group) Check() error {
	key, _ := g.key()
	var broken []error
	for place, a := range g.instances() {
		if a == nil {
			continue
		}
		for _, number := range a.broken(Presence(place), key) {
			broken = append(broken, fmt.Errorf("%v in place %d breaks %s: %+v", a.Slot, place, number, *a))
		}
	}
	return errors.Join(broken...)
}

// broken returns the numbers of the invariants that a record breaks in a place of a group.
func (a *Actual) broken(place Presence, key Key) []string {
	empty := a.InstanceKey.IsZero() && a.NetInfo.isZero()
	held := a.Instance != "" && a.Cell != "" && a.PlacementError == "" && a.Explanation == nil
	vacant := a.State == Unclaimed || a.State == Crashed
	active := a.State == Claimed || a.State == Running
	var numbers []string
	for _, rule := range []struct {
		number string
		holds  bool
	}{
		{"I1", !a.Since.IsZero()},
		{"I2", !vacant || empty},
		{"I3", a.State != Claimed || held && a.NetInfo.isZero()},
		{"I4", a.State != Running || held && a.NetInfo.Address != ""},
		{"I5", !a.Retiring || active},
		{"I6", !vacant || a.Presence == Ordinary},
		{"I7", a.Key == key && a.Presence == place},
		{"I8", vacant || active},
	} {
		if !rule.holds {
			numbers = append(numbers, rule.number)
		}
	}
	return numbers
}

// Resize lists the events that give a process as many instances as it wants, by index: Create for
// each index that is missing, Retire for each that is surplus. Existing are the indices that have an
// ordinary instance, in any order. The caller fills in epochs.
func Resize(p ProcessGUID, d Domain, existing []int32, wanted int32) []Event {
	event := func(name EventName, index int32) Event {
		return Event{Name: name, Key: Key{Slot: Slot{Process: p, Index: index}, Domain: d}}
	}
	has := make(map[int32]bool, len(existing))
	for _, index := range existing {
		has[index] = true
	}
	var events []Event
	for index := range wanted {
		if !has[index] {
			events = append(events, event(Create, index))
		}
	}
	for _, index := range slices.Sorted(maps.Keys(has)) {
		if index >= wanted {
			events = append(events, event(Retire, index))
		}
	}
	return events
}

// Apply returns what a Desired becomes by an update, which is valid. It takes over what the update sets, and counts
// the modification tag up if that is news. Neither argument changes.
func (u Update) Apply(d Desired) Desired {
	before := d
	if u.Instances != nil {
		d.Instances = *u.Instances
	}
	if u.Annotation != nil {
		d.Annotation = *u.Annotation
	}
	// Routes are replaced as a whole: a router group that the update does not name is gone.
	if u.Routes != nil {
		d.Routes = u.Routes
	}
	if len(d.Routes) == 0 {
		d.Routes = nil // one form of none, so that equal records compare equal
	}
	// On the wire no tags and absent tags are the same, so tags cannot be cleared.
	if len(u.MetricTags) > 0 {
		d.MetricTags = u.MetricTags
	}
	if u.ImageUsername != nil {
		d.RunInfo.ImageUsername = *u.ImageUsername
	}
	if u.ImagePassword != nil {
		d.RunInfo.ImagePassword = *u.ImagePassword
	}
	if !d.saysAs(before) {
		d.Tag = d.Tag.Next()
	}
	return d
}

// saysAs compares what an update can change. Nil and empty maps are equal.
func (d Desired) saysAs(o Desired) bool {
	return d.Instances == o.Instances && d.Annotation == o.Annotation &&
		maps.EqualFunc(d.Routes, o.Routes, bytes.Equal) && maps.Equal(d.MetricTags, o.MetricTags) &&
		d.RunInfo.ImageUsername == o.RunInfo.ImageUsername && d.RunInfo.ImagePassword == o.RunInfo.ImagePassword
}
