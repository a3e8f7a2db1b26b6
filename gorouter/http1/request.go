package http1

import "bytes"

// Request is the head of a request. It may be used again for the next one.
type Request struct {
	Message
	Method []byte
	// Target is the request target as it was sent.
	Target []byte
	// Path is the path in Target, percent-encoding kept, without the query; empty for "*" and for an
	// absolute target without a path.
	Path []byte
	// Host is the host and perhaps port the request is for, as it was sent; it may be empty.
	Host []byte
	// Expect says that the client waits for 100 (Continue).
	Expect bool
}

// Parse reads a complete head as Scanner finds it. On an error the Request holds what was read
// before it.
func (r *Request) Parse(head []byte, limits Limits) error {
	r.Reset()
	i := bytes.IndexByte(head, '\n')
	if i < 1 || head[i-1] != '\r' {
		return ErrBareLF
	}
	if err := r.parseLine(head[:i-1]); err != nil {
		return err
	}
	if err := r.parseFields(head, i+1, limits); err != nil {
		return err
	}
	return r.settle()
}

// Reset forgets the request.
func (r *Request) Reset() {
	r.reset()
	*r = Request{Message: r.Message}
}

func (r *Request) parseLine(line []byte) error {
	sp := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	if sp < 0 || sp == last {
		return ErrRequestLine
	}
	r.Method, r.Target = line[:sp], line[sp+1:last]
	if sp == 0 || !all(r.Method, token) {
		return ErrMethod
	}
	switch string(line[last+1:]) {
	case "HTTP/1.1":
		r.Minor = 1
	case "HTTP/1.0":
	default:
		return ErrVersion
	}
	if string(r.Method) == "CONNECT" {
		return ErrConnect
	}
	return r.parseTarget()
}

// parseTarget splits origin form (/path?query), absolute form (http://host/path?query) and "*".
func (r *Request) parseTarget() error {
	t := r.Target
	if len(t) == 0 || !all(t, target) {
		return ErrTarget
	}
	if t[0] != '/' {
		if len(t) == 1 && t[0] == '*' && string(r.Method) == "OPTIONS" {
			return nil
		}
		switch {
		case len(t) > 7 && fold(t[:4], "http") && string(t[4:7]) == "://":
			t = t[7:]
		case len(t) > 8 && fold(t[:5], "https") && string(t[5:8]) == "://":
			t = t[8:]
		default:
			return ErrTarget
		}
		n := bytes.IndexAny(t, "/?")
		if n < 0 {
			n = len(t)
		}
		r.Host, t = t[:n], t[n:]
		if n == 0 || !validHost(r.Host) {
			return ErrHost
		}
	}
	if q := bytes.IndexByte(t, '?'); q >= 0 {
		t = t[:q]
	}
	r.Path = t
	return checkEncoding(t)
}

// checkEncoding refuses a percent sign without two hexadecimal digits.
func checkEncoding(path []byte) error {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return nil
		}
		if len(path) < i+3 || hex(path[i+1]) < 0 || hex(path[i+2]) < 0 {
			return ErrTarget
		}
		path = path[i+3:]
	}
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// validHost accepts a name or address, or an IPv6 address in brackets, and perhaps a port.
func validHost(h []byte) bool {
	name, port := h, []byte(nil)
	if len(h) > 0 && h[0] == '[' {
		end := bytes.IndexByte(h, ']')
		if end < 2 {
			return false
		}
		for _, c := range h[1:end] {
			if hex(c) < 0 && c != ':' && c != '.' {
				return false
			}
		}
		if end+1 == len(h) {
			return true
		}
		if h[end+1] != ':' {
			return false
		}
		return all(h[end+2:], digit)
	}
	if i := bytes.IndexByte(h, ':'); i >= 0 {
		name, port = h[:i], h[i+1:]
	}
	return len(name) > 0 && all(name, host) && all(port, digit) && checkEncoding(name) == nil
}

// Hostname returns a valid host without its port.
func Hostname(h []byte) []byte {
	if i := bytes.LastIndexByte(h, ':'); i >= 0 && (h[0] != '[' || h[i-1] == ']') {
		return h[:i]
	}
	return h
}

// settle checks what concerns the head as a whole.
func (r *Request) settle() error {
	for i := range r.Fields {
		switch f := &r.Fields[i]; f.Key {
		case Host:
			if len(f.Value) > 0 && !validHost(f.Value) {
				return ErrHost
			}
			if r.Host != nil && !equalFold(r.Host, f.Value) {
				return ErrHostMismatch
			}
			r.Host = f.Value
		case ContentLength:
			if f.Drop {
				return ErrDuplicateLength
			}
		case Expect:
			if !fold(f.Value, "100-continue") {
				return ErrExpect
			}
			r.Expect = r.Minor == 1
		}
	}
	if r.hosts == 0 && r.Minor == 1 {
		return ErrMissingHost
	}
	if r.Length > 0 {
		r.Body = Sized
	}
	if r.Body != Chunked {
		r.dropTrailer()
	}
	if r.Body == NoBody {
		r.Expect = false
	}
	// A tunnel begins where the head ends, and h2c would carry requests past the router.
	r.Upgrade = r.Upgrade && r.Body == NoBody && !namesH2C(r.Protocol)
	return nil
}

func (m *Message) dropTrailer() {
	for i := range m.Fields {
		if m.Fields[i].Key == Trailer {
			m.Fields[i].Drop = true
		}
	}
}

func namesH2C(protocols []byte) bool {
	for len(protocols) > 0 {
		var p []byte
		p, protocols = cut(protocols)
		if fold(p, "h2c") {
			return true
		}
	}
	return false
}

// WebSocket says that the request asks for a WebSocket.
func (r *Request) WebSocket() bool { return r.Upgrade && fold(r.Protocol, "websocket") }

// Replayable says that doing the request twice does no more than doing it once, by its method or by the
// client's word (an idempotency key). Whether its body can be sent twice is not looked at.
func (r *Request) Replayable() bool {
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	for i := range r.Fields {
		if r.Fields[i].Key == IdempotencyKey {
			return true
		}
	}
	return false
}
