package lrp

import (
	"strings"
	"time"
	"unicode/utf8"
)

// truncated marks a text that was cut. A text of MaxReasonBytes is cut already (bbs reference
// §14.3), so that one of that length always ends with the mark.
const truncated = "(truncated)"

// nextCrashCount returns the crashes in a row if the instance crashes now. An instance that ran for
// long enough starts over; one that never ran does not.
func (a *Actual) nextCrashCount(now time.Time) int32 {
	if a.State == Running && now.Sub(a.Since) > CrashResetAfter {
		return 1
	}
	return a.CrashCount + 1
}

// BackOff returns how long an instance waits in CRASHED after so many crashes in a row: MinBackOff
// after the first crash that does not restart at once, twice that after the next, and so on up to
// MaxBackOff.
func BackOff(crashes int32) time.Duration {
	wait := MinBackOff
	for n := int32(ImmediateRestarts + 1); n < crashes && wait < MaxBackOff; n++ {
		wait *= 2
	}
	return min(wait, MaxBackOff)
}

// RestartAt returns when a crashed instance may restart. It is not ok when the instance is not
// CRASHED or when it has crashed so often that it is given up.
func RestartAt(a Actual) (at time.Time, ok bool) {
	if a.State != Crashed || a.CrashCount >= MaxRestarts {
		return time.Time{}, false
	}
	return a.Since.Add(BackOff(a.CrashCount)), true
}

// storable returns a text that fits its column: of at most MaxReasonBytes, cut between characters.
// Reasons quote what programs say, so anything comes.
func storable(s string) string {
	s = text(s)
	if len(s) < MaxReasonBytes {
		return s
	}
	end := MaxReasonBytes - len(truncated)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + truncated
}

// text returns s without what PostgreSQL refuses in a text.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
