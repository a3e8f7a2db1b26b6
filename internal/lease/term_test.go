package lease

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A process that was stopped may be asked before its timers have run.
func TestErrDoesNotWaitForATimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		work := newTerm(t.Context(), time.Now().Add(time.Second))
		work.timer.Stop()
		child, cancel := context.WithCancel(work)
		defer cancel()
		time.Sleep(time.Second - 1)
		if err := work.Err(); err != nil {
			t.Error(err)
		}
		time.Sleep(1)
		if work.Err() == nil || context.Cause(work) != errExpired {
			t.Errorf("%v, because of %v", work.Err(), context.Cause(work))
		}
		<-child.Done()
	})
}

// What was lost stays lost, and a renewal that is older than its own TTL is none.
func TestExtend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		work := newTerm(t.Context(), time.Now().Add(time.Second))
		if !work.extend(time.Now().Add(2 * time.Second)) {
			t.Error("not extended")
		}
		if work.extend(time.Now()) {
			t.Error("extended to a time that has passed")
		}
		time.Sleep(2*time.Second - 1)
		if work.Err() != nil {
			t.Error("over too early")
		}
		<-work.Done()
		if work.extend(time.Now().Add(time.Hour)) {
			t.Error("extended after its end")
		}
	})
}

// The wall clock goes on while the machine sleeps; the monotonic one cannot be set back.
func TestPassedByEitherClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	if passed(now.Add(time.Minute), now) || !passed(now, now) {
		t.Error("the same clock")
	}
	if slept := now.Round(0).Add(time.Hour); !passed(now.Add(time.Minute), slept) {
		t.Error("a deadline survived a sleep")
	}
}
