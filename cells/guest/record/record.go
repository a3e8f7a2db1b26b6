// Package record is what the init of a container and the cell tell each other in files: log records and
// events, one a line, in the order in which they were written. It reads and writes no file itself.
//
// A log record is
//
//	<time in ns since 1970> <o or e> <source, percent-escaped, or - for none> <text>\n
//
// Its text is one line of output: never empty, at most MaxText bytes, without \n and \r. Writers write
// each record, and each event, with one write, so that several may append to one file. A reader may
// nevertheless meet a line that is none, when a disk was full or the writer was killed: it skips that.
package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"muster/cells/step"
)

const (
	// MaxText is the most bytes of text in a record; longer lines become several (upstream's).
	MaxText = 61_440
	// MaxSource is the most bytes of a source; the rest is cut off.
	MaxSource = 256
	// MaxLine is the most bytes of the line of a record, its end included.
	MaxLine = MaxText + 3*MaxSource + 32
	// MaxEvent is the most bytes of the line of an event: a result file whose every byte is escaped, and
	// reasons.
	MaxEvent = 1 << 20
)

// Record is one line of the log of a container.
type Record struct {
	At     time.Time
	Stream step.Stream
	Source string // empty: none was given
	Text   string
}

// Append appends the records of r to dst: one for each line of its text, none for an empty one.
func Append(dst []byte, r Record) []byte {
	o := NewOrigin(r.Stream, r.Source)
	var s Splitter
	for line := range s.Lines([]byte(r.Text)) {
		dst = o.Append(dst, r.At, line)
	}
	for line := range s.Rest() {
		dst = o.Append(dst, r.At, line)
	}
	return dst
}

// Origin is where lines come from, prepared for many of them.
type Origin struct{ middle []byte }

// NewOrigin returns the origin of lines of a source on a stream.
func NewOrigin(stream step.Stream, source string) Origin {
	letter := " o "
	if stream == step.Stderr {
		letter = " e "
	}
	return Origin{append(escape([]byte(letter), source[:min(len(source), MaxSource)]), ' ')}
}

// Append appends the record of one line to dst. The line comes from a Splitter.
func (o Origin) Append(dst []byte, at time.Time, line []byte) []byte {
	dst = strconv.AppendInt(dst, at.UnixNano(), 10)
	dst = append(dst, o.middle...)
	dst = append(dst, line...)
	return append(dst, '\n')
}

const none = "-"

// escape appends a source without blanks, control characters and bytes beyond ASCII.
func escape(dst []byte, source string) []byte {
	switch source {
	case "":
		return append(dst, none...)
	case none:
		return append(dst, "%2D"...)
	}
	for _, b := range []byte(source) {
		if b <= ' ' || b >= 0x7f || b == '%' {
			dst = fmt.Appendf(dst, "%%%02X", b)
		} else {
			dst = append(dst, b)
		}
	}
	return dst
}

// Parse reads the line of a record, with or without its end. The error says what is wrong with it.
func Parse(line []byte) (Record, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	var fields [3][]byte
	for i := range fields {
		field, rest, found := bytes.Cut(line, []byte(" "))
		if !found {
			return Record{}, fmt.Errorf("log record of %d fields: want 4", i+1)
		}
		fields[i], line = field, rest
	}
	if len(line) == 0 || len(line) > MaxText || bytes.ContainsAny(line, "\n\r") {
		return Record{}, fmt.Errorf("log record with %d bytes of text: want one line of 1 to %d", len(line), MaxText)
	}
	r := Record{Text: string(line)}
	ns, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return Record{}, fmt.Errorf("time %.40q of a log record: want nanoseconds", fields[0])
	}
	r.At = time.Unix(0, ns)
	switch string(fields[1]) {
	case "o":
		r.Stream = step.Stdout
	case "e":
		r.Stream = step.Stderr
	default:
		return Record{}, fmt.Errorf("stream %.40q of a log record: want o or e", fields[1])
	}
	if string(fields[2]) != none {
		r.Source, err = url.PathUnescape(string(fields[2]))
	}
	if err != nil || len(r.Source) > MaxSource || len(fields[2]) == 0 {
		return Record{}, fmt.Errorf("source %.40q of a log record: want at most %d bytes, percent-escaped", fields[2], MaxSource)
	}
	return r, nil
}

// AppendEvent appends the line of an event to dst.
func AppendEvent(dst []byte, e step.Event) ([]byte, error) {
	line, err := json.Marshal(e)
	if err != nil {
		return dst, fmt.Errorf("event %s: %w", e.Name, err)
	}
	return append(append(dst, line...), '\n'), nil
}

// ParseEvent reads the line of an event, with or without its end.
func ParseEvent(line []byte) (step.Event, error) {
	var e step.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return step.Event{}, fmt.Errorf("event %.100q: %w", line, err)
	}
	switch e.Name {
	case step.Begun, step.Ready, step.Wants, step.Ended:
		return e, nil
	}
	return step.Event{}, fmt.Errorf("event %.100q: no such name", line)
}
