package converge

import (
	"fmt"
	"testing"

	"muster/bbs/lrp"
)

// BenchmarkQuietPass plans for a world of 100,000 instances that needs nothing.
func BenchmarkQuietPass(b *testing.B) {
	const processes, instances = 25_000, 4
	s := Snapshot{Fresh: []lrp.Domain{"fresh"}, Cells: known()}
	for p := range processes {
		process := lrp.ProcessGUID(fmt.Sprintf("process-%d", p))
		s.Desired = append(s.Desired, desired(process, instances))
		for index := range int32(instances) {
			s.Groups = append(s.Groups, ordinary(process, index, lrp.Running))
		}
	}
	for b.Loop() {
		if steps := Plan(s, now); len(steps) != 0 {
			b.Fatalf("%d steps", len(steps))
		}
	}
}
