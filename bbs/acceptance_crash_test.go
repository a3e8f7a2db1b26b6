package bbs

import (
	"slices"
	"testing"
	"time"

	"muster/bbs/lrp"
)

// aged makes crashed instances of a process as old as given, lets everything be compared while they are
// no older than most, and returns them. On a machine that is too slow for that it starts over.
func (s *scene) aged(t *testing.T, process string, age, most time.Duration) []lrp.Actual {
	t.Helper()
	for {
		s.exec(t, "update actual_lrps set since = now() - $2 * interval '1 millisecond' where process_guid = $1", process, age.Milliseconds())
		s.pass(t)
		var young bool
		must(t, s.db.QueryRow(t.Context(), "select now() - min(since) < $2 * interval '1 millisecond' from actual_lrps where process_guid = $1",
			process, most.Milliseconds()).Scan(&young))
		if list := s.actuals(t, process); young || !all(len(list), lrp.Crashed)(list) {
			return list
		}
	}
}

// §19 "crash": twice it restarts at once, the third time it waits. A restart is due by the clock and not
// by the interval, and so is that of an instance which was found to be CRASHED by a comparison.
func TestAcceptanceCrash(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Second)
	c, _ := s.newCell(t, "c1", time.Minute)
	must(t, s.client.Desire(t.Context(), app("p", 1)))
	was := s.until(t, "p", "running", one(lrp.Running, 0))[0]
	crash := func(want int32) lrp.Actual {
		t.Helper()
		c.set(func(c *testCell) { // at once, or the cell finds a record without a container and removes it
			delete(c.has, was.Instance)
			must(t, c.calls.Apply(t.Context(), lrp.Event{Name: lrp.Crash, Key: was.Key, By: was.InstanceKey, Reason: "APP: Exited with status 9"}))
		})
		state := lrp.Running
		if want > 2 {
			state = lrp.Crashed
		}
		now := s.until(t, "p", "back", one(state, want))[0]
		if now.Instance == was.Instance || now.Tag.Epoch != was.Tag.Epoch || now.Tag.Index <= was.Tag.Index || now.CrashReason != "APP: Exited with status 9" {
			t.Errorf("after crash %d of %+v it is %+v", want, was, now)
		}
		was = now
		return now
	}
	for n := range int32(3) {
		crash(n + 1)
	}
	if list := s.aged(t, "p", 25*time.Second, 30*time.Second); !one(lrp.Crashed, 3)(list) {
		t.Errorf("after 25 s it is %+v, want it still crashed", list)
	}
	s.exec(t, "update actual_lrps set since = now() - interval '30 seconds' where process_guid = 'p'")
	s.pass(t)
	s.until(t, "p", "running again", one(lrp.Running, 3))

	// An instance that is crashed goes with its process.
	c.set(func(c *testCell) { c.crashes["q"] = true })
	must(t, s.client.Desire(t.Context(), app("q", 1)))
	s.until(t, "q", "crashed", one(lrp.Crashed, 3))
	must(t, s.client.RemoveDesired(t.Context(), "q"))
	if list := s.actuals(t, "q"); len(list) != 0 {
		t.Errorf("the process is removed, and there is %+v", list)
	}
}

// §19 "crash back-off": of both indices, each for itself.
func TestAcceptanceCrashBackOff(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Second)
	s.newCell(t, "c1", time.Minute, func(c *testCell) { c.crashes["p"] = true })
	must(t, s.client.Desire(t.Context(), app("p", 2)))
	crashed := func(counts ...int32) func([]lrp.Actual) bool {
		return func(list []lrp.Actual) bool {
			var got []int32
			for _, a := range list {
				got = append(got, a.CrashCount)
			}
			return all(2, lrp.Crashed)(list) && slices.Equal(got, counts)
		}
	}
	s.until(t, "p", "crashed three times each", crashed(3, 3))
	if list := s.aged(t, "p", 15*time.Second, 30*time.Second); !crashed(3, 3)(list) {
		t.Errorf("after 15 s it is %+v", list)
	}
	s.exec(t, "update actual_lrps set since = now() - interval '30 seconds' where process_guid = 'p' and index = 1")
	s.until(t, "p", "crashed again at index 1", func(list []lrp.Actual) bool {
		s.pass(t)
		return len(list) == 2 && list[1].State == lrp.Crashed && list[1].CrashCount == 4
	})
	s.exec(t, "update actual_lrps set since = now() - interval '30 seconds' where process_guid = 'p' and index = 0")
	s.pass(t)
	s.until(t, "p", "crashed four times each", crashed(4, 4))
	// The fourth wait is twice as long as the third.
	if list := s.aged(t, "p", 50*time.Second, 60*time.Second); !crashed(4, 4)(list) {
		t.Errorf("50 s after the fourth crash it is %+v", list)
	}
}
