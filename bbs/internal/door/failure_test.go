package door

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/refusal"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// Every reason for a refusal and every status has a type and a text. Written down a second time on purpose:
// clients decide by the types.
func TestErrorsOfResponses(t *testing.T) {
	t.Parallel()
	wire := func(err error) error { // as the server ends a call
		st, ok := refusal.ToStatus(err)
		if !ok {
			t.Fatalf("%v is no error of the domain", err)
		}
		return refusal.Request(st, "trace")
	}
	for _, tc := range []struct {
		err  error
		kind bbsv1.Error_Type
		text string
	}{
		{wire(&lrp.Refusal{Why: lrp.NotFound}), 13, "the requested resource could not be found"},
		{wire(&lrp.Refusal{Why: lrp.Exists}), 12, "the requested resource already exists"},
		{wire(&lrp.Refusal{Why: lrp.CannotBeClaimed}), 15, "cannot claim actual LRP"},
		{wire(&lrp.Refusal{Why: lrp.CannotBeStarted}), 16, "cannot start actual LRP"},
		{wire(&lrp.Refusal{Why: lrp.CannotBeCrashed}), 17, "cannot crash actual LRP"},
		{wire(&lrp.Refusal{Why: lrp.CannotBeFailed}), 18, "cannot fail actual LRP"},
		{wire(&lrp.Refusal{Why: lrp.CannotBeRemoved}), 19, "cannot remove actual LRP"},
		{wire(&task.Refusal{Why: task.NotFound}), 13, "the requested resource could not be found"},
		{wire(&task.Refusal{Why: task.Exists}), 12, "the requested resource already exists"},
		{wire(&task.Refusal{Why: task.InvalidRequest}), 4, "the request received is invalid"},
		{wire(&task.Refusal{Why: task.InvalidStateTransition, From: task.Running, To: task.Resolving}), 9, "Cannot transition from Running to Resolving"},
		{wire(&task.Refusal{Why: task.RunningOnDifferentCell, Held: "a", By: "b"}), 24, "Running on cell a not b"},
		{wire(&lrp.Invalid{Fields: []lrp.FieldError{{Field: "domain", Problem: "must not be empty"}, {Field: "x", Problem: "y"}}}), 4,
			"Invalid field: domain: must not be empty, Invalid field: x: y"},
		{wire(errUnread), 4, "the request received is invalid"},
		{errUnread, 4, "the request received is invalid"},
		{&lrp.Refusal{Why: lrp.NotFound}, 13, "the requested resource could not be found"}, // of the door itself
		{status.Error(codes.DeadlineExceeded, "late"), 0, "late"},
		{status.Error(codes.DataLoss, "row 7"), 27, "could not deserialize record"},
		{status.Error(codes.PermissionDenied, "no"), 0, "no"},
		{status.Error(codes.Unauthenticated, "who"), 0, "who"},
		{status.Error(codes.ResourceExhausted, "large"), 0, "large"},
		{status.Error(codes.FailedPrecondition, "fenced"), 0, "fenced"},
		{refusal.Unavailable(codes.Unavailable, "away", 0), 0, "away"},
		{status.Error(codes.Internal, "oops"), 0, "oops"},
	} {
		if got := failure(tc.err); got.GetType() != tc.kind || got.GetMessage() != tc.text {
			t.Errorf("%v becomes %v %q, want %v %q", tc.err, got.GetType(), got.GetMessage(), tc.kind, tc.text)
		}
	}
}

// What an evacuating cell does with its container when its call failed: what was decided, else what is safe.
func TestContainersOfFailedEvacuations(t *testing.T) {
	t.Parallel()
	failed := status.Error(codes.Unavailable, "away")
	for _, tc := range []struct {
		on   lrp.EventName
		err  error
		want bool
	}{
		{lrp.EvacuateRunning, failed, true}, {lrp.EvacuateClaimed, failed, true},
		{lrp.EvacuateCrashed, failed, false}, {lrp.EvacuateStopped, failed, false},
		{lrp.EvacuateRunning, refusal.Keep(failed, false), false}, {lrp.EvacuateStopped, refusal.Keep(failed, true), true},
		{lrp.EvacuateRunning, context.Canceled, true},
	} {
		if got := keeps(tc.on, tc.err); got != tc.want {
			t.Errorf("%s, %v: keep %v, want %v", tc.on, tc.err, got, tc.want)
		}
	}
	if b := (form{bare: true}).appendFailure(nil, errors.New("x")); len(b) != 0 {
		t.Errorf("a response without an error says %q", b)
	}
}

// No path is served twice, and every method that these clients have a use for can be reached.
func TestTablesOfRoutes(t *testing.T) {
	t.Parallel()
	seen, reached := map[string]bool{}, map[string]bool{}
	for _, r := range table() {
		if seen[r.path] {
			t.Errorf("%s is there twice", r.path)
		}
		seen[r.path], reached[r.method] = true, true
	}
	for _, r := range streams() {
		if seen[r.path] {
			t.Errorf("%s is there twice", r.path)
		}
		seen[r.path] = true
	}
	own := map[string]bool{"Heartbeat": true, "BatchDesireLRPs": true} // of which Diego knows nothing
	for _, m := range bbsv1.BBSService_ServiceDesc.Methods {
		if reached[m.MethodName] == own[m.MethodName] {
			t.Errorf("%s: reached %v", m.MethodName, reached[m.MethodName])
		}
	}
	if len(seen) != 50 {
		t.Error(fmt.Sprint(len(seen), " routes, want 50"))
	}
}
