package wait_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"muster/internal/wait"
)

// It takes as long as it was told, or until the context ends, and tells which.
func TestFor(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pause, life, took time.Duration
		whole             bool
	}{
		"to its end":        {time.Second, time.Minute, time.Second, true},
		"cut short":         {time.Minute, time.Second, time.Second, false},
		"nothing":           {0, time.Minute, 0, true},
		"less than nothing": {-time.Second, time.Minute, 0, true},
		"too late":          {0, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tt.life)
				defer cancel()
				begin := time.Now()
				if whole := wait.For(ctx, tt.pause); whole != tt.whole || time.Since(begin) != tt.took {
					t.Errorf("%v after %v, want %v after %v", whole, time.Since(begin), tt.whole, tt.took)
				}
			})
		})
	}
}
