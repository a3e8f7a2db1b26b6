package http1

import "bytes"

// Response is the head of a response. It may be used again for the next one.
type Response struct {
	Message
	Status int
	Reason []byte
}

// Parse reads a complete head as Scanner finds it. toHead says that it answers a HEAD request.
func (r *Response) Parse(head []byte, limits Limits, toHead bool) error {
	r.reset()
	*r = Response{Message: r.Message}
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
	r.settle(toHead)
	return nil
}

func (r *Response) parseLine(line []byte) error {
	if len(line) < len("HTTP/1.1 200") {
		return ErrStatusLine
	}
	switch string(line[:9]) {
	case "HTTP/1.1 ":
		r.Minor = 1
	case "HTTP/1.0 ":
	default:
		return ErrVersion
	}
	code := line[9:12]
	if !all(code, digit) || code[0] == '0' {
		return ErrStatusLine
	}
	r.Status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	if len(line) == 12 {
		return nil // no reason, and not even the space before it
	}
	r.Reason = line[13:]
	if line[12] != ' ' || !all(r.Reason, value) {
		return ErrStatusLine
	}
	return nil
}

func (r *Response) settle(toHead bool) {
	chunked := r.Body == Chunked
	switch {
	case toHead, r.Status < 200, r.Status == 204, r.Status == 304:
		r.Body = NoBody
	case chunked:
	case r.Length > 0:
		r.Body = Sized
	case r.Length < 0:
		r.Body, r.KeepAlive = UntilClose, false
	default:
		r.Body = NoBody
	}
	if r.Body != Chunked {
		r.dropTrailer()
	}
	for i := range r.Fields {
		// Neither has a length, whatever the sender thinks.
		if r.Fields[i].Key == ContentLength && (r.Status < 200 || r.Status == 204) {
			r.Fields[i].Drop = true
		}
	}
	r.Upgrade = r.Upgrade && r.Status == 101
}
