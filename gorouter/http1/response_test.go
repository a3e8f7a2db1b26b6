package http1

import (
	"strings"
	"testing"
)

func TestResponses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text   string
		toHead bool
		body   Body
		length int64
		keep   bool
		err    error
	}{
		"sized":                     {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", body: Sized, length: 5, keep: true},
		"empty":                     {text: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", body: NoBody, keep: true},
		"same length twice":         {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", body: Sized, length: 5, keep: true},
		"different lengths":         {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", err: ErrDuplicateLength},
		"chunked":                   {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body: Chunked, length: -1, keep: true},
		"chunked and sized":         {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", err: ErrTwoLengths},
		"unknown encoding":          {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", err: ErrTransferEncoding},
		"until close":               {text: "HTTP/1.1 200 OK\r\n\r\n", body: UntilClose, length: -1},
		"old":                       {text: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", body: Sized, length: 5},
		"old, kept":                 {text: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", body: Sized, length: 5, keep: true},
		"to HEAD":                   {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", toHead: true, body: NoBody, length: 5, keep: true},
		"204 with a length":         {text: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", body: NoBody, length: 5, keep: true},
		"304 with a length":         {text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", body: NoBody, length: 5, keep: true},
		"no reason, no space":       {text: "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", body: Sized, length: 5, keep: true},
		"reason with latin letters": {text: "HTTP/1.1 200 tr\xe8s bien\r\nContent-Length: 0\r\n\r\n", body: NoBody, keep: true},
		"status of two digits":      {text: "HTTP/1.1 20 OK, then\r\n\r\n", err: ErrStatusLine},
		"status of four digits":     {text: "HTTP/1.1 2000 OK\r\n\r\n", err: ErrStatusLine},
		"status with a sign":        {text: "HTTP/1.1 +20 OK\r\n\r\n", err: ErrStatusLine},
		"HTTP/2":                    {text: "HTTP/2.0 200 OK\r\n\r\n", err: ErrVersion},
		"not HTTP":                  {text: "SSH-2.0-OpenSSH_9.2p1\r\n\r\n", err: ErrVersion},
		"bare LF":                   {text: "HTTP/1.1 200 OK\nX: y\r\n\r\n", err: ErrBareLF},
		"folded":                    {text: "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", err: ErrFolded},
	} {
		var s Scanner
		end, err := s.End([]byte(tc.text), testLimits)
		var r Response
		if err == nil {
			err = r.Parse([]byte(tc.text[:end]), testLimits, tc.toHead)
		}
		if err != tc.err && !(err == nil && tc.err == nil) {
			t.Errorf("%s: got %v, want %v", name, err, tc.err)
		}
		if err == nil && (r.Body != tc.body || r.Length != tc.length || r.KeepAlive != tc.keep) {
			t.Errorf("%s: got body %d, length %d, keep %v", name, r.Body, r.Length, r.KeepAlive)
		}
	}
}

func TestChunkedBodies(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text, payload, rest string
		err                 error
	}{
		"empty":                     {"0\r\n\r\nnext", "", "next", nil},
		"two chunks":                {"3\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n", "abc0123456789", "", nil},
		"extensions":                {"3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n", "abc", "", nil},
		"trailers":                  {"1\r\nx\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\nz", "x", "z", nil},
		"no size":                   {"\r\n\r\n", "", "", ErrChunkSize},
		"size with 0x":              {"0x3\r\nabc\r\n", "", "", ErrChunkSize},
		"size with a sign":          {"+3\r\nabc\r\n", "", "", ErrChunkSize},
		"space before size":         {" 3\r\nabc\r\n", "", "", ErrChunkSize},
		"space after size":          {"3 \r\nabc\r\n", "", "", ErrChunkSize},
		"size overflows":            {"10000000000000003\r\nabc\r\n", "", "", ErrChunkSize},
		"size with many zeros":      {"0000000000000003\r\nabc\r\n", "", "", ErrChunkSize},
		"size ends with bare LF":    {"3\nabc\r\n", "", "", ErrChunkSize},
		"size ends with CR only":    {"3\rabc\r\n", "", "", ErrChunkSize},
		"extension with bare LF":    {"3;a\nabc\r\n0\r\n\r\n", "", "", ErrChunkLine},
		"extension with CR":         {"3;a\rb\r\nabc\r\n", "", "", ErrChunkSize},
		"extension too long":        {"3;" + strings.Repeat("x", 5000), "", "", ErrChunkLine},
		"chunk longer than told":    {"3\r\nabcd\r\n", "abc", "", ErrChunkEnd},
		"chunk ends with bare LF":   {"3\r\nabc\n0\r\n\r\n", "abc", "", ErrChunkEnd},
		"chunk ends with CR CR":     {"3\r\nabc\r\r", "abc", "", ErrChunkEnd},
		"trailer frames":            {"0\r\nContent-Length: 3\r\n\r\n", "", "", ErrTrailer},
		"trailer frames, otherwise": {"0\r\ntransfer-encoding: chunked\r\n\r\n", "", "", ErrTrailer},
		"trailer names the host":    {"0\r\nHost: b\r\n\r\n", "", "", ErrTrailer},
		"trailer with a space":      {"0\r\nX : b\r\n\r\n", "", "", ErrTrailer},
		"trailer folded":            {"0\r\nX: b\r\n c\r\n\r\n", "", "", ErrTrailer},
		"trailer with bare LF":      {"0\r\nX: b\n\r\n", "", "", ErrTrailer},
		"trailer too large":         {"0\r\nX: " + strings.Repeat("x", 20000), "", "", ErrTrailer},
	} {
		for _, step := range []int{1, 2, 7, 1 << 20} {
			payload, rest, err := dechunk(tc.text, step)
			if payload != tc.payload || rest != tc.rest || err != tc.err && !(err == nil && tc.err == nil) {
				t.Errorf("%s, by %d: got %q, rest %q, %v", name, step, payload, rest, err)
			}
		}
	}
}

// dechunk feeds text in steps of so many bytes.
func dechunk(text string, step int) (payload, rest string, err error) {
	var c Chunks
	for !c.Done() {
		piece := text[:min(step, len(text))]
		n, data, err := c.Next([]byte(piece))
		payload += string(data)
		text = text[n:]
		if err != nil {
			return payload, "", err
		}
		if n == 0 {
			return payload, text, errIncomplete
		}
	}
	return payload, text, nil
}

var errIncomplete = &Error{Why: "incomplete"}
