package store

import (
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/cells"
)

// A cell that fell silent is not listed, but it is known since when it is lost, until it is heard of
// again.
func TestTombstones(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	beat := func(id lrp.CellID) { must(t, s.Heartbeat(ctx, cells.Presence{Cell: id}, time.Second, Call{})) }
	look := func() cells.Presences {
		p, err := s.Presences(ctx)
		must(t, err)
		return p
	}
	if p := look(); !p.Known || p.AnyPresent() || p.Lost("a", time.Now()) {
		t.Errorf("without any cell: %+v", p)
	}
	beat("a")
	beat("b")
	silence(t, s)
	begin := time.Now()
	beat("b")
	sweep(t, s, time.Hour)
	p := look()
	if !p.Lost("a", time.Now()) || !p.Present("b") {
		t.Fatalf("a is to be lost and b present: %+v", p)
	}
	if at := p.Cells["a"].LostAt; at.Before(begin.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("lost at %v, want about now", at)
	}
	later := p.Cells["a"].LostAt
	sweep(t, s, time.Hour)
	if at := look().Cells["a"].LostAt; at.Sub(later).Abs() > time.Second {
		t.Errorf("another look moved the loss from %v to %v", later, at)
	}
	beat("a")
	if p := look(); !p.Present("a") {
		t.Errorf("a was heard of: %+v", p)
	}
}

// A tombstone is forgotten when it is old and no record names the cell.
func TestForgetCells(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	must(t, s.Desire(ctx, app("p", 1), Call{}))
	must(t, s.Apply(ctx, claim("p", 0, lrp.InstanceKey{Instance: "i", Cell: "named"}), Call{}))
	for _, id := range []lrp.CellID{"named", "old", "young", "present"} {
		must(t, s.Heartbeat(ctx, cells.Presence{Cell: id}, time.Minute, Call{}))
	}
	_, err := s.Pools.Read.Exec(ctx, `update cells set last_seen = now() - interval '3 days', lost_at = now() - $1::bigint * interval '1 millisecond'
		where cell_id <> 'present'`, (forgetCellsAfter + time.Second).Milliseconds())
	must(t, err)
	_, err = s.Pools.Read.Exec(ctx, "update cells set lost_at = now() - interval '1 minute' where cell_id = 'young'")
	must(t, err)
	sweep(t, s, 0)
	p, err := s.Presences(ctx)
	must(t, err)
	for id, want := range map[lrp.CellID]bool{"named": true, "old": false, "young": true, "present": true} {
		if _, known := p.Cells[id]; known != want {
			t.Errorf("%s is known: %v, want %v", id, known, want)
		}
	}
	p.Since = time.Now().Add(-cells.Settle) // which is for the caller to say
	if !p.Lost("old", time.Now()) || !p.Lost("named", time.Now()) {
		t.Error("a cell is lost, whether it is forgotten or not")
	}
}
