package auctioneer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checklist is the conformance list of the auction's reference (§20, and the unit scenarios of §16) as far as it is
// the daemon's; the rest is that of the core. Where Muster differs on purpose, docs/differences.md says how.
var checklist = map[string][]string{
	"1 there are no requests that could be malformed or lost: what waits is listed and watched": {"TestLateHelpers", "TestRestartInTheMiddle"},
	"2, U20 what the BBS has now counts, once":                                                  {"TestOldChangesAreIgnored", "TestPlacesOnceAndSpreads"},
	"9, U15 one order for each cell; what it refuses is placed elsewhere, or fails":             {"TestCellThatRefuses", "TestRefusedWork", "TestLongOrdersAreParted"},
	"9, U16 a call of unknown fate is not repeated":                                             {"TestUnknownFate", "TestCellThatAcceptsAndDies", "TestTwoAuctioneersWithoutALease"},
	"10 failures are reported, with a text, and hold nothing up":                                {"TestPlacementErrors", "TestExplanations", "TestPlacementErrorsOfTasks", "TestRejectedTasks", "TestHopelessWorkHoldsUpNobody"},
	"11, U21 cells that do not answer, or answer for others, take no part":                      {"TestDeadCellDelaysNobody", "TestStateOfAnotherCell", "TestStolenCellIdentity"},
	"12 only the holder of the lease orders":                                                    {"TestOnlyTheHolderOfTheLeaseOrders"},
	"U22 a state without an id is that of the cell that was asked":                              {"TestStateWithoutAnID"},
	"U27 a BBS that is away for a while":                                                        {"TestMainJob"},
	"U28 what arrives while states are awaited is in the first auction":                         {"TestFirstAuctionWaitsForTheCells", "TestFirstAuctionWaitsWhileCellsAnswer"},
}

// TestChecklist looks that each line names tests that are there.
func TestChecklist(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, dir := range []string{".", "backlog", "../integration/world"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		must(t, err)
		for _, f := range files {
			text, err := os.ReadFile(f)
			must(t, err)
			all.Write(text)
		}
	}
	for line, tests := range checklist {
		for _, name := range tests {
			if !strings.Contains(all.String(), "func "+name+"(t *testing.T)") {
				t.Errorf("%s: there is no %s", line, name)
			}
		}
	}
}
