package record

import (
	"bytes"

	"muster/cells/engine"
)

// Splitter splits what a process writes into lines: at line feeds and carriage returns, and within lines of
// more than engine.MaxLine bytes. Empty lines are left out.
type Splitter struct{ rest []byte }

// Split yields the lines that end within p, each valid until the next call.
func (s *Splitter) Split(p []byte, yield func([]byte)) {
	for len(p) > 0 {
		end := bytes.IndexAny(p, "\n\r")
		part := p
		if end >= 0 {
			part, p = p[:end], p[end+1:]
		} else {
			p = nil
		}
		if len(s.rest) > 0 || end < 0 {
			s.rest = append(s.rest, part...)
			part = s.rest
		}
		for len(part) > engine.MaxLine {
			n := engine.Cut(part)
			yield(part[:n])
			part = part[n:]
		}
		switch {
		case end < 0:
			s.rest = append(s.rest[:0], part...)
		default:
			if len(part) > 0 {
				yield(part)
			}
			s.rest = s.rest[:0]
		}
	}
}

// Flush yields a line without an end.
func (s *Splitter) Flush(yield func([]byte)) {
	if len(s.rest) > 0 {
		yield(s.rest)
		s.rest = s.rest[:0]
	}
}
