package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"muster/gorouter/http1"
)

// bigBuffer is the size of the buffers that are lent to bodies.
const bigBuffer = 32 << 10

// continueAfter is how long a backend may keep silent about Expect: 100-continue before the router tells the
// client to go on: many backends never answer it.
const continueAfter = time.Second

// bigBuffers lends them; a connection at rest holds none.
var bigBuffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}

// uploadEnd is how the sending of a body ended.
type uploadEnd struct {
	payload int64
	done    bool   // all of it was sent
	refused error  // the body is malformed
	rest    []byte // what the client sent behind it
}

// upload sends the part of the body that has arrived, and the rest as it arrives, while the connection's
// own goroutine reads the response.
func (c *conn) upload(u *upstream) {
	end := uploadEnd{payload: c.payload}
	client, err := c.sendBody(u, &end)
	switch {
	case err == nil:
		end.done = true
		c.waiting.Store(waitingNew)
	case !client: // the backend does not want it: its answer may say why
	default:
		if !errors.As(err, new(*http1.Error)) {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				c.gone.Store(true)
			}
		} else {
			end.refused = err
		}
		u.c.Close()
	}
	c.uploaded <- end
}

// sendBody returns the error that ended it, and whether the client's side caused it.
func (c *conn) sendBody(u *upstream, end *uploadEnd) (client bool, err error) {
	if body := c.in[c.r+c.headBytes : c.bodyEnd]; len(body) > 0 {
		if _, err := u.c.Write(body); err != nil {
			return false, err
		}
	}
	buf := bigBuffers.Get().(*[bigBuffer]byte)
	defer bigBuffers.Put(buf)
	for left := c.req.Length - end.payload; ; {
		b := buf[:]
		if c.req.Body == http1.Sized {
			if left == 0 {
				return false, nil
			}
			b = b[:min(left, int64(len(b)))]
		} else if c.chunks.Done() {
			return false, nil
		}
		n, err := c.c.Read(b)
		if n == 0 && err != nil {
			return true, err
		}
		b = b[:n]
		payload := int64(n)
		if c.req.Body == http1.Chunked {
			if n, payload, err = c.chunks.Feed(b); err != nil {
				return true, err
			}
			if n < len(b) {
				end.rest = append(end.rest, b[n:]...)
			}
		}
		end.payload += payload
		left -= payload
		if _, err := u.c.Write(b[:n]); err != nil {
			return false, err
		}
	}
}

// endUpload waits for the end of the upload, which a response, or a failure, has made pointless.
func (c *conn) endUpload(u *upstream) {
	c.uploading = false
	var end uploadEnd
	select {
	case end = <-c.uploaded:
	default:
		c.reusable = false
		u.c.Close()
		c.c.SetReadDeadline(time.Unix(1, 0))
		end = <-c.uploaded
		if !c.stopped.Load() {
			c.c.SetReadDeadline(time.Time{})
		}
	}
	c.payload = end.payload
	c.refused = end.refused
	c.inHand = false // it was handed on: it cannot be sent again
	if !end.done {
		c.keep, c.linger, c.reusable = false, true, false
		return
	}
	if len(end.rest) > 0 {
		for c.w+len(end.rest) > len(c.in) {
			c.in = append(c.in, make([]byte, len(c.in))...)
		}
		c.w += copy(c.in[c.w:], end.rest)
	}
}

// expectation is a client that waits for 100 (Continue).
type expectation struct {
	c     *net.TCPConn
	timer *time.Timer
	mu    sync.Mutex
	over  bool
}

func expect(c *net.TCPConn) *expectation {
	e := &expectation{c: c}
	e.timer = time.AfterFunc(continueAfter, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.over {
			e.over = true
			io.WriteString(e.c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
	})
	return e
}

// end is called before anything else is sent to the client; nil expects nothing.
func (e *expectation) end() {
	if e == nil {
		return
	}
	e.timer.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
}
