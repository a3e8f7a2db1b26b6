package main

import "testing"

// The headroom is bounded in both ways, and so is the share.
func TestPercent(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{
		0: gcPercent, 1: gcPercent, gcHeadroom / 4: gcPercent, gcHeadroom / 2: 200, gcHeadroom: 100, 2 * gcHeadroom: 50, 100 * gcHeadroom: minPercent,
	} {
		if got := percent(live); got != want {
			t.Errorf("while %d bytes are in use: %d %%, want %d", live, got, want)
		}
	}
}
