// Package converge compares what is desired with what the BBS has records of, and plans the events
// that close the distance. It is a CORE: a snapshot and the time in, a list of steps out.
//
// It is the safety net, not the engine: whoever changes a DesiredLRP applies the events for its slots
// in the same transaction, so a quiet world needs no steps. What is left is time that passes (a
// back-off ends) and what went wrong (a record got lost, a domain became fresh again).
//
// # Promises
//
//	C1  Equal snapshots and times give equal plans, in one stable order.
//	C2  Planning again after the plan was applied gives nothing, unless the plan was cut at MaxSteps;
//	    then repeating gets there.
//	C3  Nothing is retired in a domain that is not fresh, and no wanted slot is ever retired. Unknown
//	    freshness is an empty list of domains, and so retires nothing.
//	C4  Every step is accepted by the rules of bbs/lrp if nothing changed since the snapshot. If
//	    something did, the rules decide: a plan is a proposal.
//
// Instances on cells that went silent, and evacuating and suspect instances of slots that nobody
// wants, are not planned for here.
package converge

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"muster/bbs/lrp"
)

// MaxSteps bounds what one plan proposes, and so how long the transaction gets that applies it.
// More make rare, large repairs faster; fewer let other writers in between.
const MaxSteps = 10_000

// Snapshot is the world at one moment, read in one transaction.
type Snapshot struct {
	// Desired are all DesiredLRPs, in any order, one for each process.
	Desired []lrp.SchedulingInfo
	// Groups are all slots that have a record, in any order, one for each slot. Wanted need not be set.
	Groups []lrp.Group
	// Fresh are the domains whose owner has told everything: what is not desired there is not wanted.
	Fresh []lrp.Domain
}

// Step is one proposed event and the reason for it, in words for people. The caller fills in the
// epoch of the event.
type Step struct {
	Event lrp.Event
	Why   string
}

// Plan returns the steps that close the distance between what is desired and what there is records
// of: first what is missing, then what may restart, then what is too much; each by process and index.
func Plan(s Snapshot, now time.Time) []Step {
	w := newWorld(s)
	var steps []Step
	for _, part := range []func(time.Time) []Step{w.missing, w.restarts, w.surplus, w.orphans} {
		steps = append(steps, part(now)...)
		if len(steps) >= MaxSteps {
			return steps[:MaxSteps]
		}
	}
	return steps
}

// Next returns when the next step becomes due if nothing changes until then; not ok when nothing
// will. A caller that sleeps until then restarts instances when their back-off ends, not at the next
// tick after it.
func Next(s Snapshot, now time.Time) (at time.Time, ok bool) {
	w := newWorld(s)
	for _, p := range w.desired {
		for _, a := range w.ordinary[p.Process] {
			due, waits := lrp.RestartAt(*a)
			if !waits || !due.After(now) || a.Index >= p.Instances {
				continue
			}
			if !ok || due.Before(at) {
				at, ok = due, true
			}
		}
	}
	return at, ok
}

// world is a snapshot, sorted for planning.
type world struct {
	desired  []lrp.SchedulingInfo              // by process
	ordinary map[lrp.ProcessGUID][]*lrp.Actual // by index
	unknown  []lrp.ProcessGUID                 // processes with ordinary instances that nobody desires, in order
	fresh    map[lrp.Domain]bool
}

func newWorld(s Snapshot) world {
	w := world{
		desired:  slices.Clone(s.Desired),
		ordinary: map[lrp.ProcessGUID][]*lrp.Actual{},
		fresh:    map[lrp.Domain]bool{},
	}
	slices.SortFunc(w.desired, func(a, b lrp.SchedulingInfo) int { return cmp.Compare(a.Process, b.Process) })
	for _, g := range s.Groups {
		if a := g.Ordinary; a != nil {
			w.ordinary[a.Process] = append(w.ordinary[a.Process], a)
		}
	}
	known := map[lrp.ProcessGUID]bool{}
	for _, d := range s.Desired {
		known[d.Process] = true
	}
	for process, list := range w.ordinary {
		slices.SortFunc(list, func(a, b *lrp.Actual) int { return cmp.Compare(a.Index, b.Index) })
		if !known[process] {
			w.unknown = append(w.unknown, process)
		}
	}
	slices.Sort(w.unknown)
	for _, d := range s.Fresh {
		w.fresh[d] = true
	}
	return w
}

// missing creates what is desired and has no ordinary record. It needs no fresh domain: creating
// what somebody asked for destroys nothing.
func (w world) missing(time.Time) []Step {
	var steps []Step
	for _, d := range w.desired {
		for _, ev := range w.resize(d) {
			if ev.Name != lrp.Create {
				continue
			}
			steps = append(steps, Step{ev, fmt.Sprintf("%d instances are desired, this one has no record", d.Instances)})
			if len(steps) == MaxSteps {
				return steps
			}
		}
	}
	return steps
}

// restarts brings crashed instances back whose back-off is over.
func (w world) restarts(now time.Time) []Step {
	var steps []Step
	for _, d := range w.desired {
		for _, a := range w.ordinary[d.Process] {
			at, ok := lrp.RestartAt(*a)
			if !ok || now.Before(at) || a.Index >= d.Instances {
				continue
			}
			steps = append(steps, Step{
				lrp.Event{Name: lrp.Restart, Key: a.Key},
				fmt.Sprintf("crashed %d times in a row, waited %v", a.CrashCount, lrp.BackOff(a.CrashCount)),
			})
		}
	}
	return steps
}

// surplus retires instances beyond the number that is desired.
func (w world) surplus(time.Time) []Step {
	var steps []Step
	for _, d := range w.desired {
		if !w.fresh[d.Domain] {
			continue
		}
		for _, ev := range w.resize(d) {
			if ev.Name == lrp.Retire {
				steps = append(steps, Step{ev, fmt.Sprintf("only %d instances are desired", d.Instances)})
			}
		}
	}
	return steps
}

// resize compares a process with its records, without those that are on their way out already.
func (w world) resize(d lrp.SchedulingInfo) []lrp.Event {
	var indices []int32
	for _, a := range w.ordinary[d.Process] {
		if a.Index < d.Instances || !a.Retiring {
			indices = append(indices, a.Index)
		}
	}
	return lrp.Resize(d.Process, d.Domain, indices, d.Instances)
}

// orphans retires instances of processes that nobody desires.
func (w world) orphans(time.Time) []Step {
	var steps []Step
	for _, process := range w.unknown {
		for _, a := range w.ordinary[process] {
			if w.fresh[a.Domain] && !a.Retiring {
				steps = append(steps, Step{
					lrp.Event{Name: lrp.Retire, Key: a.Key}, fmt.Sprintf("nobody desires %s any more", process),
				})
			}
		}
	}
	return steps
}
