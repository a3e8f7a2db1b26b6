package fetch

import "context"

// slots bound how much is done at once.
type slots chan struct{}

// take waits for a slot; give returns it.
func (s slots) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s slots) give() { <-s }
