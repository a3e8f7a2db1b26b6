package proxy

import (
	"io"
	"net"

	"muster/gorouter/internal/meter"
)

// tunnel relays 101 and then bytes both ways until both sides have ended. A side that ends its sending
// may still receive; an error on either ends both. The request timeout does not apply.
func (c *conn) tunnel(u *upstream) {
	c.started, c.status, c.keep = true, 101, false
	c.unwatch()
	if !c.disarm() {
		return
	}
	if c.req.WebSocket() {
		c.meter.Add(meter.WebSocketUpgrades, 1)
	}
	c.buildHead(u.head)
	c.out = append(c.out, "Connection: Upgrade\r\n"...)
	c.out = appendLine(c.out, "Upgrade: ", c.resp.Protocol)
	c.out = append(c.out, "\r\n"...)
	c.bytesOut = int64(len(u.unread()))
	c.out = append(c.out, u.unread()...)
	early := c.in[c.bodyEnd:c.w]
	if c.send(c.out) != nil {
		return
	}
	up := make(chan int64, 1)
	go func() {
		n, err := u.c.Write(early)
		copied := int64(0)
		if err == nil {
			copied, err = io.Copy(u.c, c.c)
		}
		endSide(u.c, err, c.c)
		up <- int64(n) + copied
	}()
	n, err := io.Copy(c.c, u.c)
	c.bytesOut += n
	endSide(c.c, err, u.c)
	c.payload = <-up
	c.bodyEnd = c.w
}

// endSide passes the end of one direction on, or ends both.
func endSide(to net.Conn, err error, from net.Conn) {
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
		return
	}
	to.Close()
	from.Close()
}
