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
	// Keep tells an evacuating cell to let the container run on. It has a meaning with an error too, and
	// only for the events of an evacuation; when Apply could not be asked, EventName.KeepUndecided has it.
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
	undecided := Outcome{Group: g, Keep: ev.Name.KeepUndecided()}
	if err := ev.Validate(); err != nil {
		return undecided, err
	}
	key, known := g.key()
	if known && key.Slot != ev.Key.Slot {
		return undecided, fmt.Errorf("%s of %v meets the instances of %v", ev.Name, ev.Key.Slot, key.Slot)
	}
	by := g.caller(ev)
	from, facts := g.state(), g.facts(by, now)
	for _, r := range rules {
		if r.covers(ev.Name, from, by, facts) {
			after, crashes := g.do(r.Do, by, ev, now)
			if after.Wanted && after.Ordinary == nil {
				// The one place where a removed record comes back.
				after = after.renewed(ev, key.Domain, now)
			}
			return Outcome{Group: after, Crashes: crashes, Keep: r.Keep}, nil
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
func (g Group) do(d Deed, by Caller, ev Event, now time.Time) (Group, []CrashReport) {
	switch d {
	case DoCreate:
		g = g.renewed(ev, "", now)
	case DoAssign:
		g.Ordinary = g.Ordinary.assigned(ev, now)
	case DoReport:
		own := g.own(by)
		*own = g.reported(*own, (*own).Presence, ev, now)
	case DoTakePlace:
		record := g.Ordinary
		if by == EvacuatingOne {
			record = g.Evacuating // what it was to be replaced by goes
		}
		g.Ordinary = g.reported(record, Ordinary, ev, now)
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
	case DoWindUp:
		g.Ordinary, g.Evacuating, g.Suspect = g.Ordinary.woundUp(now), g.Evacuating.woundUp(now), nil
	case DoRemove:
		g.Ordinary = nil
	case DoDrop:
		*g.own(by) = nil
	case DoUnclaim:
		g.Ordinary = g.Ordinary.vacated(Unclaimed, now)
	case DoEvacuate:
		g = g.evacuated(by, ev, now)
	case DoSuspect:
		g.Suspect, g.Ordinary = g.Ordinary.moved(Suspect), g.Ordinary.successor(ev, now)
	case DoReturn:
		// An evacuating one stays until either of the two says that it runs: nobody heard of this one lately.
		g.Ordinary, g.Suspect = g.Suspect.moved(Ordinary), nil
	case DoNothing:
	}
	return g, nil
}

// own returns the place of the caller's record. A stranger has none, and is not asked for.
func (g *Group) own(by Caller) **Actual {
	switch by {
	case SuspectOne:
		return &g.Suspect
	case EvacuatingOne:
		return &g.Evacuating
	default:
		return &g.Ordinary
	}
}

// evacuated returns the group with the caller as its evacuating instance. One that had the slot runs, as
// it says: that makes others superfluous, as a Start would.
func (g Group) evacuated(by Caller, ev Event, now time.Time) Group {
	switch by {
	case Holder:
		was := g.Ordinary
		g.Evacuating, g.Suspect = g.reported(was, Evacuating, ev, now), nil
		g.Ordinary = was.successor(ev, now)
	case SuspectOne:
		g.Evacuating, g.Suspect = g.reported(g.Suspect, Evacuating, ev, now), nil
	default:
		g.Evacuating = g.reported(nil, Evacuating, ev, now)
	}
	return g
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

// caller returns how whoever an event names stands to the slot. Siblings come first: Diego looks for
// the caller among all records before it looks at the ordinary one.
func (g Group) caller(ev Event) Caller {
	domain := g.domain()
	switch {
	case ev.By.IsZero():
		if ev.Name.reports() && domain != "" && domain != ev.Key.Domain {
			return Foreigner
		}
		return Nobody
	case g.Suspect != nil && ev.By == g.Suspect.InstanceKey:
		return SuspectOne
	case g.Evacuating != nil && ev.By == g.Evacuating.InstanceKey:
		return EvacuatingOne
	case ev.Name.reports() && domain != "" && domain != ev.Key.Domain:
		return Foreigner
	case g.Ordinary != nil && ev.By == g.Ordinary.InstanceKey:
		return Holder
	default:
		return Stranger
	}
}

// reports tells whether the event says how an instance runs.
func (on EventName) reports() bool { return on == Start || on == EvacuateRunning }

// facts returns all facts that hold. Whether a back-off is over is asked here and not by the planner
// alone, because the record may have changed since the plan was made.
func (g Group) facts(by Caller, now time.Time) Fact {
	var f Fact
	set := func(fact Fact, holds bool) {
		if holds {
			f |= fact
		}
	}
	set(IsWanted, g.Wanted)
	set(HasEvacuating, g.Evacuating != nil && !g.Evacuating.Retiring)
	set(HasSuspect, g.Suspect != nil)
	set(HasSibling, g.Evacuating != nil || g.Suspect != nil)
	set(IsRecreate, g.Strategy == Recreate)
	set(IsComplete, g.Complete)
	set(IsLeaving, by == EvacuatingOne && g.Evacuating.Retiring)
	if a := g.Ordinary; a != nil {
		at, waits := RestartAt(*a)
		set(IsRetiring, a.Retiring)
		set(IsDue, waits && !now.Before(at))
		set(IsSettled, a.State == Crashed || a.State == Running && !a.Retiring)
	}
	return f
}

// renewed returns the group with a new ordinary record. Its domain is that in which the slot is wanted;
// else that of the records there are, that of the event, or that of the record it replaces: some events
// carry none. Records of another domain are of a process that was removed, and go (I7).
func (g Group) renewed(ev Event, replaced Domain, now time.Time) Group {
	domain := g.Domain
	for _, other := range []Domain{g.domain(), ev.Key.Domain, replaced} {
		if domain == "" {
			domain = other
		}
	}
	g.Ordinary = fresh(Key{Slot: ev.Key.Slot, Domain: domain}, ev, now)
	if g.Evacuating != nil && g.Evacuating.Domain != domain {
		g.Evacuating = nil
	}
	if g.Suspect != nil && g.Suspect.Domain != domain {
		g.Suspect = nil
	}
	return g
}

// fresh returns a new UNCLAIMED record.
func fresh(key Key, ev Event, now time.Time) *Actual {
	return &Actual{Key: key, State: Unclaimed, Since: now, Tag: ModificationTag{Epoch: ev.Epoch}}
}

// domain returns the domain that records of the slot carry or are to carry, if that is known.
func (g Group) domain() Domain {
	if key, known := g.key(); known {
		return key.Domain
	}
	return g.Domain
}

// reported returns a record with what the caller says of itself, in the place it is to have; or the
// record itself when that is nothing new: cells repeat it every so often, and a write each time would be
// a storm. A caller without a record gets one.
func (g Group) reported(a *Actual, place Presence, ev Event, now time.Time) *Actual {
	var n *Actual
	switch {
	case a == nil:
		domain := g.domain()
		if domain == "" {
			domain = ev.Key.Domain
		}
		n = fresh(Key{Slot: ev.Key.Slot, Domain: domain}, ev, now)
	case a.State == Running && a.Presence == place && a.says(ev):
		return a
	default:
		n = a.touched(now)
	}
	n.Presence, n.State, n.InstanceKey, n.NetInfo = place, Running, ev.By, ev.NetInfo
	n.PlacementError, n.Explanation = "", nil
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
	n.State, n.InstanceKey, n.NetInfo = Claimed, ev.By, NetInfo{}
	n.PlacementError, n.Explanation = "", nil
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
// that a slot which fits nowhere is not rewritten with every attempt. Who explains nothing says nothing
// against the explanation of the same error.
func (a *Actual) noted(ev Event, now time.Time) *Actual {
	reason, why := storable(ev.Reason), explained(ev.Explanation)
	if a.PlacementError == reason && (why == nil || why.equal(a.Explanation)) {
		return a
	}
	n := a.touched(now)
	n.PlacementError, n.Explanation = reason, why
	return n
}

// marked returns the record of an instance that is to be stopped.
func (a *Actual) marked(now time.Time) *Actual {
	n := a.touched(now)
	n.Retiring = true
	return n
}

// woundUp returns the record of an instance that nobody wants: retiring when there is something to be
// stopped, nil otherwise.
func (a *Actual) woundUp(now time.Time) *Actual {
	switch {
	case a == nil || a.State == Unclaimed || a.State == Crashed:
		return nil
	case a.Retiring:
		return a
	default:
		return a.marked(now)
	}
}

// moved returns the record in another place. Since stays: the instance itself did not change. The tag
// grows, unlike Diego's: a reader that knows records by their place could not tell the first move from a
// second one otherwise.
func (a *Actual) moved(to Presence) *Actual {
	n := *a
	n.Presence, n.Tag = to, a.Tag.Next()
	return &n
}

// successor returns the new record of a slot whose instance moved to another place. Crashes in a row
// are those of the slot, unless the instance ran for so long that they would not have counted.
func (a *Actual) successor(ev Event, now time.Time) *Actual {
	n := fresh(a.Key, ev, now)
	if n.CrashCount = a.nextCrashCount(now) - 1; n.CrashCount > 0 {
		n.CrashReason = a.CrashReason
	}
	return n
}
