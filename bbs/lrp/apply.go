package lrp

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Outcome is the answer to an event.
type Outcome struct {
	Group   Group         // what the group has become; as it was when the event was refused
	Crashes []CrashReport // which crashes are to be reported
	// Keep tells an evacuating cell to let the container run on. It has a meaning with an error too,
	// and only for the events of an evacuation.
	Keep bool
}

// Apply answers one event for one slot. It changes nothing it was given; equal arguments give equal
// results.
//
// A refused event returns a *Refusal, an invalid one an *Invalid, both with the group as it was. An
// accepted event that changes nothing returns the group as it was, and nothing is to be written;
// Diff tells. Records before and after share what did not change: treat them as values.
//
// Any event can lead to a new record, so give every one an Epoch.
func Apply(g Group, ev Event, now time.Time) (Outcome, error) {
	if err := ev.Validate(); err != nil {
		return Outcome{Group: g}, err
	}
	key, known := g.key()
	if known && key.Slot != ev.Key.Slot {
		return Outcome{Group: g}, fmt.Errorf("%s of %v meets the instances of %v", ev.Name, ev.Key.Slot, key.Slot)
	}
	by, facts := g.caller(ev), g.facts(now)
	for _, r := range rules {
		if r.covers(ev.Name, g.state(), by, facts) {
			after, crashes := g.do(r.Do, ev, now)
			if after.Wanted && after.Ordinary == nil {
				// The one place where a removed record comes back.
				after.Ordinary = after.fresh(ev, key.Domain, now)
			}
			return Outcome{Group: after, Crashes: crashes}, nil
		}
	}
	return Outcome{Group: g}, g.refusal(ev)
}

// refusal is the answer to an event that no rule covers. It says who holds the slot, which is what
// somebody who lost it asks next.
func (g Group) refusal(ev Event) *Refusal {
	absent, otherwise := refusals(ev.Name)
	r := &Refusal{Slot: ev.Key.Slot, Event: ev.Name, By: ev.By, Why: absent}
	if g.Ordinary != nil {
		r.From, r.Held, r.Why = g.Ordinary.State, g.Ordinary.InstanceKey, otherwise
	}
	return r
}

// do returns the group after a deed. The group is a copy, and records are replaced, never changed:
// whoever holds the group from before still sees it as it was.
func (g Group) do(d Deed, ev Event, now time.Time) (Group, []CrashReport) {
	switch d {
	case DoCreate:
		g.Ordinary = g.fresh(ev, "", now)
	case DoAssign:
		g.Ordinary = g.Ordinary.assigned(ev, now)
	case DoReport:
		g.Ordinary = g.reported(ev, now)
	case DoTakePlace:
		g.Ordinary = g.reported(ev, now)
		g.Evacuating, g.Suspect = nil, nil
	case DoCount:
		// The report has the whole reason, the record what fits its column.
		after := g.Ordinary.crashed(ev, now)
		report := CrashReport{Key: after.Key, By: ev.By, Count: after.CrashCount, Reason: ev.Reason}
		g.Ordinary = after
		return g, []CrashReport{report}
	case DoCrashRemove:
		// Nobody wants it back, but whoever follows crashes is told all the same.
		count := g.Ordinary.nextCrashCount(now)
		report := CrashReport{Key: g.Ordinary.Key, By: ev.By, Count: count, Reason: ev.Reason}
		g.Ordinary = nil
		return g, []CrashReport{report}
	case DoNote:
		g.Ordinary = g.Ordinary.noted(ev, now)
	case DoMark:
		g.Ordinary = g.Ordinary.marked(now)
	case DoRemove:
		g.Ordinary = nil
	case DoDropSuspect:
		g.Suspect = nil
	case DoUnclaim:
		g.Ordinary = g.Ordinary.vacated(Unclaimed, now)
	case DoNothing:
	}
	return g, nil
}

// key returns the key that the records of the group carry, if there are any.
func (g Group) key() (key Key, known bool) {
	for _, a := range g.instances() {
		if a != nil {
			return a.Key, true
		}
	}
	return Key{}, false
}

// instances returns the three places of the group, in the order of their presence.
func (g Group) instances() [3]*Actual { return [3]*Actual{g.Ordinary, g.Evacuating, g.Suspect} }

// state returns the state of the ordinary instance.
func (g Group) state() State {
	if g.Ordinary == nil {
		return NoInstance
	}
	return g.Ordinary.State
}

// caller returns how whoever reports an event stands to the slot. Suspect comes first: Diego looks for
// the caller among all records before it looks at the ordinary one. An evacuating instance is a
// stranger to the ordinary record.
func (g Group) caller(ev Event) Caller {
	domain := g.domain()
	switch {
	case !ev.By.IsZero() && g.Suspect != nil && ev.By == g.Suspect.InstanceKey:
		return SuspectOne
	case ev.Name == Start && domain != "" && domain != ev.Key.Domain:
		return Foreigner
	case ev.By.IsZero():
		return Nobody
	case g.Ordinary != nil && ev.By == g.Ordinary.InstanceKey:
		return Holder
	default:
		return Stranger
	}
}

// facts returns all facts that hold. Whether a back-off is over is asked here and not by the planner
// alone, because the record may have changed since the plan was made.
func (g Group) facts(now time.Time) Fact {
	var f Fact
	if g.Wanted {
		f |= IsWanted
	}
	if a := g.Ordinary; a != nil {
		if a.Retiring {
			f |= IsRetiring
		}
		if at, ok := RestartAt(*a); ok && !now.Before(at) {
			f |= IsDue
		}
	}
	return f
}

// fresh returns a new record for the slot. Its domain is that of the records there are, since all of
// a group agree (I7); else that in which the slot is wanted, that of the event, or that of the record
// it replaces: some events carry none.
func (g Group) fresh(ev Event, replaced Domain, now time.Time) *Actual {
	domain := replaced
	if ev.Key.Domain != "" {
		domain = ev.Key.Domain
	}
	if wanted := g.domain(); wanted != "" {
		domain = wanted
	}
	return &Actual{
		Key: Key{Slot: ev.Key.Slot, Domain: domain}, State: Unclaimed, Since: now, Tag: ModificationTag{Epoch: ev.Epoch},
	}
}

// domain returns the domain that records of the slot carry or are to carry, if that is known.
func (g Group) domain() Domain {
	if key, known := g.key(); known {
		return key.Domain
	}
	return g.Domain
}

// reported returns the ordinary record with what a Start says, or the record itself when that is
// nothing new: cells repeat it every so often, and a write each time would be a storm.
func (g Group) reported(ev Event, now time.Time) *Actual {
	var n *Actual
	switch a := g.Ordinary; {
	case a == nil:
		n = g.fresh(ev, "", now)
	case a.State == Running && a.says(ev):
		return a
	default:
		n = a.touched(now)
	}
	n.State, n.InstanceKey, n.NetInfo, n.PlacementError = Running, ev.By, ev.NetInfo, ""
	n.InternalRoutes, n.MetricTags = ev.InternalRoutes, ev.MetricTags
	n.Routable, n.AvailabilityZone = ev.Routable, ev.AvailabilityZone
	return n
}

// says tells whether a running record already holds what a Start says. Nil and empty are equal.
func (a *Actual) says(ev Event) bool {
	return a.InstanceKey == ev.By && a.NetInfo.equal(ev.NetInfo) &&
		slices.Equal(a.InternalRoutes, ev.InternalRoutes) && maps.Equal(a.MetricTags, ev.MetricTags) &&
		a.Routable == ev.Routable && a.AvailabilityZone == ev.AvailabilityZone
}

// touched returns a copy that is one version later. Since never runs backwards, whatever the clock
// does: readers take it for an order.
func (a *Actual) touched(now time.Time) *Actual {
	n := *a
	if now.After(a.Since) {
		n.Since = now
	}
	n.Tag = a.Tag.Next()
	return &n
}

// assigned returns the record claimed by the caller. What the last Start reported stays, and is
// stale until the next one; only addresses go, because a CLAIMED instance has none.
func (a *Actual) assigned(ev Event, now time.Time) *Actual {
	n := a.touched(now)
	n.State, n.InstanceKey, n.NetInfo, n.PlacementError = Claimed, ev.By, NetInfo{}, ""
	return n
}

// vacated returns the record without instance.
func (a *Actual) vacated(to State, now time.Time) *Actual {
	n := a.touched(now)
	n.State, n.InstanceKey, n.NetInfo, n.Retiring = to, InstanceKey{}, NetInfo{}, false
	return n
}

// crashed returns the record after a crash that counts.
func (a *Actual) crashed(ev Event, now time.Time) *Actual {
	count, to := a.nextCrashCount(now), Unclaimed
	if count > ImmediateRestarts {
		to = Crashed
	}
	n := a.vacated(to, now)
	n.CrashCount, n.CrashReason = count, storable(ev.Reason)
	return n
}

// noted returns the record with a placement error; the record itself if it has that one already, so
// that a slot which fits nowhere is not rewritten with every attempt.
func (a *Actual) noted(ev Event, now time.Time) *Actual {
	reason := storable(ev.Reason)
	if a.PlacementError == reason {
		return a
	}
	n := a.touched(now)
	n.PlacementError = reason
	return n
}

// marked returns the record of an instance that is to be stopped.
func (a *Actual) marked(now time.Time) *Actual {
	n := a.touched(now)
	n.Retiring = true
	return n
}
