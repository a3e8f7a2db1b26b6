package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/gorouter/http1"
)

// upstreamBuffer is the size of a backend connection's buffer; it grows up to the limit of a head.
const upstreamBuffer = 8 << 10

// upstream is a connection to a backend, used by one request at a time.
type upstream struct {
	b      *Backend
	c      net.Conn
	tcp    *net.TCPConn // c, or what is below its TLS
	raw    syscall.RawConn
	buf    []byte
	r, w   int    // the unread part of buf
	head   []byte // of the response in hand
	small  []byte // buf, while a bigger one is lent
	lent   *[bigBuffer]byte
	since  time.Time
	reused bool
	quiet  bool // what probe found
	probe  func(fd uintptr) bool
}

// dial opens a connection, with TLS if the backend has it.
func (b *Backend) dial() (*upstream, error) {
	d := net.Dialer{Timeout: b.s.cfg.DialTimeout}
	nc, err := d.Dial("tcp", b.Address)
	if err != nil {
		return nil, err
	}
	u := &upstream{b: b, c: nc, tcp: nc.(*net.TCPConn), buf: make([]byte, upstreamBuffer)}
	if u.raw, err = u.tcp.SyscallConn(); err != nil {
		nc.Close()
		return nil, err
	}
	u.probe = func(fd uintptr) bool {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		u.quiet = err == unix.EAGAIN
		return true
	}
	if b.TLS {
		return u, u.handshake()
	}
	return u, nil
}

// handshake verifies that the other end is the instance that registered.
func (u *upstream) handshake() error {
	ctx, cancel := context.WithTimeout(context.Background(), u.b.s.cfg.TLSTimeout)
	defer cancel()
	cfg := &tls.Config{ServerName: u.b.ServerName, RootCAs: u.b.s.cfg.BackendCAs, MinVersion: tls.VersionTLS12}
	if own := u.b.s.cfg.BackendCert; own != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	t := tls.Client(u.c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		u.c.Close()
		return err
	}
	u.c = t
	return nil
}

// reason returns why a write failed: a backend that refuses the router's certificate says so, and then closes.
func (u *upstream) reason(err error) error {
	if closed := errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET); !closed || !u.b.TLS || u.reused {
		return err
	}
	var one [1]byte
	if _, said := u.c.Read(one[:]); said != nil && refusesOurs(said) {
		return said
	}
	return err
}

// alive says that the backend has neither closed the connection nor sent anything since its last response.
func (u *upstream) alive() bool {
	u.quiet = false
	return u.raw.Read(u.probe) == nil && u.quiet
}

// unread returns the bytes that have arrived and were not looked at.
func (u *upstream) unread() []byte { return u.buf[u.r:u.w] }

// fill reads more bytes behind the unread ones.
func (u *upstream) fill(limits http1.Limits) error {
	if u.w == len(u.buf) {
		if u.r > 0 {
			u.w = copy(u.buf, u.buf[u.r:u.w])
			u.r = 0
		} else {
			u.buf = append(u.buf, make([]byte, min(len(u.buf), max(limits.HeadBytes-len(u.buf), 1)))...)
		}
	}
	n, err := u.c.Read(u.buf[u.w:])
	u.w += n
	if n > 0 {
		return nil
	}
	return err
}

// more replaces what is in the buffer, which was all used, by what arrives next. A body that fills the buffer gets a bigger one.
func (u *upstream) more() ([]byte, error) {
	if u.w == len(u.buf) && u.lent == nil {
		u.lent = bigBuffers.Get().(*[bigBuffer]byte)
		u.small, u.buf = u.buf, u.lent[:]
	}
	n, err := u.c.Read(u.buf)
	u.r, u.w = 0, n
	if n > 0 {
		return u.buf[:n], nil
	}
	return nil, err
}

// giveBack returns the bigger buffer. What was unread in it is kept.
func (u *upstream) giveBack() {
	if u.lent == nil {
		return
	}
	rest := len(u.unread())
	bigBuffers.Put(u.lent)
	u.lent, u.buf, u.small = nil, u.small, nil
	u.r, u.w = 0, min(rest, len(u.buf)) // only whether there is a rest matters now
}
