package cells

import (
	"time"

	"muster/bbs/lrp"
)

// Settle is how long a cell that nobody has a record of has to be heard of, before it counts as lost: some
// times what the time to live of a cell usually is.
const Settle = 10 * time.Second

// Presences is what is known of which cells are there, at one moment. Not to know is a value of its
// own: the zero Presences knows nothing, so no cell is lost and none is gone.
//
// A cell that missed its heartbeats is lost: it may be back in a moment, so only what is cheap to
// take back may follow from it (its instances become suspect). A cell that stayed lost for a grace
// time is gone, and what was on it has ended.
type Presences struct {
	// Known is false when nobody who knows the cells answered; then the other members mean nothing.
	Known bool
	// Since is how long Cells has been complete: a cell that is not among them is missed since then.
	// Zero: nobody can say, so such a cell is neither lost nor gone.
	Since time.Time
	// Cells are the cells that ever announced themselves and were not forgotten since.
	Cells map[lrp.CellID]Sight
}

// Sight is what is known of one cell. The zero value is a cell that is present.
type Sight struct {
	LostAt time.Time // when it was found to be silent; zero: it is present
	// Doubted means that a second witness still sees the cell, or does not answer. A doubted cell is
	// lost, but never gone.
	Doubted bool
}

// Present tells whether the cell is known to be there.
func (p Presences) Present(cell lrp.CellID) bool {
	sight, listed := p.Cells[cell]
	return p.Known && listed && sight.LostAt.IsZero()
}

// AnyPresent tells whether any cell is known to be there. If there is none, then what is wrong is more
// likely our view than every cell: a wiped or stopped presence store looks the same.
func (p Presences) AnyPresent() bool {
	for _, sight := range p.Cells {
		if sight.LostAt.IsZero() {
			return p.Known
		}
	}
	return false
}

// LostAt returns since when the cell is lost, which may be in the future. A cell that nobody has a record
// of is lost only while others are present, since without any it is the records that are lost; and only
// after Settle, since where all records were lost, one cell is the first to be heard of again.
func (p Presences) LostAt(cell lrp.CellID) (time.Time, bool) {
	sight, listed := p.Cells[cell]
	switch {
	case !p.Known:
		return time.Time{}, false
	case listed:
		return sight.LostAt, !sight.LostAt.IsZero()
	}
	return p.Since.Add(Settle), !p.Since.IsZero() && p.AnyPresent()
}

// Lost tells whether the cell is known not to be there.
func (p Presences) Lost(cell lrp.CellID, now time.Time) bool {
	at, ok := p.LostAt(cell)
	return ok && !now.Before(at)
}

// GoneAt returns when a lost cell has been lost for as long as the grace time, which may have passed.
// It is false for a cell that is not lost or whose loss is doubted, and while no cell is present.
func (p Presences) GoneAt(cell lrp.CellID, grace time.Duration) (time.Time, bool) {
	sight, listed := p.Cells[cell]
	since := sight.LostAt
	if !listed {
		since = p.Since
	}
	if since.IsZero() || sight.Doubted || !p.AnyPresent() {
		return time.Time{}, false
	}
	return since.Add(grace), true
}

// Gone tells whether the cell has been lost for so long that what was on it counts as ended.
func (p Presences) Gone(cell lrp.CellID, now time.Time, grace time.Duration) bool {
	at, lost := p.GoneAt(cell, grace)
	return lost && !now.Before(at)
}
