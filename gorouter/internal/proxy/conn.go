package proxy

import (
	"math"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"muster/gorouter/http1"
	"muster/gorouter/internal/accesslog"
	"muster/gorouter/internal/meter"
)

const (
	// clientBuffer is the size of a client connection's buffer; it grows up to the limit of a head.
	clientBuffer = 4 << 10
	// keptBuffer is the most a buffer may hold on to between requests.
	keptBuffer = 64 << 10
	// lingerTime and lingerBytes bound how long a refused client may go on sending before the
	// connection is closed: closing at once could destroy the answer on its way.
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// The phases of a connection, in the low bits of its deadline.
const (
	phaseIdle    = 1 // waiting for the first byte of a request
	phaseHead    = 2 // in the middle of a head
	phaseRequest = 3
	phaseMask    = 3

	expired = -1 // instead of a deadline: the sweeper has ended the phase
)

// What the sweeper knows about a request that waits for its backend.
const (
	notWaiting = iota
	waitingNew
	waitingLong
	clientWatched
)

// conn is one client connection. All but the atomics belongs to the goroutine that runs serve, or, while
// it runs, is not touched by upload.
type conn struct {
	s      *Server
	c      *net.TCPConn
	index  int // in Server.conns, guarded by Server.mu
	meter  *meter.Shard
	access *accesslog.Shard
	addr   string
	ip     string

	in   []byte
	r, w int // the unread part of in; a request in hand is at r
	scan http1.Scanner
	req  http1.Request
	resp http1.Response
	ask  []byte // what goes to the backend
	out  []byte // what goes to the client
	line []byte // of the access log
	rec  accesslog.Record
	id   [36]byte

	request        // what concerns the current request only
	keep      bool // the connection outlives the current response
	linger    bool // the client may still be sending
	uploading bool
	uploaded  chan uploadEnd
	watched   chan struct{}

	deadline atomic.Int64
	waiting  atomic.Int32
	gone     atomic.Bool // the client closed or broke the connection
	stopped  atomic.Bool // the sweeper or the server ended it
	up       atomic.Pointer[upstream]
}

func newConn(s *Server, nc *net.TCPConn) *conn {
	c := &conn{
		s: s, c: nc, meter: s.meter.Shard(), access: s.access.Shard(), addr: nc.RemoteAddr().String(),
		in: make([]byte, clientBuffer), uploaded: make(chan uploadEnd, 1), watched: make(chan struct{}, 1),
	}
	if host, _, err := net.SplitHostPort(c.addr); err == nil {
		c.ip = host
	}
	return c
}

// serve answers requests until the client, an error, a time limit or a drain ends the connection.
func (c *conn) serve() {
	now := time.Now()
	for {
		head, err := c.readHead(now)
		if head == nil && err == nil {
			break
		}
		c.begin(time.Now())
		if err == nil {
			err = c.req.Parse(head, c.s.cfg.Limits)
		} else {
			c.req.Reset()
		}
		c.headBytes = len(head)
		if err != nil {
			c.refuse(err)
		} else {
			c.handle()
		}
		now = c.finish()
		if !c.keep {
			break
		}
		c.r = c.bodyEnd
	}
	if c.linger {
		c.lingerOn()
	}
	c.c.Close()
}

// readHead returns the next head; nil when there is none and nobody to be told.
func (c *conn) readHead(now time.Time) ([]byte, error) {
	c.scan = http1.Scanner{}
	if c.r == c.w {
		c.r, c.w = 0, 0
		c.shrink()
	}
	phase, idle := phaseIdle, c.s.cfg.ClientIdle
	if head := c.s.cfg.HeadTimeout; c.received.IsZero() && head > 0 && (idle == 0 || head < idle) {
		idle = head // who connects has something to ask
	}
	c.arm(phaseIdle, idle, now)
	for {
		end, err := c.scan.End(c.in[c.r:c.w], c.s.cfg.Limits)
		if end > 0 || err != nil {
			if !c.disarm() {
				return nil, nil
			}
			return c.in[c.r : c.r+end], err
		}
		if c.w > c.r && phase == phaseIdle {
			phase = phaseHead
			c.arm(phaseHead, c.s.cfg.HeadTimeout, time.Now())
		}
		if c.w == len(c.in) {
			c.makeRoom()
		}
		n, err := c.c.Read(c.in[c.w:])
		c.w += n
		if n == 0 && err != nil {
			c.keep, c.linger = false, false
			return nil, nil
		}
	}
}

// shrink lets go of buffers that a big head has made big, and of everything that points into them: a client
// that sends one and then nothing must not hold them.
func (c *conn) shrink() {
	if max(cap(c.in), cap(c.ask), cap(c.out), cap(c.line)) <= keptBuffer {
		return
	}
	c.in, c.ask, c.out, c.line = make([]byte, clientBuffer), nil, nil, nil
	c.rec, c.req, c.resp = accesslog.Record{}, http1.Request{}, http1.Response{}
}

func (c *conn) makeRoom() {
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
		return
	}
	c.in = append(c.in, make([]byte, len(c.in))...)
}

// arm says by when the phase that begins must end; d 0 means never.
func (c *conn) arm(phase int64, d time.Duration, now time.Time) {
	at := int64(math.MaxInt64)
	if d > 0 {
		at = now.UnixNano() + int64(d)
	}
	c.deadline.Store(at&^phaseMask | phase)
}

// disarm ends the phase; false: the sweeper has ended it before.
func (c *conn) disarm() bool { return c.deadline.Swap(0) != expired }

// sweep is called by the sweeper, with Server.mu held.
func (c *conn) sweep(now int64, draining bool) {
	d := c.deadline.Load()
	if d > 0 && (d&^phaseMask <= now || draining && d&phaseMask == phaseIdle) && c.deadline.CompareAndSwap(d, expired) {
		c.expire(d & phaseMask)
	}
	switch c.waiting.Load() {
	case waitingNew:
		c.waiting.CompareAndSwap(waitingNew, waitingLong)
	case waitingLong:
		if c.waiting.CompareAndSwap(waitingLong, clientWatched) {
			go c.watch()
		}
	}
}

// expire ends a phase. A request's backend is let go first, so that the client can still be told.
func (c *conn) expire(phase int64) {
	if phase != phaseRequest {
		c.c.Close()
		return
	}
	c.stopped.Store(true)
	c.c.SetDeadline(time.Now().Add(lingerTime))
	c.cut()
}

// abort ends the connection whatever it does.
func (c *conn) abort() {
	c.stopped.Store(true)
	c.c.Close()
	c.cut()
}

// cut breaks the connection to the backend, if there is one. It never waits, as ending TLS properly might.
func (c *conn) cut() {
	if u := c.up.Load(); u != nil {
		u.tcp.Close()
	}
}

// watch waits for the client to leave, without taking any of its bytes, and then lets the backend go.
// It ends when unwatch moves the read deadline. A client that has sent its next request is no longer watched.
func (c *conn) watch() {
	raw, err := c.c.SyscallConn()
	if err == nil {
		left := false
		err = raw.Read(func(fd uintptr) bool {
			var one [1]byte
			n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err == unix.EAGAIN || err == unix.EINTR {
				return false
			}
			left = n == 0 || err != nil
			return true
		})
		if err == nil && left {
			c.gone.Store(true)
			c.cut()
		}
	}
	c.watched <- struct{}{}
}

// unwatch ends the wait for a backend.
func (c *conn) unwatch() {
	if c.waiting.Swap(notWaiting) == clientWatched {
		c.c.SetReadDeadline(time.Unix(1, 0))
		<-c.watched
		if !c.stopped.Load() {
			c.c.SetReadDeadline(time.Time{})
		}
	}
}

// lingerOn lets the client read its answer although not everything it sent was read.
func (c *conn) lingerOn() {
	if c.c.CloseWrite() != nil || c.c.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	for n := 0; n < lingerBytes; {
		k, err := c.c.Read(c.in)
		if n += k; err != nil {
			return
		}
	}
}
