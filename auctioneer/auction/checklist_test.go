package auction

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checklist is the conformance list of the reference as far as it is the core's. What is not here is about requests,
// queues, leases, calls to cells and reports, and belongs to the daemon: lines 1, 2, 9, 10, 12, and of 11 the dropping of
// cells that do not answer or answer for others. The same holds for the unit scenarios U15 and U16 (calls to cells),
// U20 (the queue), U21 and U22 (states of cells), U27 and U28 (the loop).
var checklist = map[string][]string{
	"3 order and interleaving":                {"TestScenarios", "TestSimulationLowMemory", "TestAgreesWithTheRule"},
	"4 start limit":                           {"TestScenarios", "TestAgreesWithTheRule"},
	"5 zones before the filter, pooled":       {"TestZones", "TestSimulationZones", "TestAgreesWithTheRule"},
	"6 score":                                 {"TestWorkedScores", "TestScenarios", "TestAgreesWithTheRule"},
	"7 tags, rootfs":                          {"TestTagAlgebra", "TestRootFSMatch", "TestScenarios"},
	"8 reasons":                               {"TestReasons", "TestExplanations", "TestAgreesWithTheRule"},
	"11 evacuating cells, no cells":           {"TestReasons", "TestExplanations"},
	"13 simulations S, B, Y, L, I, A, W, P":   {"TestSimulationSmallCold", "TestSimulationBinPack", "TestSimulationLargeCold", "TestSimulationImbalance", "TestSimulationZones", "TestSimulationScaleUp", "TestSimulationLowMemory"},
	"13 units U1 to U14, U17 to U19, U23-U26": {"TestScenarios", "TestWorkedScores", "TestReasons"},
}

// TestChecklist looks that each line names tests that are there.
func TestChecklist(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for line, tests := range checklist {
		for _, name := range tests {
			if !strings.Contains(all.String(), "func "+name+"(t *testing.T)") {
				t.Errorf("%s: there is no %s", line, name)
			}
		}
	}
}
