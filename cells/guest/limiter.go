package guest

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// darkness is how long nothing passes after a limit was exceeded.
const darkness = time.Second

// limiter bounds what the processes of a container log, all together: bytes and lines a second, with a
// burst of what a second may bring. Who exceeds one is told so, once, and nothing passes for a second.
type limiter struct {
	silent bool // nothing passes, and nobody is told
	limits []limit
	until  time.Time // of the darkness
}

type limit struct {
	bucket *rate.Limiter
	lines  bool // counts lines, not bytes
	notice string
}

// newLimiter returns a limiter for bytes and lines a second; see step.Program.
func newLimiter(bytes, lines int64) limiter {
	l := limiter{silent: bytes == 0}
	if bytes > 0 {
		l.limits = append(l.limits, limit{bucket(bytes), false, fmt.Sprintf("app instance exceeded log rate limit (%d bytes/sec)", bytes)})
	}
	if lines > 0 {
		l.limits = append(l.limits, limit{bucket(lines), true,
			fmt.Sprintf("app instance exceeded log rate limit (%d log-lines/sec) set by platform operator", lines)})
	}
	return l
}

func bucket(n int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(n), int(min(n, math.MaxInt32)))
}

// admit tells whether a line of n bytes passes, and what the user is to be told.
func (l *limiter) admit(now time.Time, n int) (passes bool, notice string) {
	if l.silent || len(l.limits) > 0 && now.Before(l.until) {
		return false, ""
	}
	for _, one := range l.limits {
		cost := n
		if one.lines {
			cost = 1
		}
		if !one.bucket.AllowN(now, cost) {
			l.until = now.Add(darkness)
			return false, one.notice
		}
	}
	return true, ""
}
