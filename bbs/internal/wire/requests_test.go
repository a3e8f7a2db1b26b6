package wire

import (
	"testing"

	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// TestEvacuationRequests checks that each request of a drained cell carries what its event needs, and
// nothing else (bbs reference, §5).
func TestEvacuationRequests(t *testing.T) {
	t.Parallel()
	events := func(name lrp.EventName) *rapid.Generator[lrp.Event] {
		return rapid.Map(anything[lrp.Event](), func(e lrp.Event) lrp.Event {
			return lrp.Event{Name: name, Key: e.Key, By: e.By}
		})
	}
	t.Run("claimed", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, events(lrp.EvacuateClaimed), EncodeEvacuateClaimed, DecodeEvacuateClaimed)
	})
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, events(lrp.EvacuateStopped), EncodeEvacuateStopped, DecodeEvacuateStopped)
	})
	t.Run("remove", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, events(lrp.RemoveEvacuating), EncodeRemoveEvacuating, DecodeRemoveEvacuating)
	})
	t.Run("crashed", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, rapid.Map(anything[lrp.Event](), func(e lrp.Event) lrp.Event {
			return lrp.Event{Name: lrp.EvacuateCrashed, Key: e.Key, By: e.By, Reason: e.Reason}
		}), EncodeEvacuateCrashed, DecodeEvacuateCrashed)
	})
	t.Run("running", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, rapid.Map(anything[lrp.Event](), func(e lrp.Event) lrp.Event {
			return lrp.Event{
				Name: lrp.EvacuateRunning, Key: e.Key, By: e.By, NetInfo: e.NetInfo, InternalRoutes: e.InternalRoutes,
				MetricTags: e.MetricTags, Routable: e.Routable, AvailabilityZone: e.AvailabilityZone,
			}
		}), EncodeEvacuateRunning, DecodeEvacuateRunning)
	})
	if !DecodeEvacuateRunning(&bbsv1.EvacuateRunningActualLRPRequest{}).Routable {
		t.Error("an evacuation without the flag is not routable")
	}
}

// TestTaskRequests does the same for tasks.
func TestTaskRequests(t *testing.T) {
	t.Parallel()
	events := func(keep func(task.Event) task.Event) *rapid.Generator[task.Event] {
		return rapid.Map(anything[task.Event](), keep)
	}
	t.Run("desire", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, rapid.Map(anything[task.Task](), func(k task.Task) task.Task {
			return task.Task{GUID: k.GUID, Domain: k.Domain, Definition: k.Definition}
		}), EncodeDesireTask, DecodeDesireTask)
	})
	for _, name := range []task.EventName{task.Cancel, task.Resolve, task.Delete} {
		t.Run(string(name), func(t *testing.T) {
			t.Parallel()
			roundTrip(t, events(func(e task.Event) task.Event {
				return task.Event{Name: name, GUID: e.GUID}
			}), EncodeTaskGUID, DecodeTaskGUID(name))
		})
	}
	t.Run("start", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, events(func(e task.Event) task.Event {
			return task.Event{Name: task.Start, GUID: e.GUID, Cell: e.Cell}
		}), EncodeStartTask, DecodeStartTask)
	})
	t.Run("complete", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, events(func(e task.Event) task.Event {
			return task.Event{Name: task.Complete, GUID: e.GUID, Cell: e.Cell, Failed: e.Failed, Reason: e.Reason, Result: e.Result}
		}), EncodeCompleteTask, DecodeCompleteTask)
	})
	t.Run("fail", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, events(func(e task.Event) task.Event {
			return task.Event{Name: task.Fail, GUID: e.GUID, Reason: e.Reason}
		}), EncodeFailTask, DecodeFailTask)
	})
	t.Run("reject", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, events(func(e task.Event) task.Event {
			return task.Event{Name: task.Reject, GUID: e.GUID, Reason: e.Reason}
		}), EncodeRejectTask, DecodeRejectTask)
	})
}
