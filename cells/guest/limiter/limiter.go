// Package limiter bounds what a container writes to its log. It is a CORE. The bounds are shared by all
// its processes and both their outputs; each is a token bucket that holds what one second brings.
//
// What is over a bound is left out, and a notice says so, at most one a second. Unlike on Diego's cells
// what is within the bound passes again at once, without a second of silence.
package limiter

import (
	"fmt"
	"time"
)

// noticeEvery is the least time between two notices.
const noticeEvery = time.Second

// Limiter decides about lines. It is not for concurrent use.
type Limiter struct {
	silent       bool
	bytes, lines *bucket // nil: no bound
	noticed      time.Time
}

// bucket holds tokens; one that is full holds rate of them.
type bucket struct {
	rate, tokens float64
	at           time.Time
	notice       string
}

// New returns a limiter: bytes a second, 0 for nothing at all, negative for no bound; and lines a second,
// 0 for no bound.
func New(bytes, lines int64) *Limiter {
	l := &Limiter{silent: bytes == 0}
	if bytes > 0 {
		l.bytes = &bucket{rate: float64(bytes), tokens: float64(bytes),
			notice: fmt.Sprintf("app instance exceeded log rate limit (%d bytes/sec)", bytes)}
	}
	if lines > 0 {
		l.lines = &bucket{rate: float64(lines), tokens: float64(lines),
			notice: fmt.Sprintf("app instance exceeded log rate limit (%d log-lines/sec) set by platform operator", lines)}
	}
	return l
}

// Take decides about a line of so many bytes: whether it passes, and what to tell before it.
func (l *Limiter) Take(now time.Time, bytes int) (pass bool, notice string) {
	if l.silent {
		return false, ""
	}
	for _, b := range []struct {
		*bucket
		cost float64
	}{{l.bytes, float64(bytes)}, {l.lines, 1}} {
		if b.bucket == nil {
			continue
		}
		b.fill(now)
		if b.tokens >= b.cost {
			continue
		}
		if !l.noticed.IsZero() && now.Sub(l.noticed) < noticeEvery {
			return false, ""
		}
		l.noticed = now
		return false, b.notice
	}
	if l.bytes != nil {
		l.bytes.tokens -= float64(bytes)
	}
	if l.lines != nil {
		l.lines.tokens--
	}
	return true, ""
}

// fill adds what the time since the last call brings.
func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.at).Seconds(); !b.at.IsZero() && passed > 0 {
		b.tokens = min(b.rate, b.tokens+passed*b.rate)
	}
	b.at = now
}
