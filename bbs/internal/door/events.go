package door

import (
	"google.golang.org/protobuf/proto"

	"muster/bbs/event"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// kind is what a stream is about, as a set.
type kind byte

// The kinds of streams.
const (
	instances kind = 1 << iota // DesiredLRPs and instances
	slots                      // deprecated: DesiredLRPs, and instances as groups
	tasks                      // tasks
)

// told is one event of a stream.
type told struct {
	name    string
	payload func() proto.Message // made when somebody is to have it
	to      kind
	// cells are those that it concerns; a stream about a cell has it only if its cell is one of them. Nil:
	// any, but an event of an instance that is nowhere concerns none.
	cells []lrp.CellID
}

// teller makes of the log of changes what streams tell. It is told every change, in order.
type teller struct {
	// crash is one whose record comes next: when it happened is there.
	crash *event.Event
}

// tell returns the events that a change makes, in the order in which they are told.
func (t *teller) tell(ev event.Event) []told {
	if ev.Crash != nil {
		list := t.flush(nil)
		t.crash = &ev
		return list
	}
	list := t.flush(ev.Actual)
	switch {
	case ev.Desired != nil:
		return append(list, desiredTold(*ev.Desired, ev.TraceID))
	case ev.Actual != nil:
		return append(list, actualTold(*ev.Actual, ev.TraceID)...)
	case ev.Task != nil:
		return append(list, taskTold(*ev.Task))
	}
	return list
}

// flush tells the crash that waits, with the time of the record that followed, if it is that of its slot.
func (t *teller) flush(next *lrp.Change) []told {
	if t.crash == nil {
		return nil
	}
	c, since := t.crash.Crash, t.crash.At
	if next != nil && next.After != nil && next.After.Key == c.Key {
		since = next.After.Since
	}
	t.crash = nil
	return []told{{"actual_lrp_crashed", func() proto.Message {
		return &bbsv1.ActualLRPCrashedEvent{
			ActualLrpKey: wire.EncodeKey(c.Key), ActualLrpInstanceKey: wire.EncodeInstanceKey(c.By),
			CrashCount: c.Count, CrashReason: c.Reason, Since: since.UnixNano(),
		}
	}, instances | slots, []lrp.CellID{c.By.Cell}}}
}

func desiredTold(c event.DesiredChange, trace string) told {
	const to = instances | slots
	switch {
	case c.Before == nil:
		return told{"desired_lrp_created", func() proto.Message {
			return &bbsv1.DesiredLRPCreatedEvent{DesiredLrp: summary(c.After), TraceId: trace}
		}, to, nil}
	case c.After == nil:
		return told{"desired_lrp_removed", func() proto.Message {
			return &bbsv1.DesiredLRPRemovedEvent{DesiredLrp: summary(c.Before), TraceId: trace}
		}, to, nil}
	}
	return told{"desired_lrp_changed", func() proto.Message {
		return &bbsv1.DesiredLRPChangedEvent{Before: summary(c.Before), After: summary(c.After), TraceId: trace}
	}, to, nil}
}

// summary is a DesiredLRP as far as the log knows it. Volume mounts that name nothing but a driver mean
// something to our own programs only.
func summary(s *lrp.SchedulingInfo) *bbsv1.DesiredLRP {
	m := wire.EncodeSummary(*s)
	m.VolumeMounts = nil
	return m
}

// actualTold tells the change of an instance's record. Clients of these streams know of no retiring: an
// instance that is to be stopped is told as removed at once, so that they send nothing to it any more, and
// once more when it is gone, for those who listed it meanwhile.
func actualTold(c lrp.Change, trace string) []told {
	before, after := shown(c.Before), shown(c.After)
	if before == nil && (after != nil || c.After == nil) {
		before = c.Before
	}
	switch {
	case before == nil && after == nil: // news of one that retires
		return nil
	case before == nil:
		return []told{created(after, trace), groupCreated(after)}
	case after == nil:
		return []told{removed(before, trace), groupRemoved(before)}
	case before.State != lrp.Unclaimed && after.State == lrp.Unclaimed: // the instance is gone: another identity
		return []told{created(after, trace), removed(before, trace), groupChanged(before, after)}
	}
	return []told{changed(before, after, trace), groupChanged(before, after)}
}

// shown is a record that clients of these streams are to use; nil: there is none, or it retires.
func shown(a *lrp.Actual) *lrp.Actual {
	if a == nil || a.Retiring {
		return nil
	}
	return a
}

func created(a *lrp.Actual, trace string) told {
	return told{"actual_lrp_instance_created", func() proto.Message {
		return &bbsv1.ActualLRPInstanceCreatedEvent{ActualLrp: wire.EncodeActual(*a), TraceId: trace}
	}, instances, []lrp.CellID{a.Cell}}
}

func removed(a *lrp.Actual, trace string) told {
	return told{"actual_lrp_instance_removed", func() proto.Message {
		return &bbsv1.ActualLRPInstanceRemovedEvent{ActualLrp: wire.EncodeActual(*a), TraceId: trace}
	}, instances, []lrp.CellID{a.Cell}}
}

// changed tells a change under the key that the instance has now, or had.
func changed(before, after *lrp.Actual, trace string) told {
	key := after.InstanceKey
	if key.IsZero() {
		key = before.InstanceKey
	}
	return told{"actual_lrp_instance_changed", func() proto.Message {
		return &bbsv1.ActualLRPInstanceChangedEvent{
			ActualLrpKey: wire.EncodeKey(after.Key), ActualLrpInstanceKey: wire.EncodeInstanceKey(key),
			Before: info(before), After: info(after), TraceId: trace,
		}
	}, instances, []lrp.CellID{key.Cell}}
}

// info is a record without its keys, internal routes and metric tags.
func info(a *lrp.Actual) *bbsv1.ActualLRPInfo {
	m := wire.EncodeActual(*a)
	return &bbsv1.ActualLRPInfo{
		ActualLrpNetInfo: m.ActualLrpNetInfo, CrashCount: m.CrashCount, CrashReason: m.CrashReason, State: m.State,
		PlacementError: m.PlacementError, Since: m.Since, ModificationTag: m.ModificationTag, Presence: m.Presence,
		Routable: m.Routable, AvailabilityZone: m.AvailabilityZone,
	}
}

func groupCreated(a *lrp.Actual) told {
	return told{"actual_lrp_created", func() proto.Message {
		return &bbsv1.ActualLRPCreatedEvent{ActualLrpGroup: group(a)}
	}, slots, []lrp.CellID{a.Cell}}
}

func groupRemoved(a *lrp.Actual) told {
	return told{"actual_lrp_removed", func() proto.Message {
		return &bbsv1.ActualLRPRemovedEvent{ActualLrpGroup: group(a)}
	}, slots, []lrp.CellID{a.Cell}}
}

func groupChanged(before, after *lrp.Actual) told {
	return told{"actual_lrp_changed", func() proto.Message {
		return &bbsv1.ActualLRPChangedEvent{Before: group(before), After: group(after)}
	}, slots, []lrp.CellID{before.Cell, after.Cell}}
}

// group is the group of a single instance, which is all that these events tell of one.
func group(a *lrp.Actual) *bbsv1.ActualLRPGroup {
	g := &bbsv1.ActualLRPGroup{}
	join(g, wire.EncodeActual(*a))
	return g
}

func taskTold(c task.Change) told {
	switch {
	case c.Before == nil:
		return told{"task_created", func() proto.Message {
			return &bbsv1.TaskCreatedEvent{Task: wire.EncodeTask(*c.After)}
		}, tasks, nil}
	case c.After == nil:
		return told{"task_removed", func() proto.Message {
			return &bbsv1.TaskRemovedEvent{Task: wire.EncodeTask(*c.Before)}
		}, tasks, nil}
	}
	return told{"task_changed", func() proto.Message {
		return &bbsv1.TaskChangedEvent{Before: wire.EncodeTask(*c.Before), After: wire.EncodeTask(*c.After)}
	}, tasks, nil}
}
