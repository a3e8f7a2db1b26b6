package lrp

// Explanation says in detail why an instance could not be placed: what the auctioneer found on the cells.
// It comes with the placement error and goes with it. Explanations can be compared with ==.
type Explanation struct {
	Cells int64 // that take work
	Away  int64 // that take none: they are evacuating or not healthy

	// Each cell that takes work is counted under the first of these constraints that it fails.
	RootFS, Drivers, Tags int64
	// A cell that fits is counted under every resource it lacks.
	Memory, Disk, Containers int64
	// Refused counts the cells that fit and have room, but refused the work.
	Refused int64

	// Starting and MaxStarting are set when as many containers are starting on all cells as may.
	Starting, MaxStarting int64

	// Closest is the cell that fits and misses least; zero when that is not what is wrong.
	Closest Shortfall
	// Remedy is the smallest change that would place the instance, for people.
	Remedy string
}

// Shortfall says what a cell lacks.
type Shortfall struct {
	Cell                         CellID
	Zone                         string
	MemoryMB, DiskMB, Containers int64
}

// explained returns the explanation as it is stored: nil for none.
func explained(x *Explanation) *Explanation {
	if x == nil || *x == (Explanation{}) {
		return nil
	}
	n := *x
	n.Remedy = storable(n.Remedy)
	return &n
}

// equal tells whether two explanations say the same; nil says nothing.
func (x *Explanation) equal(o *Explanation) bool {
	if x == nil || o == nil {
		return x == o
	}
	return *x == *o
}
