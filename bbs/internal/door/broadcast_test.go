package door

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/hub"
	"muster/bbs/lrp"
)

func newTestBroadcast() *broadcast {
	return newBroadcast(hub.New(slog.New(slog.NewTextHandler(io.Discard, nil)), time.Minute))
}

// framed is an event whose text is there.
func framed(revision uint64, text string, to kind, cells []lrp.CellID) *frame {
	return &frame{told{to: to, cells: cells}, revision, []byte(text)}
}

func joined(t *testing.T, b *broadcast, p place, silent bool) *stream {
	t.Helper()
	s, err := b.join(p, silent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each stream gets the events of its kind and cell, and only what came after it.
func TestEventsReachTheirStreams(t *testing.T) {
	t.Parallel()
	b := newTestBroadcast()
	everything, a := joined(t, b, place{instances, ""}, false), joined(t, b, place{instances, "a"}, false)
	cell, group := joined(t, b, place{instances, "a"}, true), joined(t, b, place{slots, "a"}, false)
	work, late := joined(t, b, place{tasks, ""}, false), joined(t, b, place{instances, ""}, false)
	late.after = 3
	b.offer([]*frame{
		framed(1, "desired", instances|slots, nil),
		framed(2, "unclaimed", instances, []lrp.CellID{""}),
		framed(3, "on a", instances, []lrp.CellID{"a"}),
		framed(4, "on b", instances, []lrp.CellID{"b"}),
		framed(5, "group of a and a", slots, []lrp.CellID{"a", "a"}),
		framed(6, "group from b to a", slots, []lrp.CellID{"b", "a"}),
		framed(7, "task", tasks, nil),
	})
	for what, tc := range map[string]struct {
		s    *stream
		want []uint64
	}{
		"all": {everything, []uint64{1, 2, 3, 4}}, "a cell's": {a, []uint64{1, 3}}, "a cell's own": {cell, []uint64{3}},
		"groups": {group, []uint64{1, 5, 6}}, "tasks": {work, []uint64{7}}, "a late one": {late, []uint64{4}},
	} {
		list, err := b.take(tc.s)
		var got []uint64
		for _, f := range list {
			got = append(got, f.revision)
		}
		if err != nil || len(got) != len(tc.want) {
			t.Errorf("%s: got %v (%v), want %v", what, got, err, tc.want)
			continue
		}
		for i := range got {
			if got[i] != tc.want[i] {
				t.Errorf("%s: got %v, want %v", what, got, tc.want)
			}
		}
	}
}

// A stream that leaves too much is ended after what it has; the others are not.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		text []byte
		most int
	}{"in number": {[]byte("x"), maxPending}, "in size": {make([]byte, maxPendingBytes/4), 4}} {
		b := newTestBroadcast()
		slow, fast := joined(t, b, place{instances, ""}, false), joined(t, b, place{instances, ""}, false)
		for n := range tc.most + 2 {
			b.offer([]*frame{{told{to: instances}, uint64(n + 1), tc.text}})
			if list, err := b.take(fast); len(list) != 1 || err != nil {
				t.Fatalf("%s: the fast one gets %d events (%v)", what, len(list), err)
			}
		}
		if list, err := b.take(slow); len(list) != tc.most || !errors.Is(err, hub.ErrSlow) {
			t.Errorf("%s: the slow one gets %d events (%v), want %d and its end", what, len(list), err, tc.most)
		}
	}
}

// Streams are counted, bounded, and gone when they left; none opens after the end.
func TestStreamsComeAndGo(t *testing.T) {
	t.Parallel()
	b := newTestBroadcast()
	s := joined(t, b, place{tasks, ""}, false)
	for range maxStreams - 1 {
		joined(t, b, place{instances, ""}, false)
	}
	if _, err := b.join(place{instances, ""}, false); status.Code(err) != codes.Unavailable {
		t.Errorf("one stream more than may be: %v", err)
	}
	b.leave(s)
	b.leave(s)
	if n := b.count(); n != maxStreams-1 {
		t.Errorf("%d streams are open, want %d", n, maxStreams-1)
	}
	if b.idle() {
		t.Error("nobody follows although there are streams")
	}
	s = joined(t, b, place{tasks, ""}, false)
	b.end(hub.ErrClosed, true)
	if _, err := b.take(s); !errors.Is(err, hub.ErrClosed) {
		t.Errorf("at the end a stream gets %v", err)
	}
	if _, err := b.join(place{tasks, ""}, false); !errors.Is(err, hub.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}
