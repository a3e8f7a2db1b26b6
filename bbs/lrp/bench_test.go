package lrp

import "testing"

// BenchmarkApply applies the events of one life: claim, start, the same start again, crash.
func BenchmarkApply(b *testing.B) {
	b.ReportAllocs()
	events := []Event{reportOf(Claim, alice), reportOf(Start, alice), reportOf(Start, alice), reportOf(Crash, alice)}
	for b.Loop() {
		g := Group{Wanted: true, Ordinary: record(Unclaimed, Ordinary, nobody)}
		for _, ev := range events {
			after, _, err := applied(g, ev, testNow)
			if err != nil {
				b.Fatal(err)
			}
			g = after
		}
	}
}
