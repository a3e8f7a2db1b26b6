// Package balance chooses the endpoint a request goes to: round robin over those that did not just
// fail and are not full. It keeps nothing: where to start, what is known of each endpoint and the time
// are arguments, so that a choice can be repeated.
package balance

import "time"

// State is what is known of an endpoint when a choice is made.
type State struct {
	// Failed is when it last failed, in nanoseconds of the caller's clock; 0: never.
	Failed int64
	// InFlight is how many requests it has in hand.
	InFlight int
	// Tried says that this request was already there.
	Tried bool
}

// Rules bound the choice.
type Rules struct {
	// FailedFor is how long an endpoint is left alone after a failure.
	FailedFor time.Duration
	// MaxInFlight is how many requests an endpoint may have in hand; 0: any number.
	MaxInFlight int
}

// Verdict says why no endpoint was chosen, or what else must follow.
type Verdict uint8

// The verdicts.
const (
	// Chosen: the index is good.
	Chosen Verdict = iota
	// Reset: the index is good, but all usable endpoints had failed: forget all failures.
	Reset
	// Full: every endpoint has as many requests in hand as it may.
	Full
	// None: there is no endpoint this request was not already at.
	None
)

// Choose returns which of n endpoints comes next, beginning at start modulo n. An endpoint that
// failed is chosen only when all that have room did; one that was tried never.
func Choose(n int, start uint32, now int64, rules Rules, state func(int) State) (int, Verdict) {
	if n == 0 {
		return 0, None
	}
	failed, full, tried := -1, 0, 0
	at := int(start % uint32(n))
	for range n {
		s := state(at)
		switch {
		case s.Tried:
			tried++
		case rules.MaxInFlight > 0 && s.InFlight >= rules.MaxInFlight:
			full++
		case s.Failed != 0 && now-s.Failed < int64(rules.FailedFor):
			if failed < 0 {
				failed = at
			}
		default:
			return at, Chosen
		}
		if at++; at == n {
			at = 0
		}
	}
	switch {
	case failed >= 0 && tried > 0:
		// Others were tried just now: their failures are news, the rest is worth a try all the same.
		return failed, Chosen
	case failed >= 0:
		return failed, Reset
	case full > 0:
		return 0, Full
	}
	return 0, None
}
