package server

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// expected lists, for each RPC, who may call it; "own" is a cell about itself. It is written down a
// second time on purpose: widening the table must be done twice.
var expected = map[string][]string{
	"DesireLRP":                 {"client", "operator"},
	"UpdateDesiredLRP":          {"client", "operator"},
	"RemoveDesiredLRP":          {"client", "operator"},
	"DesiredLRPs":               {"client", "operator"},
	"DesiredLRPByProcessGuid":   {"client", "operator", "own", "other"}, // other cells: mayRead
	"DesiredLRPSchedulingInfos": {"auctioneer", "client", "operator"},
	"DesiredLRPRoutingInfos":    {"client", "operator", "route-emitter"},
	"ActualLRPs":                {"auctioneer", "client", "operator", "own", "route-emitter"},
	"ClaimActualLRP":            {"own"},
	"StartActualLRP":            {"own"},
	"CrashActualLRP":            {"own"},
	"FailActualLRP":             {"auctioneer"},
	"RemoveActualLRP":           {"operator", "own"},
	"RetireActualLRP":           {"client", "operator"},
	"Domains":                   {"auctioneer", "client", "operator", "route-emitter"},
	"UpsertDomain":              {"client", "operator"},
	"Cells":                     {"auctioneer", "client", "operator", "route-emitter"},
	"Heartbeat":                 {"own"},
	"Ping":                      {"auctioneer", "bbs", "client", "gorouter", "nats", "operator", "other", "own", "route-emitter"},

	"BatchDesireLRPs":                       {"client", "operator"},
	"DesiredLRPSchedulingInfoByProcessGuid": {"auctioneer", "client", "operator"},
	"ActualLRPsByProcessGuids":              {"auctioneer", "client", "operator", "route-emitter"},

	"EvacuateClaimedActualLRP":  {"own"},
	"EvacuateRunningActualLRP":  {"own"},
	"EvacuateStoppedActualLRP":  {"own"},
	"EvacuateCrashedActualLRP":  {"own"},
	"RemoveEvacuatingActualLRP": {"operator", "own"},

	"DesireTask":    {"client", "operator"},
	"CancelTask":    {"client", "operator"},
	"ResolvingTask": {"client", "operator"},
	"DeleteTask":    {"client", "operator"},
	"FailTask":      {"auctioneer", "operator"},
	"StartTask":     {"own"},
	"CompleteTask":  {"own"},
	"Tasks":         {"auctioneer", "client", "operator", "own"},
	"TaskByGuid":    {"auctioneer", "client", "operator", "own", "other"}, // other cells: mayReadTask
	"RejectTask":    {"auctioneer", "own", "other"},                       // the cell is that of the certificate
	"Watch":         {"auctioneer", "client", "operator", "own", "route-emitter"},
}

// request makes a request of an RPC that names a cell wherever it can.
func request(t *testing.T, m protoreflect.MethodDescriptor, cell string) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	req := mt.New()
	fields := m.Input().Fields()
	switch {
	case m.Name() == "Heartbeat":
		return &bbsv1.HeartbeatRequest{Presence: &bbsv1.CellPresence{CellId: cell}}
	case fields.ByName("cell_id") != nil:
		req.Set(fields.ByName("cell_id"), protoreflect.ValueOfString(cell))
	case fields.ByName("actual_lrp_instance_key") != nil:
		key := &bbsv1.ActualLRPInstanceKey{CellId: cell}
		req.Set(fields.ByName("actual_lrp_instance_key"), protoreflect.ValueOfMessage(key.ProtoReflect()))
	}
	return req.Interface()
}

// Every RPC times every role, and a cell about itself, about another, and about what is no cell.
func TestRightsOfEverybody(t *testing.T) {
	t.Parallel()
	methods := bbsv1.File_bbs_v1_service_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		full := "/bbs.v1.BBSService/" + string(m.Name())
		var allowed []string
		try := func(who string, id identity.ID, cell string) {
			s := New(Options{Identify: func(context.Context) (identity.ID, error) { return id, nil }})
			err := s.authorize(t.Context(), full, request(t, m, cell))
			switch status.Code(err) {
			case codes.OK:
				allowed = append(allowed, who)
			case codes.PermissionDenied:
			default:
				t.Errorf("%s by %s: %v", m.Name(), who, err)
			}
		}
		for _, role := range identity.Roles {
			if role != identity.Rep {
				try(string(role), identity.ID{Role: role}, "")
			}
		}
		cell := identity.ID{Role: identity.Rep, Cell: "c1"}
		try("own", cell, "c1")
		try("other", cell, "c2")
		if !rights()[full].AnyCell {
			for _, odd := range []string{"", "*", "C1", "c1 ", "c1\x00", "%"} {
				try("odd "+odd, cell, odd)
			}
		}
		slices.Sort(allowed)
		want := slices.Sorted(slices.Values(expected[string(m.Name())]))
		if !slices.Equal(allowed, want) {
			t.Errorf("%s may be called by %v, want %v", m.Name(), allowed, want)
		}
	}
	if len(rights()) != methods.Len() {
		t.Errorf("the table has %d rows for %d calls", len(rights()), methods.Len())
	}
}

func TestRecipesForCells(t *testing.T) {
	t.Parallel()
	cell := identity.ID{Role: identity.Rep, Cell: "c1"}
	unclaimed := lrp.Actual{State: lrp.Unclaimed}
	own := lrp.Actual{State: lrp.Running, InstanceKey: lrp.InstanceKey{Instance: "i", Cell: "c1"}}
	others := lrp.Actual{State: lrp.Running, InstanceKey: lrp.InstanceKey{Instance: "i", Cell: "c2"}}
	crashed := lrp.Actual{State: lrp.Crashed}
	for name, tc := range map[string]struct {
		actuals []lrp.Actual
		want    bool
	}{
		"nothing there":          {nil, false},
		"to be placed":           {[]lrp.Actual{others, unclaimed}, true},
		"its own":                {[]lrp.Actual{others, own}, true},
		"only others' instances": {[]lrp.Actual{others, crashed}, false},
	} {
		if got := mayRead(cell, tc.actuals); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestTasksForCells(t *testing.T) {
	t.Parallel()
	cell := identity.ID{Role: identity.Rep, Cell: "c1"}
	for name, tc := range map[string]struct {
		task *task.Task
		want bool
	}{
		"not there":      {nil, false},
		"to be placed":   {&task.Task{State: task.Pending}, true},
		"its own":        {&task.Task{State: task.Running, Cell: "c1"}, true},
		"another cell's": {&task.Task{State: task.Running, Cell: "c2"}, false},
		"over":           {&task.Task{State: task.Completed}, false},
		"being told":     {&task.Task{State: task.Resolving}, false},
	} {
		if got := mayReadTask(cell, tc.task); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// Only cells see image passwords, and the auctioneer only what it places by.
func TestWhatIsShownOfTasks(t *testing.T) {
	t.Parallel()
	whole := task.Task{GUID: "t", Definition: task.Definition{
		RootFS: "r", ImagePassword: "secret", Env: []lrp.EnvVar{{Name: "TOKEN", Value: "secret"}},
	}}
	for role, want := range map[identity.Role]struct{ password, env bool }{
		identity.Rep: {true, true}, identity.Client: {false, true}, identity.Operator: {false, true}, identity.Auctioneer: {false, false},
	} {
		got := shown(identity.ID{Role: role}, whole)
		if (got.Definition.ImagePassword != "") != want.password || (len(got.Definition.Env) > 0) != want.env || got.Definition.RootFS != "r" {
			t.Errorf("%s is shown %+v", role, got.Definition)
		}
	}
}
