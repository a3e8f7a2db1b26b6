package server

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"muster/bbs/lrp"
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
	"Watch":                     {"auctioneer", "client", "operator", "own", "route-emitter"},
}

// request makes a request of an RPC that names a cell wherever it can.
func request(t *testing.T, m protoreflect.MethodDescriptor, cell string) proto.Message {
	t.Helper()
	switch m.Name() {
	case "ClaimActualLRP":
		return &bbsv1.ClaimActualLRPRequest{ActualLrpInstanceKey: &bbsv1.ActualLRPInstanceKey{CellId: cell}}
	case "StartActualLRP":
		return &bbsv1.StartActualLRPRequest{ActualLrpInstanceKey: &bbsv1.ActualLRPInstanceKey{CellId: cell}}
	case "CrashActualLRP":
		return &bbsv1.CrashActualLRPRequest{ActualLrpInstanceKey: &bbsv1.ActualLRPInstanceKey{CellId: cell}}
	case "RemoveActualLRP":
		return &bbsv1.RemoveActualLRPRequest{ActualLrpInstanceKey: &bbsv1.ActualLRPInstanceKey{CellId: cell}}
	case "ActualLRPs":
		return &bbsv1.ActualLRPsRequest{CellId: cell}
	case "Watch":
		return &bbsv1.WatchRequest{CellId: cell}
	case "Heartbeat":
		return &bbsv1.HeartbeatRequest{Presence: &bbsv1.CellPresence{CellId: cell}}
	}
	return nil // the others name no cell
}

// Every RPC times every role, and a cell about itself, about another, and about nobody.
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
		if m.Name() != "DesiredLRPByProcessGuid" {
			try("nobody's", cell, "")
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
