package refusal

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
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
