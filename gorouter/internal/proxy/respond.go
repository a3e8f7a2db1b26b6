package proxy

import (
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"muster/gorouter/http1"
	"muster/gorouter/internal/meter"
)

// spliceFrom is the length from which a body is moved by the kernel, without passing through a buffer.
const spliceFrom = 256 << 10

// relay sends the response to the client. It settles what becomes of both connections.
func (c *conn) relay(u *upstream) {
	c.expect.end()
	c.started, c.status = true, c.resp.Status
	dechunk := c.resp.Body == http1.Chunked && c.req.Minor == 0
	enchunk := c.resp.Body == http1.UntilClose && c.req.Minor == 1
	if dechunk || c.resp.Body == http1.UntilClose && !enchunk || c.s.draining.Load() {
		c.keep = false
	}
	c.buildHead(u.head)
	if enchunk || c.resp.Body == http1.Chunked && !dechunk {
		c.out = append(c.out, "Transfer-Encoding: chunked\r\n"...)
	}
	c.appendConnection()
	c.out = append(c.out, "\r\n"...)
	var client bool
	var err error
	switch {
	case c.resp.Body == http1.NoBody:
		client, err = true, c.send(c.out)
	case c.resp.Body == http1.Sized:
		client, err = c.relaySized(u)
	case c.resp.Body == http1.Chunked:
		client, err = c.relayChunked(u, dechunk)
	default:
		client, err = c.relayUntilClose(u, enchunk)
	}
	u.giveBack()
	if err == nil {
		// Bytes that nobody asked for must not become somebody's response.
		c.reusable = c.resp.KeepAlive && len(u.unread()) == 0
		u.r, u.w = 0, 0
		return
	}
	c.keep = false
	if client || c.gone.Load() {
		c.hung = true
	} else {
		c.c.SetLinger(0) // a body that just ends would look complete
	}
}

func (c *conn) send(b []byte) error {
	_, err := c.c.Write(b)
	return err
}

// relaySized sends the head with what has arrived of the body, and the rest as it arrives. It returns the
// error that ended it, and whether it was the client's.
func (c *conn) relaySized(u *upstream) (client bool, err error) {
	left := c.resp.Length
	n := int(min(left, int64(len(u.unread()))))
	c.out = append(c.out, u.unread()[:n]...)
	u.r += n
	if err := c.send(c.out); err != nil {
		return true, err
	}
	c.bytesOut += int64(n)
	if left -= int64(n); left >= spliceFrom {
		if tcp, ok := u.c.(*net.TCPConn); ok {
			return c.splice(tcp, left)
		}
	}
	for left > 0 {
		b, err := u.more()
		if err != nil {
			return false, err
		}
		b = b[:min(left, int64(len(b)))]
		u.r += len(b)
		if err := c.send(b); err != nil {
			return true, err
		}
		c.bytesOut += int64(len(b))
		left -= int64(len(b))
	}
	return false, nil
}

func (c *conn) splice(from *net.TCPConn, left int64) (client bool, err error) {
	n, err := c.c.ReadFrom(&io.LimitedReader{R: from, N: left})
	c.bytesOut += n
	if err == nil && n < left {
		return false, io.ErrUnexpectedEOF
	}
	return err != nil && strings.Contains(err.Error(), "write"), err
}

// relayChunked sends a chunked body as it is, or its payload only.
func (c *conn) relayChunked(u *upstream, dechunk bool) (client bool, err error) {
	var chunks http1.Chunks
	for {
		for b := u.unread(); len(b) > 0 && !chunks.Done(); b = u.unread() {
			n, payload, err := c.relayPiece(&chunks, b, dechunk)
			u.r += n
			if err != nil {
				return false, err
			}
			c.bytesOut += payload
		}
		if len(c.out) > 0 {
			if err := c.send(c.out); err != nil {
				return true, err
			}
			c.out = c.out[:0]
		}
		if chunks.Done() {
			return false, nil
		}
		if _, err := u.more(); err != nil {
			return false, err
		}
	}
}

// relayPiece puts what follows of a chunked body into out.
func (c *conn) relayPiece(chunks *http1.Chunks, b []byte, dechunk bool) (n int, payload int64, err error) {
	if dechunk {
		n, data, err := chunks.Next(b)
		c.out = append(c.out, data...)
		return n, int64(len(data)), err
	}
	n, payload, err = chunks.Feed(b)
	c.out = append(c.out, b[:n]...)
	return n, payload, err
}

// relayUntilClose sends a body that ends with the connection, in chunks if the client understands them.
func (c *conn) relayUntilClose(u *upstream, enchunk bool) (client bool, err error) {
	b := u.unread()
	for {
		if len(b) > 0 {
			c.bytesOut += int64(len(b))
			if enchunk {
				c.out = strconv.AppendInt(c.out, int64(len(b)), 16)
				c.out = append(c.out, "\r\n"...)
			}
			c.out = append(c.out, b...)
			if enchunk {
				c.out = append(c.out, "\r\n"...)
			}
		}
		u.r = u.w
		if err := c.send(c.out); err != nil {
			return true, err
		}
		c.out = c.out[:0]
		if b, err = u.more(); err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	if enchunk {
		return true, c.send([]byte("0\r\n\r\n"))
	}
	return false, nil
}

// relayInformational sends a 1xx response to a client that knows them.
func (c *conn) relayInformational(u *upstream) error {
	c.expect.end()
	if c.req.Minor == 0 {
		return nil
	}
	c.buildHead(u.head)
	c.out = append(c.out, "\r\n"...)
	if err := c.send(c.out); err != nil {
		c.gone.Store(true)
		return err
	}
	return nil
}

// answer is a response of the router's own.
type answer struct {
	status  int
	failure string // X-Cf-RouterError
	text    string
	cache   string // Cache-Control
	empty   bool   // no body
}

func (c *conn) answer(a answer) {
	c.expect.end()
	c.started, c.status, c.failure = true, a.status, a.failure
	if !c.inHand {
		c.keep, c.linger = false, true
	}
	body := ""
	if !a.empty {
		body = strconv.Itoa(a.status) + " " + statusText(a.status)
		if a.text != "" {
			body += ": " + a.text
		}
		body += "\n"
	}
	out := append(c.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(a.status), 10)
	out = append(out, ' ')
	out = append(out, statusText(a.status)...)
	out = append(out, "\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"...)
	if a.failure != "" {
		out = appendField(out, "X-Cf-Routererror: ", a.failure)
	}
	if a.cache != "" {
		out = appendField(out, "Cache-Control: ", a.cache)
	}
	out = appendLine(out, "X-Vcap-Request-Id: ", c.id[:])
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	out = append(out, "\r\n"...)
	c.out = out
	c.appendConnection()
	c.out = append(c.out, "\r\n"...)
	if string(c.req.Method) != "HEAD" {
		c.out = append(c.out, body...)
		c.bytesOut = int64(len(body))
	}
	if err := c.send(c.out); err != nil {
		c.hung, c.keep = true, false
	}
}

// refuse answers what could not be read as a request.
func (c *conn) refuse(err error) {
	c.keep, c.inHand = false, false
	refused, ok := err.(*http1.Error)
	if !ok {
		return
	}
	a := answer{status: refused.Status, text: refused.Why}
	if a.status == 431 {
		a.failure, a.text, a.empty = "max-request-size-exceeded", "", true
	}
	c.answer(a)
}

// fail answers a request that no endpoint answered.
func (c *conn) fail(err error) {
	if err == nil {
		err = errNoEndpoints
	}
	if c.req.WebSocket() {
		c.meter.Add(meter.WebSocketFailures, 1)
	}
	if c.refused != nil {
		c.refuse(c.refused)
		return
	}
	f := asFailure(err)
	c.failure = "endpoint_failure (" + errorText(err) + ")"
	if c.hung {
		c.status, c.keep = 499, false
		return
	}
	a := answer{status: f.status, failure: c.failure}
	switch f.status {
	case 502:
		c.meter.Add(meter.BadGateways, 1)
		a.text = "Registered endpoint failed to handle the request."
	case 503:
		c.meter.Add(meter.BackendInvalidID, 1)
	case 525:
		c.meter.Add(meter.BackendHandshakeFailed, 1)
	case 526:
		c.meter.Add(meter.BackendInvalidCert, 1)
	}
	c.answer(a)
}

func statusText(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 417:
		return "Expectation Failed"
	case 431:
		return "Request Header Fields Too Large"
	case 496:
		return "SSL Certificate Required"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 525:
		return "SSL Handshake Failed"
	case 526:
		return "Invalid SSL Certificate"
	}
	return "Error"
}

// finish counts and logs the request, and returns when it ended.
func (c *conn) finish() time.Time {
	now := time.Now()
	if !c.disarm() {
		c.keep = false
	}
	c.expect.end()
	if c.hung {
		c.keep = false
		if c.bytesOut == 0 {
			c.status = 499
		}
		c.meter.Add(meter.ClientGone, 1)
	}
	took := now.Sub(c.received)
	own := took
	if !c.asked.IsZero() {
		own -= now.Sub(c.asked)
	}
	c.meter.Add(meter.BytesIn, uint64(c.payload))
	c.meter.Add(meter.BytesOut, uint64(c.bytesOut))
	if c.backend != nil {
		c.meter.Done(c.status, took, own)
	}
	if c.access != nil {
		c.logLine(took, own)
	}
	return now
}

func (c *conn) logLine(took, own time.Duration) {
	r := &c.rec
	r.Host, r.Method, r.URI, r.Proto = c.req.Host, c.req.Method, c.req.Target, "HTTP/1.1"
	if c.req.Minor == 0 {
		r.Proto = "HTTP/1.0"
	}
	if c.backend == nil {
		for i := range c.req.Fields {
			switch f := &c.req.Fields[i]; f.Key {
			case http1.Referer:
				r.Referer = f.Value
			case http1.UserAgent:
				r.UserAgent = f.Value
			case http1.XForwardedFor:
				r.ForwardedFor = f.Value
			case http1.XForwardedProto:
				r.ForwardedProto = f.Value
			}
		}
	}
	r.RequestID, r.ClientAddr, r.RouterError = c.id[:], c.addr, c.failure
	r.BackendAddr, r.App, r.Index, r.InstanceID = "", "", "", ""
	if b := c.backend; b != nil {
		r.BackendAddr, r.App, r.Index, r.InstanceID = b.Address, b.App, b.Index, b.InstanceID
	}
	r.Received, r.Status, r.BytesIn, r.BytesOut, r.Took, r.Own = c.received, c.status, c.payload, c.bytesOut, took, own
	c.line = r.Append(c.line[:0])
	c.access.Add(c.line)
}
