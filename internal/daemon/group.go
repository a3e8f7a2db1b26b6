package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Group runs the long-lived parts of a daemon. When the first one returns, or the context ends, the
// others are stopped in the reverse order of their addition, each waited for before the next.
type Group struct {
	parts []part
}

type part struct {
	name string
	run  func(context.Context) error
}

// Add adds a part: run works until its context ends and returns only after every goroutine it
// started has returned.
func (g *Group) Add(name string, run func(context.Context) error) {
	g.parts = append(g.parts, part{name, run})
}

// Run runs all parts until the first returns or ctx ends. It returns the error of the part that
// ended first (nil when ctx ended and every part then returned cleanly), and only after all have
// returned. A part that returns nil while ctx is alive is an error: long-lived parts do not end.
func (g *Group) Run(ctx context.Context) error {
	type end struct {
		i   int
		err error
	}
	ends := make(chan end, len(g.parts))
	var wg sync.WaitGroup
	cancels := make([]context.CancelFunc, len(g.parts))
	dones := make([]chan struct{}, len(g.parts))
	for i, p := range g.parts {
		// Not derived from ctx: parts are stopped one after another, not all at once.
		pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancels[i], dones[i] = cancel, make(chan struct{})
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer close(dones[i])
			ends <- end{i, p.run(pctx)}
		}()
	}
	var first error
	select {
	case <-ctx.Done():
	case e := <-ends:
		first = e.err
		if first == nil {
			first = errors.New("ended by itself")
		}
		first = fmt.Errorf("%s: %w", g.parts[e.i].name, first)
	}
	for i := len(g.parts) - 1; i >= 0; i-- {
		cancels[i]()
		<-dones[i]
	}
	wg.Wait()
	close(ends)
	for e := range ends {
		if first == nil && e.err != nil && !errors.Is(e.err, context.Canceled) {
			first = fmt.Errorf("stop %s: %w", g.parts[e.i].name, e.err)
		}
	}
	return first
}
