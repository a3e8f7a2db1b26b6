package wire

import (
	"reflect"
	"slices"

	"muster/bbs/lrp"
	"muster/cells"
	repv1 "muster/proto/rep/v1"
)

// Changes returns the message that makes one state of another: all that is not a list of work as it is, and
// of the work only what is new, has changed or is gone. What runs is most of a state, and hardly any of it
// changes at once.
func Changes(was, is cells.State) *repv1.StateResponse {
	before := make(map[lrp.InstanceGUID]*cells.Instance, len(was.Instances))
	for i := range was.Instances {
		before[was.Instances[i].InstanceGUID] = &was.Instances[i]
	}
	tasksBefore := make(map[cells.TaskGUID]*cells.Task, len(was.Tasks))
	for i := range was.Tasks {
		tasksBefore[was.Tasks[i].Key.GUID] = &was.Tasks[i]
	}
	rest := is
	rest.Instances, rest.Tasks = nil, nil
	m := FromState(rest)
	m.Changes = true
	for i := range is.Instances {
		id := is.Instances[i].InstanceGUID
		if old := before[id]; old == nil || !reflect.DeepEqual(*old, is.Instances[i]) {
			m.Lrps = append(m.Lrps, FromInstance(is.Instances[i]))
		}
		delete(before, id)
	}
	for i := range is.Tasks {
		id := is.Tasks[i].Key.GUID
		if old := tasksBefore[id]; old == nil || !reflect.DeepEqual(*old, is.Tasks[i]) {
			m.Tasks = append(m.Tasks, FromTask(is.Tasks[i]))
		}
		delete(tasksBefore, id)
	}
	for id := range before {
		m.GoneInstanceGuids = append(m.GoneInstanceGuids, string(id))
	}
	for id := range tasksBefore {
		m.GoneTaskGuids = append(m.GoneTaskGuids, string(id))
	}
	slices.Sort(m.GoneInstanceGuids)
	slices.Sort(m.GoneTaskGuids)
	return m
}

// Next returns the state after a message of a stream of states. It shares nothing with the one before that is
// ever changed.
func Next(was cells.State, m *repv1.StateResponse) cells.State {
	is := ToState(m)
	if !m.GetChanges() {
		return is
	}
	is.Instances = merge(was.Instances, is.Instances, m.GetGoneInstanceGuids(), func(i *cells.Instance) string { return string(i.InstanceGUID) })
	is.Tasks = merge(was.Tasks, is.Tasks, m.GetGoneTaskGuids(), func(t *cells.Task) string { return string(t.Key.GUID) })
	return is
}

// merge returns a list with what is new or changed put in and what is gone left out.
func merge[T any](was, changed []T, gone []string, id func(*T) string) []T {
	if len(changed)+len(gone) == 0 {
		return was
	}
	touched := make(map[string]bool, len(changed)+len(gone))
	for i := range changed {
		touched[id(&changed[i])] = true
	}
	for _, name := range gone {
		touched[name] = true
	}
	is := make([]T, 0, len(was)+len(changed))
	for i := range was {
		if !touched[id(&was[i])] {
			is = append(is, was[i])
		}
	}
	return append(is, changed...)
}
