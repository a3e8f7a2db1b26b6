package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/refusal"
	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// What a caller is told of each error, also when it comes wrapped. Written down a second time on
// purpose: clients decide by these codes whether to list again, to resume or to give up.
func TestStatusOfErrors(t *testing.T) {
	t.Parallel()
	s := New(Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	for _, tc := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{store.ErrUnavailable, codes.Unavailable},
		{store.ErrClosed, codes.Unavailable},
		{store.ErrFenced, codes.FailedPrecondition},
		{&store.Unreadable{Table: "tasks", Err: errors.New("x")}, codes.DataLoss},
		{hub.ErrClosed, codes.Unavailable},
		{hub.ErrPruned, codes.OutOfRange},
		{hub.ErrFuture, codes.InvalidArgument},
		{hub.ErrSlow, codes.ResourceExhausted},
		{&lrp.Refusal{Why: lrp.Exists}, codes.AlreadyExists},
		{&task.Refusal{Why: task.NotFound}, codes.NotFound},
		{missing("domain", "name it"), codes.InvalidArgument},
		{context.DeadlineExceeded, codes.Unavailable}, // ours: the caller still waits
		{context.Canceled, codes.Unavailable},
		{status.Error(codes.PermissionDenied, "no"), codes.PermissionDenied},
		{errors.New("a surprise"), codes.Internal},
	} {
		err := tc.err
		if err != nil && status.Code(err) == codes.Unknown {
			err = fmt.Errorf("while at it: %w", err)
		}
		got := s.status(t.Context(), "m", err)
		if status.Code(got) != tc.want {
			t.Errorf("%v becomes %v, want %v", tc.err, got, tc.want)
		}
		ours := tc.want == codes.Unavailable || tc.want == codes.Internal
		if ours && strings.Contains(status.Convert(got).Message(), "while at it") {
			t.Errorf("%v: the caller is told what is for the log: %v", tc.err, got)
		}
		if _, says := refusal.RetryDelay(got); says != (tc.want == codes.Unavailable || tc.want == codes.ResourceExhausted) {
			t.Errorf("%v: says when to try again: %v", tc.err, says)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	if got := status.Code(s.status(ctx, "m", errors.New("interrupted"))); got != codes.DeadlineExceeded {
		t.Errorf("past the deadline of the caller: %v, want %v", got, codes.DeadlineExceeded)
	}
}

// A heartbeat must be good for long enough to be repeated, and not for so long that nobody misses it.
func TestHeartbeatBounds(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for _, ttl := range []time.Duration{-time.Second, 0, minHeartbeatTTL - time.Millisecond, maxHeartbeatTTL + time.Millisecond} {
		_, err := s.Heartbeat(t.Context(), &bbsv1.HeartbeatRequest{Presence: wire.EncodePresence(cells.Presence{Cell: "c"}), TtlMs: ttl.Milliseconds()})
		var inv *lrp.Invalid
		if !errors.As(err, &inv) || inv.Fields[0].Field != "ttl_ms" {
			t.Errorf("good for %v: %v, want an error that names ttl_ms", ttl, err)
		}
	}
}

func TestTraceIDIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxTraceBytes+1)
	for given, want := range map[string]int{"": 0, "abc": 3, long: maxTraceBytes, "a\x00\xffb": 2} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(traceKey, given))
		if got := traceID(ctx); len(got) != want {
			t.Errorf("a request id of %d bytes became one of %d, want %d", len(given), len(got), want)
		}
	}
}
