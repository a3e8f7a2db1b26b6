package server

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// MaxLine is the longest line that is sent, in bytes; longer ones are split between characters.
const MaxLine = 61_440

// lines splits what a process writes: at \n or \r, without empty lines, and at MaxLine.
type lines struct {
	r    io.Reader
	buf  []byte // not yet split
	err  error  // of r; what is in buf comes first
	part [4096]byte
}

// next returns the next line; it is valid until the next call. The last may have had no end.
func (l *lines) next() ([]byte, error) {
	for {
		if line, ok := l.cut(); ok {
			if len(line) > 0 {
				return line, nil
			}
			continue
		}
		if l.err != nil {
			return nil, l.err
		}
		n, err := l.r.Read(l.part[:])
		l.buf = append(l.buf, l.part[:n]...)
		l.err = err
	}
}

// cut takes one line off the buffer, if there is a whole one.
func (l *lines) cut() ([]byte, bool) {
	i := bytes.IndexAny(l.buf, "\n\r")
	switch {
	case i >= 0 && i <= MaxLine:
		line := l.buf[:i]
		l.buf = l.buf[i+1:]
		return line, true
	case len(l.buf) > MaxLine:
		end := MaxLine
		for end > MaxLine-utf8.UTFMax && !utf8.RuneStart(l.buf[end]) {
			end--
		}
		line := l.buf[:end]
		l.buf = l.buf[end:]
		return line, true
	case errors.Is(l.err, io.EOF) && len(l.buf) > 0:
		line := l.buf
		l.buf = nil
		return line, true
	}
	return nil, false
}
