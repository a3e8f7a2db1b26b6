package table

import (
	"fmt"
	"slices"

	"muster/bbs/lrp"
	"muster/bbs/lrp/cfroute"
)

// Options tune a table.
type Options struct {
	// DirectInstanceRoutes chooses the address of the container where an instance leaves it open.
	DirectInstanceRoutes bool
	// UnregisterRepeats is how often an unregister is repeated; 0: never.
	UnregisterRepeats int
	// GuardShare is the share of all registrations, 0 to 1, that a list may remove without being
	// confirmed by the lists after it; 1 or more: any.
	GuardShare float64
	// GuardMinimum is the number of registrations up to which a list is always believed.
	GuardMinimum int
}

// guardConfirmations is how many further lists in a row must agree before much is removed at once.
const guardConfirmations = 2

// Table is the routing table of an emitter.
type Table struct {
	options   Options
	processes map[lrp.ProcessGUID]*process
	count     int                                     // registered entries
	holders   map[target]map[lrp.ProcessGUID]struct{} // processes that have a target registered, when more than one does
	single    map[target]lrp.ProcessGUID              // the only process that has a target registered
	owners    map[address]owner                       // for collisions
	repeats   map[target]*repeat
	suspicion int // lists in a row that would have removed much
}

// owner is the instance at an address, and by how many entries.
type owner struct {
	instance string
	entries  int
}

// repeat is an unregister that is said again.
type repeat struct {
	entry entry
	left  int
}

// New returns an empty table.
func New(o Options) *Table {
	return &Table{
		options: o, processes: map[lrp.ProcessGUID]*process{},
		holders: map[target]map[lrp.ProcessGUID]struct{}{}, single: map[target]lrp.ProcessGUID{},
		owners: map[address]owner{}, repeats: map[target]*repeat{},
	}
}

// Output is what a change leads to.
type Output struct {
	Messages []Message // in the order of publishing
	// Collisions are addresses that went from one instance to another while both had them.
	Collisions []Collision
	// Invalid are DesiredLRPs whose routes cannot be read, once for each version; they have none.
	Invalid []Invalid
	// Withheld counts the registrations that a list would have removed and did not, because it has
	// to be confirmed first: list again soon.
	Withheld int
}

// Collision is two instances at one address.
type Collision struct {
	Host          string
	Port, TLSPort uint16
	Was, Is       lrp.InstanceGUID
}

// Invalid is a DesiredLRP whose routes cannot be read.
type Invalid struct {
	Process lrp.ProcessGUID
	Err     error
}

// Count returns the number of registered pairs of URI and endpoint.
func (t *Table) Count() int { return t.count }

// process returns the record of a process, making one if there is none.
func (t *Table) process(guid lrp.ProcessGUID) *process {
	p := t.processes[guid]
	if p == nil {
		p = &process{records: map[place]record{}}
		t.processes[guid] = p
	}
	return p
}

// SetDesired records a DesiredLRP.
func (t *Table) SetDesired(d lrp.SchedulingInfo) Output {
	var out Output
	p := t.process(d.Process)
	if p.desired != nil && !p.desired.tag.SucceededBy(d.Tag) {
		return out
	}
	p.desired = parse(d, &out)
	t.update(&out, d.Process)
	return out
}

func parse(d lrp.SchedulingInfo, out *Output) *desired {
	routes, err := cfroute.FromRoutes(d.Routes)
	if err != nil {
		// The value itself stays out of the text: other router groups hold secrets.
		out.Invalid = append(out.Invalid, Invalid{d.Process, fmt.Errorf("routes of %s: %w", d.Process, err)})
	}
	return &desired{
		tag: d.Tag, domain: d.Domain, instances: d.Instances, logGUID: d.LogGUID, routes: routes, metricTags: d.MetricTags,
	}
}

// RemoveDesired records that a DesiredLRP is gone, of which d is the last version.
func (t *Table) RemoveDesired(d lrp.SchedulingInfo) Output {
	var out Output
	p := t.process(d.Process)
	if p.desired != nil && p.desired.tag != d.Tag && !p.desired.tag.SucceededBy(d.Tag) {
		return out
	}
	p.desired = &desired{tag: d.Tag, absent: true}
	t.update(&out, d.Process)
	return out
}

// Change records what happened to an instance.
func (t *Table) Change(c lrp.Change) Output {
	var out Output
	switch {
	case c.After != nil:
		p := t.process(c.After.Process)
		at := placeOf(c.After)
		if r, ok := p.records[at]; !ok || r.tag.SucceededBy(c.After.Tag) {
			p.records[at] = record{c.After.Tag, endpointOf(c.After)}
		}
		if c.Before != nil && placeOf(c.Before) != at { // it changed its presence
			p.remove(c.Before)
		}
		t.update(&out, c.After.Process)
	case c.Before != nil:
		t.process(c.Before.Process).remove(c.Before)
		t.update(&out, c.Before.Process)
	}
	return out
}

func placeOf(a *lrp.Actual) place { return place{a.Index, a.Presence} }

// remove forgets the endpoint of a record, and keeps its tag so that older news about it stay old.
func (p *process) remove(before *lrp.Actual) {
	at := placeOf(before)
	if r, ok := p.records[at]; !ok || r.tag == before.Tag || r.tag.SucceededBy(before.Tag) {
		p.records[at] = record{tag: before.Tag}
	}
}

// update brings what is registered for processes in line with their records, and says so to routers.
func (t *Table) update(out *Output, guids ...lrp.ProcessGUID) {
	var lost, gained []entry
	for _, guid := range guids {
		p := t.processes[guid]
		next, live := t.compute(p), p.live()
		l, g := difference(p, next)
		for _, e := range l {
			t.release(guid, e)
			if n, ok := next[e.target]; ok && live[e.instance] { // both are there, one has lost it
				out.collide(e, n)
			}
		}
		for _, e := range g {
			t.hold(out, guid, e)
		}
		lost, gained = append(lost, l...), append(gained, g...)
		p.entries, p.known = next, live
	}
	lost = slices.DeleteFunc(lost, func(e entry) bool { return t.held(e.target) })
	for _, e := range gained {
		delete(t.repeats, e.target)
	}
	if t.options.UnregisterRepeats > 0 {
		for _, e := range lost {
			t.repeats[e.target] = &repeat{e, t.options.UnregisterRepeats}
		}
	}
	out.Messages = append(messages(Unregister, lost), messages(Register, gained)...)
}

// difference compares what is registered for a process with what should be. An entry whose instance
// changed is on both sides, for the books; only its register is sent. Only entries of endpoints that
// are new carry the time of their change, from which routers measure how long it took to tell them.
func difference(p *process, next map[target]entry) (lost, gained []entry) {
	type at struct {
		instance string
		address
	}
	known, registered := map[at]bool{}, map[string]bool{}
	for k, e := range p.entries {
		known[at{e.instance, k.address}], registered[e.instance] = true, true
		if n, ok := next[k]; !ok || n.instance != e.instance {
			e.updatedAtNS = 0
			lost = append(lost, e)
		}
	}
	for k, e := range next {
		if o, ok := p.entries[k]; ok && o.attributes == e.attributes {
			continue
		}
		if p.known[e.instance] && (known[at{e.instance, k.address}] || !registered[e.instance]) {
			e.updatedAtNS = 0
		}
		gained = append(gained, e)
	}
	return lost, gained
}
