package wire

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster/bbs/event"
	"muster/bbs/lrp"
)

// What was folded and unfolded is what it was, byte for byte; whatever the bytes are.
func TestFold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := lrp.Change{Before: rapid.Ptr(spoilt(), true).Draw(t, "before"), After: rapid.Ptr(spoilt(), true).Draw(t, "after")}
		if c.Before != nil && c.After != nil {
			if rapid.Bool().Draw(t, "same address") {
				c.Before.NetInfo = c.After.NetInfo
			}
			if rapid.Bool().Draw(t, "same tags") {
				c.After.MetricTags = maps.Clone(c.After.MetricTags)
				if c.After.MetricTags == nil {
					c.After.MetricTags = map[string]string{}
				}
				c.After.MetricTags["long"] = strings.Repeat("x", worthFolding)
				c.Before.MetricTags, c.Before.InternalRoutes = c.After.MetricTags, c.After.InternalRoutes
			}
		}
		plain, err := AppendChange(nil, event.Event{Actual: &c})
		if err != nil {
			return // not UTF-8
		}
		folded := Fold(plain)
		if got := Unfold(folded); !bytes.Equal(got, plain) {
			t.Errorf("%x was folded to %x and unfolded to %x", plain, folded, got)
		}
		if len(folded) > len(plain) {
			t.Errorf("%d bytes became %d", len(plain), len(folded))
		}
		cut := folded[:rapid.IntRange(0, len(folded)).Draw(t, "bytes")]
		Unfold(Fold(cut)) // which must not panic
	})
}

// A change that leaves what was reported as it was says it once, and one that replaces it says both.
func TestFoldedSize(t *testing.T) {
	t.Parallel()
	tags := map[string]string{"app_id": strings.Repeat("a", 500)}
	net := lrp.NetInfo{Address: strings.Repeat("1", 100)}
	before := lrp.Actual{State: lrp.Running, MetricTags: tags, NetInfo: net}
	for name, tc := range map[string]struct {
		change func(a *lrp.Actual)
		saved  int
	}{
		"nothing of it":  {func(a *lrp.Actual) { a.Presence = lrp.Suspect }, 600},
		"the address":    {func(a *lrp.Actual) { a.NetInfo.Address = strings.Repeat("2", 100) }, 500},
		"the tags":       {func(a *lrp.Actual) { a.MetricTags = map[string]string{"app_id": strings.Repeat("b", 500)} }, 100},
		"everything":     {func(a *lrp.Actual) { *a = lrp.Actual{State: lrp.Unclaimed, PlacementError: strings.Repeat("e", 500)} }, 0},
		"one that is in": {func(a *lrp.Actual) { a.InternalRoutes = []string{"a.apps.internal"} }, 100},
	} {
		after := before
		tc.change(&after)
		plain, err := AppendChange(nil, event.Event{Actual: &lrp.Change{Before: &before, After: &after}})
		if err != nil {
			t.Fatal(err)
		}
		saved := len(plain) - len(Fold(plain))
		if saved < tc.saved || saved > tc.saved+20 {
			t.Errorf("a change of %s is %d bytes shorter folded, want about %d", name, saved, tc.saved)
		}
	}
}
