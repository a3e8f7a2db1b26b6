package hub

import (
	"errors"
	"io"
	"log/slog"
	"testing"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// records makes entries of the log, all of one cell.
func records(from, to uint64, cell lrp.CellID) []store.Record {
	var all []store.Record
	for r := from; r <= to; r++ {
		all = append(all, store.Record{Revision: r, CellAfter: cell, Message: &bbsv1.Event{Revision: r}})
	}
	return all
}

// started returns a hub at the beginning of a log.
func started() *Hub {
	h := New(slog.New(slog.NewTextHandler(io.Discard, nil)), 0)
	h.ring, h.started = newRing(0, ringSize), true
	return h
}

// A watch that takes nothing is cut off; one of another cell does not notice, and the commit does
// not wait for either.
func TestSlowWatchIsCut(t *testing.T) {
	t.Parallel()
	h := started()
	slow, err := h.Watch(t.Context(), 0, Filter{Cell: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.Watch(t.Context(), 0, Filter{Cell: "c2"})
	if err != nil {
		t.Fatal(err)
	}
	h.Publish(records(1, pendingLimit+1, "c1"))
	h.Publish(records(pendingLimit+2, pendingLimit+2, "c2"))
	if _, _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("the slow watch got %v, want %v", err, ErrSlow)
	}
	got, revision, err := other.Next(t.Context())
	if err != nil || len(got) != 1 || revision != pendingLimit+2 {
		t.Errorf("the other watch got %d entries up to %d (%v), want 1 up to %d", len(got), revision, err, pendingLimit+2)
	}
}

// A watch that resumes from what the ring still holds gets each entry once, in order.
func TestResumeFromRing(t *testing.T) {
	t.Parallel()
	h := started()
	h.Publish(records(1, 10, "c1"))
	w, err := h.Watch(t.Context(), 4, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	h.Publish(records(8, 12, "c1")) // partly known
	next := uint64(5)
	for next <= 12 {
		got, _, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got {
			if r.Revision != next {
				t.Fatalf("revision %d, want %d", r.Revision, next)
			}
			next++
		}
	}
}
