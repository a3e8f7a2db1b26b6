package http1

import "bytes"

// Error is a refused message. Status is what an HTTP server answers to such a request.
type Error struct {
	Status int
	Why    string
}

// Error returns why the message was refused.
func (e *Error) Error() string { return e.Why }

// The refusals. A response that is refused has the same reasons; its Status means nothing.
var (
	ErrBareLF           = &Error{400, "line ends without CR"}
	ErrEmptyLine        = &Error{400, "empty line before the message"}
	ErrHeadTooLarge     = &Error{431, "head is too large"}
	ErrTooManyFields    = &Error{431, "too many header fields"}
	ErrRequestLine      = &Error{400, "malformed request line"}
	ErrMethod           = &Error{400, "malformed method"}
	ErrConnect          = &Error{405, "CONNECT is not supported"}
	ErrTarget           = &Error{400, "malformed request target"}
	ErrVersion          = &Error{400, "unsupported HTTP version"}
	ErrStatusLine       = &Error{400, "malformed status line"}
	ErrFolded           = &Error{400, "folded header line"}
	ErrFieldName        = &Error{400, "malformed header name"}
	ErrFieldValue       = &Error{400, "malformed header value"}
	ErrMissingHost      = &Error{400, "missing Host header"}
	ErrDuplicateHost    = &Error{400, "more than one Host header"}
	ErrHost             = &Error{400, "malformed Host header"}
	ErrHostMismatch     = &Error{400, "Host header and request target name different hosts"}
	ErrContentLength    = &Error{400, "malformed Content-Length"}
	ErrDuplicateLength  = &Error{400, "more than one Content-Length"}
	ErrTransferEncoding = &Error{501, "unsupported Transfer-Encoding"}
	ErrTwoLengths       = &Error{400, "both Transfer-Encoding and Content-Length"}
	ErrExpect           = &Error{417, "unsupported Expect"}
	ErrTooManyTokens    = &Error{400, "too many tokens in Connection"}
	ErrChunkSize        = &Error{400, "malformed chunk size"}
	ErrChunkEnd         = &Error{400, "chunk does not end with CR LF"}
	ErrChunkLine        = &Error{400, "chunk extension is malformed or too long"}
	ErrTrailer          = &Error{400, "malformed, forbidden or too large trailer"}
)

// Limits bound a head.
type Limits struct {
	// HeadBytes bounds start line, fields and the final empty line; a head this long is refused.
	HeadBytes int
	// Fields bounds the number of header fields.
	Fields int
}

const (
	token = 1 << iota
	value
	target
	host
	digit
)

// class says what each byte may be part of.
var class = func() (c [256]uint8) {
	for b := range c {
		if b >= 0x20 && b != 0x7f || b == '\t' {
			c[b] |= value
		}
		if b > 0x20 && b != 0x7f {
			c[b] |= target
		}
	}
	for b := '0'; b <= '9'; b++ {
		c[b] |= token | host | digit
	}
	for b := 'a'; b <= 'z'; b++ {
		c[b] |= token | host
		c[b-0x20] |= token | host
	}
	for _, b := range []byte("!#$%&'*+-.^_`|~") {
		c[b] |= token
	}
	for _, b := range []byte("!$%&'()*+,-.;=_~") {
		c[b] |= host
	}
	return c
}()

func all(b []byte, mask uint8) bool {
	for _, c := range b {
		if class[c]&mask == 0 {
			return false
		}
	}
	return true
}

// fold compares a token with a lower-case name of letters, digits and dashes.
func fold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c|0x20 != lower[i] {
			return false
		}
	}
	return true
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 0x20
	}
	return c
}

// trim removes spaces and tabs at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// Scanner finds the end of a head in bytes that arrive piece by piece, looking at each byte once. The
// zero Scanner is at the start of a message.
type Scanner struct {
	line int // where the current line starts
	seen int // what was looked at
}

// End returns the length of the head at the start of b, or 0 when more bytes are needed. Each call
// gets the bytes of the call before, and more.
func (s *Scanner) End(b []byte, limits Limits) (int, error) {
	for {
		i := bytes.IndexByte(b[s.seen:], '\n')
		if i < 0 {
			s.seen = len(b)
			if len(b) >= limits.HeadBytes {
				return 0, ErrHeadTooLarge
			}
			return 0, nil
		}
		i += s.seen
		switch {
		case i >= limits.HeadBytes-1:
			return 0, ErrHeadTooLarge
		case i == 0 || b[i-1] != '\r':
			return 0, ErrBareLF
		case i == 1:
			return 0, ErrEmptyLine
		case i-1 == s.line:
			return i + 1, nil
		}
		s.seen, s.line = i+1, i+1
	}
}
