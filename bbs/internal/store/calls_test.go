package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/pgtest"
)

// wantField fails unless an error is about one field.
func wantField(t *testing.T, what, field string, err error) {
	t.Helper()
	var inv *lrp.Invalid
	if !errors.As(err, &inv) || len(inv.Fields) != 1 || inv.Fields[0].Field != field {
		t.Errorf("%s: %v, want an invalid %s", what, err, field)
	}
}

// wantRevision fails unless the log ends there.
func wantRevision(t *testing.T, s *Store, what string, want uint64) {
	t.Helper()
	if got, err := s.Revision(t.Context()); err != nil || got != want {
		t.Errorf("%s: the log ends at %d (%v), want %d", what, got, err, want)
	}
}

// A creating call that is repeated with its id has no second effect and gets the same answer, also
// from another replica and after what it made is gone again. For another request the id is refused.
func TestRequestIDs(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	s, other := open(t, url, Options{}), open(t, url, Options{})
	ctx := t.Context()
	first := Call{RequestID: "r1", RequestDigest: [32]byte{1}}
	must(t, s.Desire(ctx, app("p", 1), first))
	must(t, other.Desire(ctx, app("p", 1), first))
	wantField(t, "another request", "request_id", other.Desire(ctx, app("q", 1), Call{RequestID: "r1", RequestDigest: [32]byte{2}}))
	wantField(t, "another kind of request", "request_id", s.DesireTask(ctx, job("t"), Call{RequestID: "r1", RequestDigest: [32]byte{3}}))
	must(t, s.RemoveDesired(ctx, "p", first)) // not a creating call: the id has no meaning
	must(t, s.Desire(ctx, app("p", 1), first))
	wantRevision(t, s, "repeated calls", 4)

	must(t, s.DesireTask(ctx, job("t"), Call{RequestID: "r2"}))
	must(t, other.DesireTask(ctx, job("t"), Call{RequestID: "r2"}))
	var refusal *task.Refusal
	for range 2 { // a refusal is not remembered: it is decided again
		if err := s.DesireTask(ctx, job("t"), Call{RequestID: "r3"}); !errors.As(err, &refusal) {
			t.Errorf("a task that exists: %v, want a refusal", err)
		}
	}
	wantRevision(t, s, "repeated tasks", 5)
	for _, id := range []string{strings.Repeat("x", MaxRequestIDBytes+1), "a\x00b", "\xff"} {
		wantField(t, "a bad id", "request_id", s.Desire(ctx, app("q", 1), Call{RequestID: id}))
	}
	must(t, s.Desire(ctx, app("q", 1), Call{RequestID: strings.Repeat("x", MaxRequestIDBytes)}))
	checkReplay(t, s)
}

// A bulk call that is repeated does what is left of it.
func TestRequestIDOfABulkCall(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	must(t, s.Desire(ctx, app("p1", 1), Call{}))
	c := Call{RequestID: "r", RequestDigest: [32]byte{1}}
	all := []lrp.Desired{app("p0", 1), app("p1", 1), app("p2", 1)}
	for range 2 {
		errs := s.DesireAll(ctx, all, c)
		var refusal *lrp.Refusal
		if errs[0] != nil || errs[2] != nil || !errors.As(errs[1], &refusal) {
			t.Errorf("answers %v, want a refusal of the second one only", errs)
		}
		wantRevision(t, s, "bulk", 6)
	}
	must(t, s.RemoveDesired(ctx, "p1", Call{}))
	for _, err := range s.DesireAll(ctx, all, c) {
		must(t, err)
	}
	wantRevision(t, s, "what was left", 10)
}

// Many repeat a call at once, on two replicas: it has one effect and all are told so.
func TestRequestIDRace(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	replicas := []*Store{open(t, url, Options{}), open(t, url, Options{})}
	var wg sync.WaitGroup
	for n := range 32 {
		wg.Go(func() {
			if err := replicas[n%2].Desire(t.Context(), app(fmt.Sprint("p", n/16), 1), Call{RequestID: fmt.Sprint("r", n/16)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantRevision(t, replicas[0], "32 calls of 2 requests", 4)
}

// Ids are forgotten after an hour, and not before.
func TestRequestIDsAreForgotten(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	must(t, s.Desire(ctx, app("old", 0), Call{RequestID: "old"}))
	must(t, s.Desire(ctx, app("young", 0), Call{RequestID: "young"}))
	for id, age := range map[string]time.Duration{"old": RequestsKept + time.Second, "young": RequestsKept - time.Minute} {
		if _, err := s.Pools.Read.Exec(ctx, "update requests set at = now() - $1::interval where request_id = $2", age, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Prune(ctx, time.Hour, math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	must(t, s.Desire(ctx, app("young", 0), Call{RequestID: "young"}))
	var refusal *lrp.Refusal
	if err := s.Desire(ctx, app("old", 0), Call{RequestID: "old"}); !errors.As(err, &refusal) {
		t.Errorf("after it was forgotten: %v, want a refusal, because the process exists", err)
	}
}

// A call that only asks gets the answer of one that does, and has no effect.
func TestValidateOnly(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	by := lrp.InstanceKey{Instance: "i", Cell: "c"}
	must(t, s.Desire(ctx, app("p", 2), Call{}))
	must(t, s.Apply(ctx, claim("p", 0, by), Call{}))
	must(t, s.DesireTask(ctx, job("t"), Call{}))
	before, err := s.Revision(ctx)
	must(t, err)
	one := int32(1)
	for _, ask := range []struct {
		name    string
		refused bool
		call    func(Call) error
	}{
		{"desire", false, func(c Call) error { return s.Desire(ctx, app("new", 3), c) }},
		{"desire twice", true, func(c Call) error { return s.Desire(ctx, app("p", 3), c) }},
		{"desire all", false, func(c Call) error {
			return errors.Join(s.DesireAll(ctx, []lrp.Desired{app("a", 1), app("b", 1)}, c)...)
		}},
		{"update", false, func(c Call) error { return s.Update(ctx, "p", lrp.Update{Instances: &one}, c) }},
		{"update of nothing", true, func(c Call) error { return s.Update(ctx, "absent", lrp.Update{Instances: &one}, c) }},
		{"remove", false, func(c Call) error { return s.RemoveDesired(ctx, "p", c) }},
		{"start", false, func(c Call) error { return s.Apply(ctx, start("p", 0, by), c) }},
		{"claim of another", true, func(c Call) error { return s.Apply(ctx, claim("p", 0, lrp.InstanceKey{Instance: "j", Cell: "d"}), c) }},
		{"removal", false, func(c Call) error { return s.Apply(ctx, lrp.Event{Name: lrp.Remove, Key: slotKey("p", 0), By: by}, c) }},
		{"evacuation", false, func(c Call) error {
			return s.Apply(ctx, lrp.Event{Name: lrp.EvacuateClaimed, Key: slotKey("p", 0), By: by}, c)
		}},
		{"task", false, func(c Call) error { return s.DesireTask(ctx, job("new"), c) }},
		{"task twice", true, func(c Call) error { return s.DesireTask(ctx, job("t"), c) }},
		{"start of a task", false, func(c Call) error {
			should, err := s.ApplyTask(ctx, task.Event{Name: task.Start, GUID: "t", Cell: "c"}, c)
			if should {
				t.Error("a cell that only asked was told to start a task")
			}
			return err
		}},
		{"deletion of a task", true, func(c Call) error {
			_, err := s.ApplyTask(ctx, task.Event{Name: task.Delete, GUID: "t"}, c)
			return err
		}},
		{"with a request id", false, func(c Call) error { c.RequestID = "r"; return s.Desire(ctx, app("kept", 1), c) }},
		{"with a fence", false, func(c Call) error { c.Fence = Fence{"l", 7}; return s.Apply(ctx, start("p", 0, by), c) }},
	} {
		if err := ask.call(Call{ValidateOnly: true}); (err != nil) != ask.refused {
			t.Errorf("%s: %v, want a refusal: %v", ask.name, err, ask.refused)
		}
		wantRevision(t, s, ask.name, before)
	}
	if token, err := s.Token(ctx, "l"); err != nil || token != 0 {
		t.Errorf("a call that only asked left token %d (%v)", token, err)
	}
	must(t, s.Desire(ctx, app("kept", 1), Call{RequestID: "r", RequestDigest: [32]byte{9}})) // the id was not remembered
	// Nor is it within a batch.
	var requests []*request
	for _, asks := range []bool{true, false} {
		requests = append(requests, &request{
			ctx: ctx, op: &desireOp{desired: app("batch", 1), epoch: newEpoch}, call: &Call{ValidateOnly: asks}, id: requestID{id: "b"}, answer: make(chan error, 1),
		})
	}
	s.commit(ctx, requests, func() {})
	for _, r := range requests {
		must(t, <-r.answer)
	}
	if list, _, err := s.Desired(ctx, DesiredFilter{Processes: []lrp.ProcessGUID{"batch"}}, Page{}); err != nil || len(list) != 1 {
		t.Errorf("a call after one that only asked left %v (%v), want a process", list, err)
	}
	checkReplay(t, s)
}

// The token of a lease only grows, is kept with what was written under it, and an older one is refused
// by every replica, one that does not know of it included.
func TestFence(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	s, other := open(t, url, Options{}), open(t, url, Options{})
	ctx := t.Context()
	must(t, s.Desire(ctx, app("p", 8), Call{}))
	retire := func(s *Store, index int32, f Fence) error {
		return s.Apply(ctx, lrp.Event{Name: lrp.Retire, Key: slotKey("p", index)}, Call{Fence: f})
	}
	wantToken := func(lease string, want uint64) {
		t.Helper()
		if got, err := other.Token(ctx, lease); err != nil || got != want {
			t.Errorf("lease %s has token %d (%v), want %d", lease, got, err, want)
		}
	}
	wantToken("l", 0)
	must(t, retire(s, 0, Fence{"l", 5}))
	wantToken("l", 5)
	must(t, retire(s, 1, Fence{"l", 5}))
	must(t, retire(other, 2, Fence{"l", 6}))
	before, err := s.Revision(ctx)
	must(t, err)
	for _, f := range []Fence{{"l", 5}, {"l", 0}} {
		if err := retire(s, 3, f); !errors.Is(err, ErrFenced) {
			t.Errorf("token %d after 6: %v, want %v", f.Token, err, ErrFenced)
		}
	}
	wantRevision(t, s, "refused calls", before)
	must(t, retire(s, 3, Fence{"m", 1})) // another lease
	must(t, retire(s, 4, Fence{}))       // no lease
	// A call that changes nothing, or is refused by the rules, was made under its token all the same.
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Restart, Key: slotKey("p", 5)}, Call{Fence: Fence{"l", 8}}))
	wantToken("l", 8)
	// A replica that only read a token knows it as well: its next lock is a shared one.
	must(t, other.Apply(ctx, lrp.Event{Name: lrp.Restart, Key: slotKey("p", 5)}, Call{Fence: Fence{"l", 8}}))
	if got := other.fences.tokens["l"]; got != 8 {
		t.Errorf("the other replica remembers token %d, want 8", got)
	}
	// One batch: what comes after the newer token is refused, and what came before it is not.
	var requests []*request
	for i, token := range []uint64{8, 9, 8, 9} {
		requests = append(requests, &request{
			ctx: ctx, op: &eventOp{ev: lrp.Event{Name: lrp.Retire, Key: slotKey("p", int32(i+4)), Epoch: newEpoch()}},
			call: &Call{Fence: Fence{"l", token}}, answer: make(chan error, 1),
		})
	}
	s.commit(ctx, requests, func() {})
	for i, r := range requests {
		if err := <-r.answer; errors.Is(err, ErrFenced) != (i == 2) {
			t.Errorf("call %d of the batch: %v", i, err)
		}
	}
	wantToken("l", 9)
	if err := s.Apply(ctx, claim("p", 0, lrp.InstanceKey{Instance: "i", Cell: "c"}), Call{Fence: Fence{"l", math.MaxInt64 + 1}}); err == nil {
		t.Error("a token that no column holds was accepted")
	}
	checkReplay(t, s)
}

// A database that lost the tokens (it was restored) learns them again, from a replica that remembers.
func TestFenceAfterRestore(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	must(t, s.Desire(ctx, app("p", 2), Call{}))
	for index := range int32(2) {
		o := &countedOp{op: &eventOp{ev: lrp.Event{Name: lrp.Retire, Key: slotKey("p", index), Epoch: "e"}}}
		must(t, s.do(ctx, o, Call{Fence: Fence{"l", 5}}))
		if want := int(index) + 1; o.prepared != want { // the second time, the shared lock turns out not to do
			t.Errorf("it took %d attempts to record the token, want %d", o.prepared, want)
		}
		if got, err := s.Token(ctx, "l"); err != nil || got != 5 {
			t.Errorf("the token is %d (%v), want 5", got, err)
		}
		if _, err := s.Pools.Read.Exec(ctx, "delete from fences"); err != nil {
			t.Fatal(err)
		}
	}
}

// Two leaders write at once, each through its own replica. One is paused in the middle of a batch and
// wakes up late: what it had begun is written, and from the first call of the new leader on, nothing of
// the old one has an effect.
func TestLeaderWakesUpLate(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	old, young := open(t, url, Options{}), open(t, url, Options{})
	ctx := t.Context()
	const slots = chunkLimit + 100 // two chunks, one after the other
	must(t, old.Desire(ctx, app("p", slots), Call{}))
	must(t, old.Desire(ctx, app("q", 1), Call{}))
	paused, wake := make(chan struct{}), make(chan struct{})
	items := make([]item, slots)
	for i := range items {
		var o op = &eventOp{ev: lrp.Event{Name: lrp.Fail, Key: slotKey("p", int32(i)), Reason: "old", Epoch: newEpoch()}}
		if i == 1 {
			o = &hookedOp{op: o, decided: func() { close(paused); <-wake }}
		}
		items[i] = item{op: o, weight: 1} // of one subject: a lane that only one writer is at
	}
	done := make(chan []error, 1)
	go func() { done <- old.bulk(ctx, items, Call{TraceID: "old", Fence: Fence{"l", 1}}, false) }()
	<-paused
	// The new one takes over. It waits for the batch that is being decided: nobody else waits.
	took := make(chan error, 1)
	go func() {
		took <- young.Apply(ctx, lrp.Event{Name: lrp.Fail, Key: slotKey("q", 0), Reason: "new"}, Call{TraceID: "new", Fence: Fence{"l", 2}})
	}()
	waitForLocks(t, young, 1)
	close(wake)
	must(t, <-took)
	for i, err := range <-done {
		if begun := i < chunkLimit; begun && err != nil || !begun && !errors.Is(err, ErrFenced) {
			t.Fatalf("call %d of the old leader: %v", i, err)
		}
	}
	over := false
	for _, ev := range history(t, old) {
		over = over || ev.TraceID == "new"
		if over && ev.TraceID == "old" {
			t.Fatalf("event %d of the old leader follows one of the new leader", ev.Revision)
		}
	}
	checkReplay(t, old)
}

// waitForLocks returns when so many wait for an advisory lock.
func waitForLocks(t *testing.T, s *Store, want int) {
	t.Helper()
	for n := 0; n < want; {
		err := s.Pools.Read.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory' and not granted "+
			"and database = (select oid from pg_database where datname = current_database())").Scan(&n)
		must(t, err)
	}
}

// While one leader writes, the next one takes over again and again: the log never goes back to an
// older token.
func TestLeadersInTurn(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	replicas := []*Store{open(t, url, Options{}), open(t, url, Options{})}
	must(t, replicas[0].Desire(t.Context(), app("p", 8), Call{}))
	var newest atomic.Uint64
	newest.Store(1)
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for i := range 40 {
				token := newest.Load()
				if n < 2 && i%8 == 0 {
					token = newest.Add(1)
				}
				ev := lrp.Event{Name: lrp.Fail, Key: slotKey("p", int32(n%8)), Reason: fmt.Sprintf("%d of %d", i, n)}
				err := replicas[n%2].Apply(context.Background(), ev, Call{TraceID: fmt.Sprint(token), Fence: Fence{"l", token}})
				if err != nil && !errors.Is(err, ErrFenced) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	last := 0
	for _, ev := range history(t, replicas[0]) {
		if ev.TraceID == "" {
			continue
		}
		var token int
		if _, err := fmt.Sscan(ev.TraceID, &token); err != nil || token < last {
			t.Fatalf("event %d was made under token %q, after one under %d", ev.Revision, ev.TraceID, last)
		}
		last = token
	}
	checkReplay(t, replicas[0])
}
