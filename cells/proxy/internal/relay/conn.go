package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is a client's connection, and the one to its container.
type conn struct {
	*net.TCPConn
	job   *job
	relay *Relay
	used  atomic.Int64 // when a byte last went either way, in nanoseconds since 1970
	small [smallBuffer]byte
	// cut says that the client's bytes ended below TLS; it belongs to who reads.
	cut bool

	mu      sync.Mutex
	target  *net.TCPConn
	aborted bool
}

var (
	errAborted = errors.New("connection is being ended")
	errTarget  = errors.New("the container does not listen")
)

// Read notes the end of the client's bytes, of which TLS makes a regular end if it falls between two records.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.cut = c.cut || err == io.EOF
	return n, err
}

// temporary tells whether accepting failed for want of something that may be there again.
func temporary(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// greet is called when the client has said hello.
func (j *job) greet(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := hello.Conn.(*conn)
	config, err := j.configs.For(hello.SupportedProtos)
	if err != nil {
		return nil, err
	}
	if !j.VerifyClients {
		if err := c.connect(); err != nil {
			c.Close() // no alert: the client is told what it would be told by the container
			return nil, err
		}
	}
	return config, nil
}

// serve is the whole life of a connection.
func (c *conn) serve() {
	t, err := c.handshake()
	if err == nil {
		c.pass(t)
		c.close()
		return
	}
	if errors.Is(err, errTarget) {
		c.relay.meter.Unreachable.Inc()
	} else {
		c.relay.meter.Handshakes.Inc()
	}
	c.relay.log.Debug("connection not made", "container", c.job.container.ID, "address", c.job.Address, "client", c.RemoteAddr().String(), "error", err)
	c.close()
}

// handshake makes the connection one with TLS, and connects to the container.
func (c *conn) handshake() (*tls.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(c.relay.cfg.HandshakeTimeout)); err != nil {
		return nil, err
	}
	t := tls.Server(c, c.job.hello)
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	if c.job.VerifyClients {
		if err := c.connect(); err != nil {
			return nil, err
		}
	}
	return t, c.SetDeadline(time.Time{})
}

// connect connects to the container, inside of its network namespace.
func (c *conn) connect() error {
	d := net.Dialer{Timeout: c.relay.cfg.ConnectTimeout}
	var made net.Conn
	err := c.relay.namespaces.inside(c.job.container.netns, func() (err error) {
		made, err = d.Dial("tcp", c.job.Target)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errTarget, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		made.Close()
		return errAborted
	}
	c.target = made.(*net.TCPConn)
	return nil
}

// close closes both sides.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Close()
	if c.target != nil {
		c.target.Close()
	}
}

// abort ends both sides so that both notice that it is not the regular end. It may be called by anybody.
func (c *conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	for _, side := range []*net.TCPConn{c.TCPConn, c.target} {
		if side != nil {
			_ = side.SetLinger(0) // fails only when it is closed
			side.Close()
		}
	}
}

const (
	copyBuffer  = 32 << 10 // copyBuffer is lent to a connection on which bytes flow.
	smallBuffer = 2 << 10  // smallBuffer is enough for the head of most requests; each connection has one.
)

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// pass passes bytes both ways until both sides have ended.
func (c *conn) pass(t *tls.Conn) {
	down := make(chan struct{})
	go func() {
		defer close(down)
		c.end(c.download(t), func() error { return errors.Join(t.CloseWrite(), c.CloseWrite()) })
	}()
	c.end(c.upload(t), c.target.CloseWrite)
	<-down
}

// end passes the regular end of one side on to the other, or ends both.
func (c *conn) end(err error, closeWrite func() error) {
	if err != nil || closeWrite() != nil {
		c.abort()
	}
}

// upload passes bytes from the client on until it ends. A client that ends without saying so in TLS may have been
// cut off by somebody: that is an error.
func (c *conn) upload(t *tls.Conn) error {
	buf := c.small[:]
	var lent *[copyBuffer]byte
	defer func() {
		if lent != nil {
			buffers.Put(lent)
		}
	}()
	for {
		n, err := t.Read(buf)
		if n > 0 {
			c.used.Store(time.Now().UnixNano())
			c.relay.meter.BytesIn.Add(float64(n))
			if _, err := c.target.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF && !c.cut {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case n == smallBuffer && lent == nil:
			lent = buffers.Get().(*[copyBuffer]byte)
			buf = lent[:]
		case n < smallBuffer && lent != nil:
			buffers.Put(lent)
			lent, buf = nil, c.small[:]
		}
	}
}

// download passes bytes from the container on until it ends. It waits without a buffer.
func (c *conn) download(t *tls.Conn) error {
	raw, err := c.target.SyscallConn()
	if err != nil {
		return err
	}
	for {
		n, lent, err := receive(raw)
		if n > 0 {
			c.used.Store(time.Now().UnixNano())
			c.relay.meter.BytesOut.Add(float64(n))
			_, err = t.Write(lent[:n])
		}
		if lent != nil {
			buffers.Put(lent)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

// receive reads into a buffer that it borrows once there is something to read; 0 bytes are the end.
func receive(raw syscall.RawConn) (n int, lent *[copyBuffer]byte, err error) {
	waited := raw.Read(func(fd uintptr) bool {
		if lent == nil {
			lent = buffers.Get().(*[copyBuffer]byte)
		}
		for {
			n, err = syscall.Read(int(fd), lent[:])
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				buffers.Put(lent)
				lent = nil
				return false
			}
			return true
		}
	})
	if waited != nil {
		err = waited
	}
	return max(n, 0), lent, err
}
