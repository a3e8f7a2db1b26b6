package inmem

import (
	"context"
	"io"
	"sync"
)

// logLimit bounds what is kept of one stream, in bytes; the oldest half goes when it is exceeded.
const logLimit = 1 << 20

// record is what a process wrote on one stream.
type record struct {
	gone <-chan struct{} // closed when the container is destroyed

	mu    sync.Mutex
	start int // offset of data[0] in the stream
	data  []byte
	grown chan struct{} // closed and replaced by each write
}

func newRecord(gone <-chan struct{}) *record {
	return &record{gone: gone, grown: make(chan struct{})}
}

// Write appends p; it never fails and never blocks.
func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = append(r.data, p...)
	if over := len(r.data) - logLimit; over > 0 {
		drop := max(over, logLimit/2)
		r.data = append([]byte(nil), r.data[drop:]...)
		r.start += drop
	}
	close(r.grown)
	r.grown = make(chan struct{})
	return len(p), nil
}

// next copies what is kept from offset on, and returns the offset after it and what is closed when
// there is more.
func (r *record) next(p []byte, offset int) (n, after int, grown <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	offset = max(offset, r.start)
	n = copy(p, r.data[offset-r.start:])
	return n, offset + n, r.grown
}

// reader reads a record from its beginning; with follow it waits for more.
type reader struct {
	record *record
	follow bool
	ctx    context.Context // of the call that opened the reader
	closed chan struct{}
	once   sync.Once
	offset int
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, after, grown := r.record.next(p, r.offset)
		r.offset = after
		if n > 0 {
			return n, nil
		}
		if !r.follow {
			return 0, io.EOF
		}
		select {
		case <-grown:
		case <-r.closed:
			return 0, io.ErrClosedPipe
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		case <-r.record.gone:
			if n, after, _ := r.record.next(p, r.offset); n > 0 {
				r.offset = after
				return n, nil
			}
			return 0, io.EOF
		}
	}
}

func (r *reader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}
