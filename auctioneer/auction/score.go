package auction

import (
	"math"
	"math/bits"

	"muster/cells"
)

// Scores are whole numbers of 2^-30, so that comparing is exact and adding can be done in any order. Each
// term is rounded down to the unit; so a score is at most ten units, 1e-8, below the number that real
// arithmetic gives.
const (
	one      int64 = 1 << 30    // the score of a cell of which everything is in use
	locality       = 1000 * one // for each instance of the process, or each task, that is already there
	// maxTerm bounds each of the terms that are a weight times a count. No sum of terms overflows.
	maxTerm int64 = 1 << 59
	// never is the load of a cell that takes nothing more; it is above every score.
	never int64 = 1 << 62
)

// MaxWeight is the largest weight that counts; a larger one counts as this.
const MaxWeight = 1e6

// amounts are resources that cannot overflow when cells or work claim absurd numbers.
type amounts struct{ memory, disk, containers int64 }

func amountsOf(r cells.Resources) amounts {
	return amounts{int64(r.MemoryMB), int64(r.DiskMB), int64(r.Containers)}
}

// rate is what one MB, or one container, adds to the score of a cell: a third of its share in the total,
// in units of 2^-62.
type rate uint64

// rateOf is the rate of a total. A cell that says it has nothing counts as full: nothing adds to that.
func rateOf(total int64) rate {
	if total <= 0 {
		return 0
	}
	return rate((1 << 62) / uint64(3*total))
}

// of returns what an amount adds, rounded down. What is more than a total counts as all of it.
func (r rate) of(amount int64) int64 {
	hi, lo := bits.Mul64(uint64(amount), uint64(r))
	return min(int64(hi<<32|lo>>32), one/3)
}

// used returns what the share in use adds when available remains of total; less than nothing cannot be in use.
func (r rate) used(available, total int64) int64 {
	if total <= 0 {
		return one / 3
	}
	return r.of(max(total-available, 0))
}

// times multiplies a weight by a count and stops at maxTerm.
func times(weight, count int64) int64 {
	if weight == 0 {
		return 0
	}
	if count >= maxTerm/weight {
		return maxTerm
	}
	return weight * count
}

// units turns a weight into units; what is no weight counts as 0.
func units(weight float64) int64 {
	if !(weight > 0) { // NaN as well
		return 0
	}
	return int64(math.Round(min(weight, MaxWeight) * float64(one)))
}

// points turns units into the number that people see.
func points(score int64) float64 { return float64(score) / float64(one) }
