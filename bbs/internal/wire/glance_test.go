package wire

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// A glance at a change tells what the change itself tells, or nothing.
func TestGlance(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := lrp.Change{Before: rapid.Ptr(spoilt(), true).Draw(t, "before"), After: rapid.Ptr(spoilt(), true).Draw(t, "after")}
		for _, a := range []*lrp.Actual{c.Before, c.After} {
			if a != nil && a.State == "" {
				a.State = lrp.Claimed
			}
		}
		plain, err := AppendChange(nil, event.Event{Actual: &c})
		if err != nil {
			return // not UTF-8
		}
		want := Glance{Actual: true}
		if a := c.Before; a != nil {
			want.Before = Look{a.State, a.Presence, a.Retiring}
		}
		if a := c.After; a != nil {
			want.After = Look{a.State, a.Presence, a.Retiring}
		}
		if got, ok := GlanceAt(plain); !ok || got != want {
			t.Errorf("%+v (%v), want %+v", got, ok, want)
		}
		cut := plain[:rapid.IntRange(0, len(plain)-1).Draw(t, "bytes")]
		if got, ok := GlanceAt(cut); ok {
			t.Errorf("the first %d of %d bytes look like %+v, want nothing", len(cut), len(plain), got)
		}
	})
	for name, tc := range map[string]struct {
		ev event.Event
		ok bool
	}{
		"a DesiredLRP": {event.Event{Desired: &event.DesiredChange{After: &lrp.SchedulingInfo{Process: "p"}}}, true},
		"a cell":       {event.Event{Cell: &event.CellChange{After: &cells.Presence{Cell: "c"}}}, false},
		"nothing":      {event.Event{}, false},
	} {
		plain, err := AppendChange(nil, tc.ev)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := GlanceAt(plain); ok != tc.ok || got != (Glance{}) {
			t.Errorf("%s: %+v, %v, want %v", name, got, ok, tc.ok)
		}
	}
}

// What a glance does not understand is left to the decoder: a record in two parts, and a second change.
func TestGlanceAtUnusualBytes(t *testing.T) {
	t.Parallel()
	encode := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	change := encode(&bbsv1.Event{Change: &bbsv1.Event_ActualLrp{ActualLrp: &bbsv1.ActualLRPChange{After: &bbsv1.ActualLRP{State: "RUNNING"}}}})
	after := encode(&bbsv1.ActualLRPChange{After: &bbsv1.ActualLRP{State: "RUNNING"}})
	twice := append([]byte{5<<3 | 2, byte(2 * len(after))}, append(after, after...)...)
	for name, b := range map[string][]byte{
		"two changes": append(change[:len(change):len(change)], change...), "a record in two parts": twice, "a number": {5 << 3, 1},
		"a revision": encode(&bbsv1.Event{Revision: 7}),
	} {
		if g, ok := GlanceAt(b); ok {
			t.Errorf("%s looks like %+v, want nothing", name, g)
		}
	}
}
