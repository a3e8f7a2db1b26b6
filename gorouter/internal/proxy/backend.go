package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// ID is what makes two registrations the same backend: connections and counts are shared by all its routes.
type ID struct {
	Address    string
	TLS        bool
	ServerName string
	App        string
	InstanceID string
	Index      string
}

// Backend is an endpoint as the proxy knows it: its unused connections, its last failure, and how
// much it has in hand.
type Backend struct {
	ID
	s      *Server
	fields []byte // the head fields that name it

	failed   atomic.Int64
	inFlight atomic.Int32

	mu     sync.Mutex
	closed bool
	idle   []*upstream
	prev   *Backend
	next   *Backend
}

// Backend returns a new backend. Close it when no route leads to it any more.
func (s *Server) Backend(id ID) *Backend {
	b := &Backend{ID: id, s: s}
	instance := id.InstanceID
	if instance == "" {
		instance = id.Address
	}
	b.fields = appendField(b.fields, "X-CF-ApplicationID: ", id.App)
	b.fields = appendField(b.fields, "X-CF-InstanceID: ", instance)
	b.fields = appendField(b.fields, "X-CF-InstanceIndex: ", id.Index)
	s.backends.add(b)
	return b
}

func appendField(b []byte, label, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, label...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// Close closes its unused connections; those in use are closed after their request.
func (b *Backend) Close() {
	b.s.backends.remove(b)
	b.mu.Lock()
	b.closed = true
	idle := b.idle
	b.idle = nil
	b.mu.Unlock()
	for _, u := range idle {
		u.c.Close()
	}
}

// InFlight returns how many requests it has in hand.
func (b *Backend) InFlight() int { return int(b.inFlight.Load()) }

// get returns the connection that was used last, or nil.
func (b *Backend) get() *upstream {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.idle)
	if n == 0 {
		return nil
	}
	u := b.idle[n-1]
	b.idle[n-1] = nil
	b.idle = b.idle[:n-1]
	return u
}

// put keeps a connection for the next request, or closes it.
func (b *Backend) put(u *upstream, now time.Time) {
	u.since = now
	u.reused = true
	if len(u.buf) > keptBuffer {
		u.buf, u.head = make([]byte, upstreamBuffer), nil
	}
	b.mu.Lock()
	if !b.closed && len(b.idle) < b.s.cfg.MaxIdle && !b.s.draining.Load() {
		b.idle = append(b.idle, u)
		u = nil
	}
	b.mu.Unlock()
	if u != nil {
		u.c.Close()
	}
}

// expire closes connections that were not used since then.
func (b *Backend) expire(since time.Time) {
	b.mu.Lock()
	n := 0
	for n < len(b.idle) && b.idle[n].since.Before(since) {
		n++
	}
	var old []*upstream
	if n > 0 {
		old = append(old, b.idle[:n]...)
		b.idle = append(b.idle[:0], b.idle[n:]...)
	}
	b.mu.Unlock()
	for _, u := range old {
		u.c.Close()
	}
}

// backendList links all backends, so that the sweeper finds them.
type backendList struct {
	mu    sync.Mutex
	first *Backend
}

func (l *backendList) add(b *Backend) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.next = l.first; b.next != nil {
		b.next.prev = b
	}
	l.first = b
}

func (l *backendList) remove(b *Backend) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case b.prev != nil:
		b.prev.next = b.next
	case l.first == b:
		l.first = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	}
	b.prev, b.next = nil, nil
}

func (l *backendList) expire(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := l.first; b != nil; b = b.next {
		b.expire(since)
	}
}

// closeIdle closes all unused connections.
func (l *backendList) closeIdle() { l.expire(time.Now().Add(time.Hour)) }
