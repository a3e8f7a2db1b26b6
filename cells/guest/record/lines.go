package record

import (
	"bytes"
	"iter"
	"unicode/utf8"
)

// Splitter cuts the output of a process into lines: at \n and at \r, empty ones left out, longer ones
// than MaxText in pieces, but never inside a UTF-8 sequence. It keeps the line that has no end yet.
type Splitter struct{ tail []byte }

// keepTail is the most bytes that a splitter without a begun line holds on to.
const keepTail = 4096

// Lines yields the lines that end in p, the next part of the output. They are valid until the next call.
func (s *Splitter) Lines(p []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			end := lineEnd(p)
			if end < 0 {
				s.grow(p, yield)
				return
			}
			line := p[:end]
			p = p[end+1:]
			if len(s.tail) > 0 {
				s.grow(line, yield)
				line = s.tail
				s.tail = s.tail[:0]
			}
			emit(line, yield)
		}
		if len(s.tail) == 0 && cap(s.tail) > keepTail {
			s.tail = nil
		}
	}
}

// Rest yields the line that has no end, which is none then any more.
func (s *Splitter) Rest() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		emit(s.tail, yield)
		s.tail = s.tail[:0]
	}
}

// lineEnd returns where the first line of p ends, or -1.
func lineEnd(p []byte) int {
	end := bytes.IndexByte(p, '\n')
	line := p
	if end >= 0 {
		line = p[:end]
	}
	if r := bytes.IndexByte(line, '\r'); r >= 0 {
		return r
	}
	return end
}

// grow adds to the line that has no end; what is too long of it is yielded.
func (s *Splitter) grow(p []byte, yield func([]byte) bool) {
	s.tail = append(s.tail, p...)
	for len(s.tail) > MaxText {
		n := piece(s.tail)
		yield(s.tail[:n])
		s.tail = append(s.tail[:0], s.tail[n:]...)
	}
}

func emit(line []byte, yield func([]byte) bool) {
	for len(line) > MaxText {
		n := piece(line)
		yield(line[:n])
		line = line[n:]
	}
	if len(line) > 0 {
		yield(line)
	}
}

// piece returns how long the first piece of a too long line is.
func piece(line []byte) int {
	for n := MaxText; n > MaxText-utf8.UTFMax; n-- {
		if utf8.RuneStart(line[n]) {
			return n
		}
	}
	return MaxText // not UTF-8
}
