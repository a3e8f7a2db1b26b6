package door

import (
	"net/http"

	"google.golang.org/protobuf/proto"

	"muster/bbs/lrp"
)

// route is one line of the table.
type route struct {
	path   string
	method string // of bbs.v1.BBSService
	form   form
}

// form says where a route differs from its method. The zero form: in nothing.
type form struct {
	// read fills the request of the method from a body that is another message.
	read func(body []byte, request proto.Message) error
	// answer makes of the method's response that of the route; it may change it.
	answer func(request, response proto.Message) (proto.Message, error)
	// evacuation is the event of a route whose response says with an error too whether to keep the container.
	evacuation lrp.EventName
	// bare: its response has no error, and fails by being empty.
	bare bool
}

// table is every route with an answer. The number behind a path is its revision: of those that are served
// in several, clients use the highest, and Cloud Controller and old cells the one before.
func table() []route {
	return []route{
		{"/v1/ping", "Ping", form{read: nothing, bare: true}},
		{"/v1/domains/list", "Domains", form{read: nothing}},
		{"/v1/domains/upsert", "UpsertDomain", form{}},
		{"/v1/cells/list.r1", "Cells", form{read: nothing}},

		{"/v1/actual_lrps/list", "ActualLRPs", form{}},
		{"/v1/actual_lrps/list_by_process_guids", "ActualLRPsByProcessGuids", form{}},
		{"/v1/actual_lrps/claim", "ClaimActualLRP", form{}},
		{"/v1/actual_lrps/start.r1", "StartActualLRP", form{}},
		{"/v1/actual_lrps/start", "StartActualLRP", form{read: startWithoutReport}},
		{"/v1/actual_lrps/crash", "CrashActualLRP", form{}},
		{"/v1/actual_lrps/fail", "FailActualLRP", form{}},
		{"/v1/actual_lrps/remove", "RemoveActualLRP", form{}},
		{"/v1/actual_lrps/retire", "RetireActualLRP", form{}},
		{"/v1/actual_lrps/remove_evacuating", "RemoveEvacuatingActualLRP", form{}},
		{"/v1/actual_lrps/evacuate_claimed", "EvacuateClaimedActualLRP", form{evacuation: lrp.EvacuateClaimed}},
		{"/v1/actual_lrps/evacuate_crashed", "EvacuateCrashedActualLRP", form{evacuation: lrp.EvacuateCrashed}},
		{"/v1/actual_lrps/evacuate_stopped", "EvacuateStoppedActualLRP", form{evacuation: lrp.EvacuateStopped}},
		{"/v1/actual_lrps/evacuate_running.r1", "EvacuateRunningActualLRP", form{evacuation: lrp.EvacuateRunning}},
		{"/v1/actual_lrps/evacuate_running", "EvacuateRunningActualLRP", form{evacuation: lrp.EvacuateRunning, read: evacuationWithoutReport}},
		{"/v1/actual_lrp_groups/list", "ActualLRPs", form{answer: groups}},
		{"/v1/actual_lrp_groups/list_by_process_guid", "ActualLRPs", form{read: groupsOfProcess, answer: groups}},
		{"/v1/actual_lrp_groups/get_by_process_guid_and_index", "ActualLRPs", form{read: groupOfSlot, answer: oneGroup}},

		{"/v1/desired_lrps/list.r3", "DesiredLRPs", form{answer: withBothNames}},
		{"/v1/desired_lrps/list.r2", "DesiredLRPs", form{answer: withoutLayers}},
		{"/v1/desired_lrps/get_by_process_guid.r3", "DesiredLRPByProcessGuid", form{answer: withBothNames}},
		{"/v1/desired_lrps/get_by_process_guid.r2", "DesiredLRPByProcessGuid", form{answer: withoutLayers}},
		{"/v1/desired_lrp_scheduling_infos/list", "DesiredLRPSchedulingInfos", form{}},
		{"/v1/desired_lrp_scheduling_infos/get_by_process_guid", "DesiredLRPSchedulingInfoByProcessGuid", form{}},
		{"/v1/desired_lrp_routing_infos/list", "DesiredLRPRoutingInfos", form{}},
		{"/v1/desired_lrp/desire.r2", "DesireLRP", form{}},
		{"/v1/desired_lrp/update", "UpdateDesiredLRP", form{}},
		{"/v1/desired_lrp/remove", "RemoveDesiredLRP", form{}},

		{"/v1/tasks/list.r3", "Tasks", form{}},
		{"/v1/tasks/list.r2", "Tasks", form{answer: withoutLayers}},
		{"/v1/tasks/get_by_task_guid.r3", "TaskByGuid", form{}},
		{"/v1/tasks/get_by_task_guid.r2", "TaskByGuid", form{answer: withoutLayers}},
		{"/v1/tasks/desire.r2", "DesireTask", form{}},
		{"/v1/tasks/start", "StartTask", form{}},
		{"/v1/tasks/cancel", "CancelTask", form{}},
		{"/v1/tasks/fail", "FailTask", form{}},
		{"/v1/tasks/reject", "RejectTask", form{}},
		{"/v1/tasks/complete", "CompleteTask", form{}},
		{"/v1/tasks/resolving", "ResolvingTask", form{}},
		{"/v1/tasks/delete", "DeleteTask", form{}},
	}
}

// streamRoute is one line of the table of streams.
type streamRoute struct {
	path string
	verb string
	kind kind
}

// streams is every route with a stream. The older revisions differ in parts of records that no event has.
func streams() []streamRoute {
	return []streamRoute{
		{"/v1/events/lrp_instances.r1", http.MethodPost, instances},
		{"/v1/events/lrp_instances", http.MethodPost, instances},
		{"/v1/events/tasks.r1", http.MethodPost, tasks},
		{"/v1/events/tasks", http.MethodPost, tasks},
		{"/v1/events.r1", http.MethodGet, slots},
		{"/v1/events", http.MethodGet, slots},
	}
}

// nothing is the request of a route that has none: whatever the body is.
func nothing([]byte, proto.Message) error { return nil }
