package table

import (
	"slices"

	"muster/bbs/lrp"
)

// hold books that a process has a target registered.
func (t *Table) hold(out *Output, guid lrp.ProcessGUID, e entry) {
	if old, ok := t.processes[guid].entries[e.target]; ok && old.instance == e.instance {
		return // only attributes changed
	}
	t.count++
	switch first, ok := t.single[e.target]; {
	case t.holders[e.target] != nil:
		t.holders[e.target][guid] = struct{}{}
	case ok:
		delete(t.single, e.target)
		t.holders[e.target] = map[lrp.ProcessGUID]struct{}{first: {}, guid: {}}
	default:
		t.single[e.target] = guid
	}
	o, ok := t.owners[e.address]
	if ok && o.instance != e.instance {
		out.collide(entry{attributes: attributes{instance: o.instance}}, e)
		o = owner{}
	}
	t.owners[e.address] = owner{e.instance, o.entries + 1}
}

// collide reports that an address went from one instance to another, once a pair.
func (out *Output) collide(was, is entry) {
	c := Collision{Host: is.host, Port: is.port, TLSPort: is.tlsPort, Was: lrp.InstanceGUID(was.instance), Is: lrp.InstanceGUID(is.instance)}
	if !slices.Contains(out.Collisions, c) {
		out.Collisions = append(out.Collisions, c)
	}
}

// release books that a process has a target registered no longer.
func (t *Table) release(guid lrp.ProcessGUID, e entry) {
	t.count--
	if set := t.holders[e.target]; set != nil {
		delete(set, guid)
		if len(set) == 1 {
			for last := range set {
				t.single[e.target] = last
			}
			delete(t.holders, e.target)
		}
	} else {
		delete(t.single, e.target)
	}
	// The winner of a collision keeps the address when the loser goes.
	if o := t.owners[e.address]; o.instance == e.instance {
		if o.entries--; o.entries == 0 {
			delete(t.owners, e.address)
		} else {
			t.owners[e.address] = o
		}
	}
}

// held tells whether any process has a target registered.
func (t *Table) held(k target) bool {
	_, ok := t.single[k]
	return ok || t.holders[k] != nil
}

// Registrations returns a message for everything that is registered.
func (t *Table) Registrations() []Message {
	all := make([]entry, 0, t.count)
	for _, p := range t.processes {
		for _, e := range p.entries {
			e.updatedAtNS = 0
			all = append(all, e)
		}
	}
	return messages(Register, all)
}

// Repeat returns the unregisters that are due to be said again, each of them once.
func (t *Table) Repeat() []Message {
	var again []entry
	for k, r := range t.repeats {
		again = append(again, r.entry)
		if r.left--; r.left <= 0 {
			delete(t.repeats, k)
		}
	}
	return messages(Unregister, again)
}

// Snapshot is what the BBS lists.
type Snapshot struct {
	Desired []lrp.SchedulingInfo
	Actuals []lrp.Actual
	Fresh   []lrp.Domain
}

// Swap replaces what is known by what was listed. What the list lacks is gone, except a DesiredLRP
// whose domain is not fresh: its owner may not have said everything yet. A list that would remove
// much at once is not believed in what it lacks until the next ones agree.
func (t *Table) Swap(s Snapshot) Output {
	var out Output
	old := t.processes
	fresh := map[lrp.Domain]bool{}
	for _, d := range s.Fresh {
		fresh[d] = true
	}
	t.load(s, &out)
	for guid, o := range old {
		p := t.process(guid)
		p.entries, p.known = o.entries, o.known
		if p.desired == nil && o.desired != nil && !o.desired.absent && !fresh[o.desired.domain] {
			p.desired = o.desired
		}
	}
	if n := t.removals(); t.suspicious(n) {
		t.suspicion++
		t.keep(old)
		out.Withheld = n
	} else {
		t.suspicion = 0
	}
	guids := make([]lrp.ProcessGUID, 0, len(t.processes))
	for guid := range t.processes {
		guids = append(guids, guid)
	}
	slices.Sort(guids)
	t.update(&out, guids...)
	for guid, p := range t.processes {
		if p.desired == nil && len(p.records) == 0 {
			delete(t.processes, guid)
		}
	}
	return out
}

// load makes the processes of a list; nothing is registered yet.
func (t *Table) load(s Snapshot, out *Output) {
	old := t.processes
	t.processes = make(map[lrp.ProcessGUID]*process, len(s.Desired))
	for _, d := range s.Desired {
		p := t.process(d.Process)
		if o := old[d.Process]; o != nil && o.desired != nil && !o.desired.absent && o.desired.tag == d.Tag {
			p.desired = o.desired // parsed before, and complained about
		} else {
			p.desired = parse(d, out)
		}
	}
	for i := range s.Actuals {
		a := &s.Actuals[i]
		t.process(a.Process).records[placeOf(a)] = record{a.Tag, endpointOf(a)}
	}
}

// removals counts the registrations that would go.
func (t *Table) removals() int {
	n := 0
	for _, p := range t.processes {
		next := t.compute(p)
		for k := range p.entries {
			if _, ok := next[k]; !ok {
				n++
			}
		}
	}
	return n
}

func (t *Table) suspicious(removals int) bool {
	return removals > t.options.GuardMinimum &&
		float64(removals) > t.options.GuardShare*float64(t.count) &&
		t.suspicion < guardConfirmations
}

// keep takes over what a list lacks; what it says about a record, the table believes.
func (t *Table) keep(old map[lrp.ProcessGUID]*process) {
	for guid, o := range old {
		p := t.process(guid)
		if p.desired == nil && o.desired != nil && !o.desired.absent {
			p.desired = o.desired
		}
		for at, r := range o.records {
			if _, listed := p.records[at]; !listed && r.endpoint != nil {
				p.records[at] = r
			}
		}
	}
}
