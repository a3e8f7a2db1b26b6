package auction

import (
	"errors"
	"fmt"
	"math"

	"muster/bbs/lrp"
	"muster/cells"
)

// weights are Weights in units.
type weights struct {
	starting, binPack int64
	maxStarting       int64 // 0: no bound
}

func weightsOf(w Weights) weights {
	return weights{starting: units(w.Starting), binPack: units(w.BinPack), maxStarting: int64(max(w.MaxStarting, 0))}
}

// Check returns what of the weights makes no sense, each with its value and its bound.
func (w Weights) Check() error {
	check := func(name string, v float64) error {
		if math.IsNaN(v) || v < 0 || v > MaxWeight {
			return fmt.Errorf("%s %v: want 0 to %g", name, v, float64(MaxWeight))
		}
		return nil
	}
	return errors.Join(check("starting_container_weight", w.Starting), check("bin_pack_first_fit_weight", w.BinPack))
}

// StateError says what of a cell's state makes no sense.
type StateError struct {
	Cell         lrp.CellID // empty: it is what is missing
	Field, Value string
	Bound        string // what was wanted
}

// Error names cell, field, value and bound.
func (e *StateError) Error() string {
	return fmt.Sprintf("state of cell %q: %s is %s, want %s", e.Cell, e.Field, e.Value, e.Bound)
}

// CheckState returns all that makes no sense in a state, each with cell, field, value and bound.
func CheckState(s cells.State) error {
	var errs []error
	check := func(field string, value, low, high int64, bound string) {
		if value < low || value > high {
			errs = append(errs, &StateError{Cell: s.Cell, Field: field, Value: fmt.Sprint(value), Bound: bound})
		}
	}
	available := func(field string, value, total int32) {
		if total > 0 {
			check("available "+field, int64(value), 0, int64(total), fmt.Sprintf("0 to %d, the total", total))
		}
		check("total "+field, int64(total), 1, math.MaxInt32, "1 or more")
	}
	available("memory_mb", s.Available.MemoryMB, s.Capacity.MemoryMB)
	available("disk_mb", s.Available.DiskMB, s.Capacity.DiskMB)
	available("containers", s.Available.Containers, s.Capacity.Containers)
	check("starting_container_count", int64(s.StartingContainers), 0, math.MaxInt32, "0 or more")
	check("proxy_memory_allocation_mb", int64(s.ProxyMemoryAllocationMB), 0, math.MaxInt32, "0 or more")
	return errors.Join(errs...)
}
