package guest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	const bytes, lines = "app instance exceeded log rate limit (100 bytes/sec)",
		"app instance exceeded log rate limit (3 log-lines/sec) set by platform operator"
	type want struct {
		passes bool
		notice string
	}
	type line struct {
		at time.Duration
		n  int
		want
	}
	yes, no := want{true, ""}, want{false, ""}
	for _, c := range []struct {
		name         string
		bytes, lines int64
		log          []line
	}{
		{"no limit", -1, 0, []line{{0, 1 << 30, yes}, {0, 1, yes}}},
		{"nothing passes, silently", 0, 0, []line{{0, 1, no}, {time.Hour, 1, no}}},
		{"a burst of a second", 100, 0, []line{{0, 60, yes}, {0, 40, yes}, {0, 1, want{false, bytes}}}},
		{"it fills up again", 100, 0, []line{{0, 100, yes}, {500 * time.Millisecond, 50, yes}, {time.Second, 50, yes}}},
		{"one notice and one dark second", 100, 0, []line{
			{0, 100, yes}, {0, 10, want{false, bytes}}, {1, 10, no}, {999 * time.Millisecond, 10, no},
			{time.Second, 100, yes}, {time.Second, 1, want{false, bytes}},
		}},
		{"a line that is too large never passes", 100, 0, []line{{0, 101, want{false, bytes}}, {time.Hour, 101, want{false, bytes}}}},
		{"lines", -1, 3, []line{{0, 9999, yes}, {0, 1, yes}, {0, 1, yes}, {0, 1, want{false, lines}}, {0, 1, no}, {time.Second, 1, yes}}},
		{"both", 100, 3, []line{{0, 90, yes}, {0, 11, want{false, bytes}}, {2 * time.Second, 1, yes}, {2 * time.Second, 1, yes},
			{2 * time.Second, 1, yes}, {2 * time.Second, 1, want{false, lines}}}},
	} {
		l := newLimiter(c.bytes, c.lines)
		for i, one := range c.log {
			passes, notice := l.admit(time.Unix(1000, 0).Add(one.at), one.n)
			if diff := cmp.Diff(one.want, want{passes, notice}, cmp.AllowUnexported(want{})); diff != "" {
				t.Errorf("%s: line %d (-want +got):\n%s", c.name, i, diff)
			}
		}
	}
}
