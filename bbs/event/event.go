// Package event says what a watcher of the BBS is told: one committed change at a time, in commit
// order. It is a CORE of plain data, apart from bbs/lrp because a change can also be that of a cell,
// and apart from the client because the store that writes the log speaks of the same thing.
package event

import (
	"time"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// Event is one committed change. Exactly one of Desired, Actual, Crash, Cell and Task is set; all are nil
// when a newer server reports something that this program does not know, which it may skip.
type Event struct {
	// Revision is the position in the log: without gaps, and in commit order.
	Revision uint64
	// At is when the change was committed, by the clock of the server.
	At time.Time
	// TraceID is the request id of the call that caused the change; may be empty.
	TraceID string

	Desired *DesiredChange   // a DesiredLRP was created, changed or removed
	Actual  *lrp.Change      // an ActualLRP was created, changed or removed
	Crash   *lrp.CrashReport // an instance crashed; the change of its record is an event of its own
	Cell    *CellChange      // a cell appeared, changed or expired
	Task    *task.Change     // a task was created, changed or removed; only its Summary
}

// DesiredChange is a change of a DesiredLRP, without recipes, since those never change. Before is
// nil when it was created, After is nil when it was removed.
type DesiredChange struct {
	Before, After *lrp.SchedulingInfo
}

// CellChange is a change of a cell's presence. Before is nil when the cell is new, After is nil when
// its presence expired.
type CellChange struct {
	Before, After *cells.Presence
}
