package inmem

import (
	"context"
	"io"
	"sync"

	"muster/cells/engine"
)

// logLimit bounds the lines that are kept of a log; the oldest half goes when it is exceeded.
const logLimit = 10_000

// history is a list that grows and is waited for.
type history[T any] struct {
	limit int // 0: none

	mu    sync.Mutex
	start int // number of all[0]
	all   []T
	grown chan struct{} // closed and replaced with every addition
}

func newHistory[T any](limit int) *history[T] {
	return &history[T]{limit: limit, grown: make(chan struct{})}
}

func (r *history[T]) add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, v)
	if r.limit > 0 && len(r.all) > r.limit {
		drop := r.limit / 2
		r.all = append([]T(nil), r.all[drop:]...)
		r.start += drop
	}
	close(r.grown)
	r.grown = make(chan struct{})
}

// from returns what there is from the nth on, and what is closed when there is more.
func (r *history[T]) from(n int) ([]T, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = max(n-r.start, 0); n > len(r.all) {
		n = len(r.all)
	}
	return append([]T(nil), r.all[n:]...), r.grown
}

// next returns the first that is kept from the nth on, and its number.
func (r *history[T]) next(n int) (v T, number int, ok bool, grown <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = max(n, r.start)
	if n-r.start < len(r.all) {
		return r.all[n-r.start], n, true, r.grown
	}
	return v, n, false, r.grown
}

// logReader reads the log of a container from its beginning; with follow it waits for more.
type logReader struct {
	container *container
	follow    bool
	ctx       context.Context // of the call that opened the reader
	closed    chan struct{}
	once      sync.Once
	n         int
}

func (r *logReader) Next() (engine.Line, error) {
	gone := r.container.gone
	for {
		line, n, ok, grown := r.container.log.next(r.n)
		if ok {
			r.n = n + 1
			return line, nil
		}
		if !r.follow || gone == nil {
			return engine.Line{}, io.EOF
		}
		select {
		case <-grown:
		case <-r.closed:
			return engine.Line{}, io.ErrClosedPipe
		case <-r.ctx.Done():
			return engine.Line{}, r.ctx.Err()
		case <-gone:
			gone = nil // what was written before still counts
		}
	}
}

func (r *logReader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}
