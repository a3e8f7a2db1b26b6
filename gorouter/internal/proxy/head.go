package proxy

import (
	"strconv"

	"muster/gorouter/http1"
)

// buildAsk makes the head that goes to a backend, and the body when it is in hand: a request is one write. Fields that
// pass unchanged are copied in runs.
func (c *conn) buildAsk(b *Backend) {
	r := &c.req
	head := c.in[c.r : c.r+c.headBytes]
	out := append(c.ask[:0], r.Method...)
	out = append(out, ' ')
	out = append(out, r.Target...)
	out = append(out, " HTTP/1.1\r\n"...)
	var start, proto []byte
	forwarded, hasHost, from := 0, false, -1
	for i := range r.Fields {
		f := &r.Fields[i]
		drop := f.Drop
		switch f.Key {
		case http1.Other:
		case http1.Host:
			hasHost = true
		case http1.XForwardedFor:
			forwarded, drop = forwarded+1, true
		case http1.XForwardedProto:
			proto, drop = f.Value, true
		case http1.XRequestStart:
			start, drop = f.Value, len(f.Value) == 0
		case http1.XVcapRequestID, http1.XCFApplicationID, http1.XCFInstanceID, http1.XCFInstanceIndex:
			drop = true
		case http1.Expect:
			drop = !r.Expect
		case http1.Referer:
			c.rec.Referer = f.Value
		case http1.UserAgent:
			c.rec.UserAgent = f.Value
		}
		if drop {
			if from >= 0 {
				out = append(out, head[from:f.Start]...)
				from = -1
			}
		} else if from < 0 {
			from = f.Start
		}
	}
	if from >= 0 {
		out = append(out, head[from:len(head)-2]...)
	}
	if !hasHost {
		out = appendLine(out, "Host: ", r.Host)
	}
	out = append(out, b.fields...)
	out = c.appendForwarded(out, forwarded)
	out = c.appendProto(out, proto)
	if len(start) == 0 {
		out = append(out, "X-Request-Start: "...)
		out = strconv.AppendInt(out, c.received.UnixMilli(), 10)
		out = append(out, "\r\n"...)
	}
	out = appendLine(out, "X-Vcap-Request-Id: ", c.id[:])
	if r.Body == http1.Chunked {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case r.Upgrade:
		out = append(out, "Connection: Upgrade\r\n"...)
		out = appendLine(out, "Upgrade: ", r.Protocol)
	case r.Expect, c.s.cfg.MaxIdle == 0:
		out = append(out, "Connection: close\r\n"...)
	}
	out = append(out, "\r\n"...)
	if c.inHand {
		out = append(out, c.in[c.r+c.headBytes:c.bodyEnd]...)
	}
	c.ask = out
}

func appendLine(out []byte, label string, value []byte) []byte {
	out = append(out, label...)
	out = append(out, value...)
	return append(out, "\r\n"...)
}

func (c *conn) appendForwarded(out []byte, fields int) []byte {
	out = append(out, "X-Forwarded-For: "...)
	from := len(out)
	for i := 0; fields > 0; i++ {
		if f := &c.req.Fields[i]; f.Key == http1.XForwardedFor {
			fields--
			if len(f.Value) > 0 {
				out = append(out, f.Value...)
				out = append(out, ", "...)
			}
		}
	}
	out = append(out, c.ip...)
	c.rec.ForwardedFor = out[from:]
	return append(out, "\r\n"...)
}

func (c *conn) appendProto(out, proto []byte) []byte {
	out = append(out, "X-Forwarded-Proto: "...)
	from := len(out)
	switch {
	case c.s.cfg.ForceHTTPS:
		out = append(out, "https"...)
	case c.s.cfg.SanitizeProto, len(proto) == 0:
		out = append(out, "http"...)
	default:
		out = append(out, proto...)
	}
	c.rec.ForwardedProto = out[from:]
	return append(out, "\r\n"...)
}

// buildHead makes the head that goes to the client, without the fields that frame the body and the
// empty line.
func (c *conn) buildHead(head []byte) {
	r := &c.resp
	out := append(c.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(r.Status), 10)
	out = append(out, ' ')
	out = append(out, r.Reason...)
	out = append(out, "\r\n"...)
	hasID, from := false, -1
	for i := range r.Fields {
		f := &r.Fields[i]
		drop := f.Drop
		switch f.Key {
		case http1.XVcapRequestID:
			hasID = true
		case http1.XCFRouterError: // only the router speaks for the router
			drop = true
		}
		if drop {
			if from >= 0 {
				out = append(out, head[from:f.Start]...)
				from = -1
			}
		} else if from < 0 {
			from = f.Start
		}
	}
	if from >= 0 {
		out = append(out, head[from:len(head)-2]...)
	}
	if !hasID && r.Status >= 200 {
		out = appendLine(out, "X-Vcap-Request-Id: ", c.id[:])
	}
	c.out = out
}

// appendConnection tells the client what will become of the connection.
func (c *conn) appendConnection() {
	switch {
	case !c.keep:
		c.out = append(c.out, "Connection: close\r\n"...)
	case c.req.Minor == 0:
		c.out = append(c.out, "Connection: keep-alive\r\n"...)
	}
}
