package refusal

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
	"muster/bbs/task"
)

// Every refusal comes back from the wire as it went, and is found through other errors around it.
func TestRefusalsBothWays(t *testing.T) {
	t.Parallel()
	whys := []lrp.Why{lrp.NotFound, lrp.Exists, lrp.CannotBeClaimed, lrp.CannotBeStarted, lrp.CannotBeCrashed, lrp.CannotBeFailed, lrp.CannotBeRemoved}
	if len(whys) != len(table()) {
		t.Errorf("the table has %d rows for %d reasons", len(table()), len(whys))
	}
	for _, why := range whys {
		want := &lrp.Refusal{
			Slot: lrp.Slot{Process: "p", Index: 3}, Event: lrp.Claim, From: lrp.Running, Why: why,
			Held: lrp.InstanceKey{Instance: "i", Cell: "c"}, By: lrp.InstanceKey{Instance: "j", Cell: "d"},
		}
		st, ok := ToStatus(fmt.Errorf("apply: %w", want))
		if code := status.Code(st); !ok || code == codes.OK || code == codes.Internal || code == codes.Unknown {
			t.Errorf("%s: status %v", why, st)
		}
		var got *lrp.Refusal
		if err := FromStatus(st); !errors.As(err, &got) {
			t.Errorf("%s: came back as %v", why, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-sent +received):\n%s", why, diff)
		}
	}
}

// The same for tasks.
func TestTaskRefusalsBothWays(t *testing.T) {
	t.Parallel()
	whys := []task.Why{task.NotFound, task.Exists, task.InvalidRequest, task.InvalidStateTransition, task.RunningOnDifferentCell}
	if len(whys) != len(taskTable()) {
		t.Errorf("the table has %d rows for %d reasons", len(taskTable()), len(whys))
	}
	for _, why := range whys {
		want := &task.Refusal{
			GUID: "t", Event: task.Complete, From: task.Running, To: task.Completed, Held: "c", By: "d", Why: why,
		}
		st, ok := ToStatus(fmt.Errorf("apply: %w", want))
		if code := status.Code(st); !ok || code == codes.OK || code == codes.Internal || code == codes.Unknown {
			t.Errorf("%s: status %v", why, st)
		}
		var got *task.Refusal
		if err := FromStatus(st); !errors.As(err, &got) {
			t.Errorf("%s: came back as %v", why, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-sent +received):\n%s", why, diff)
		}
		var other *lrp.Refusal
		if errors.As(FromStatus(st), &other) {
			t.Errorf("%s of a task came back as that of an LRP", why)
		}
	}
}

// What is missing or taken is named, with its type, as google.rpc wants it.
func TestResourcesAreNamed(t *testing.T) {
	t.Parallel()
	slot := lrp.Slot{Process: "p", Index: 3}
	for want, err := range map[string]error{
		"bbs.v1.DesiredLRP p":  &lrp.Refusal{Slot: slot, Event: "desire", Why: lrp.Exists},
		"bbs.v1.ActualLRP p/3": &lrp.Refusal{Slot: slot, Event: lrp.Claim, Why: lrp.NotFound},
		"bbs.v1.Task t":        &task.Refusal{GUID: "t", Event: task.Cancel, Why: task.NotFound},
		"":                     &lrp.Refusal{Slot: slot, Event: lrp.Claim, Why: lrp.CannotBeClaimed},
	} {
		st, _ := ToStatus(err)
		got := ""
		for _, d := range status.Convert(st).Details() {
			if r, ok := d.(*errdetails.ResourceInfo); ok {
				got = r.ResourceType + " " + r.ResourceName
			}
		}
		if got != want {
			t.Errorf("%v names %q, want %q", err, got, want)
		}
	}
}

// Which request is answered and when to try again goes beside the rest, and takes nothing away.
func TestDetailsAddUp(t *testing.T) {
	t.Parallel()
	refused, _ := ToStatus(&task.Refusal{GUID: "t", Event: task.Cancel, Why: task.NotFound})
	var r *task.Refusal
	if err := FromStatus(Request(refused, "req-1")); !errors.As(err, &r) {
		t.Errorf("with a request id it is %v", err)
	}
	err := Request(Unavailable(codes.Unavailable, "no", 2*time.Second), "req-1")
	if d, ok := RetryDelay(err); !ok || d != 2*time.Second {
		t.Errorf("try again after %v, %v; want 2s", d, ok)
	}
	var id string
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RequestInfo); ok {
			id = info.RequestId
		}
	}
	if id != "req-1" {
		t.Errorf("request id %q, want req-1", id)
	}
	if _, ok := RetryDelay(refused); ok {
		t.Error("a refusal says when to try again")
	}
	if plain := errors.New("x"); Request(plain, "req-1") != plain || Request(nil, "req-1") != nil {
		t.Error("errors that are no statuses are changed")
	}
}

func TestInvalidBothWays(t *testing.T) {
	t.Parallel()
	want := &lrp.Invalid{Fields: []lrp.FieldError{
		{Field: "domain", Problem: "is required"},
		{Field: "user", Problem: "is required", Value: "", In: "action.serial_action.actions[2]"},
		{Field: "memory_mb", Problem: "must be 0 or more", Value: "-1"},
	}}
	st, ok := ToStatus(want)
	if !ok || status.Code(st) != codes.InvalidArgument {
		t.Fatalf("status %v", st)
	}
	var got *lrp.Invalid
	if !errors.As(FromStatus(st), &got) {
		t.Fatalf("came back as %v", FromStatus(st))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-sent +received):\n%s", diff)
	}
}

func TestOtherErrorsPass(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("x"), status.Error(codes.NotFound, "no details")} {
		if got := FromStatus(err); got != err {
			t.Errorf("%v came back as %v", err, got)
		}
	}
	if _, ok := ToStatus(errors.New("x")); ok {
		t.Error("an unknown error was taken for one of the domain")
	}
}
