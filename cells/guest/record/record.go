// Package record is the form of what the init of a container tells the cell: lines of the log on its
// standard output, events on its standard error; and of the answers to transfers. It is a CORE.
//
// A line of the log is
//
//	<unix time in nanoseconds> <o|e> <source> <text>
//
// with the source percent-escaped, - for none. An event is JSON on one line. Whatever else is in a log
// or between events, the rest of a line whose start is gone for example, is no record and left out.
package record

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"time"

	"muster/cells/engine"
	"muster/cells/step"
)

// noSource stands for an empty source.
const noSource = "-"

// AppendLine appends a line of the log. A line end within the text becomes a space.
func AppendLine(dst []byte, l engine.Line) []byte {
	dst = strconv.AppendInt(dst, l.At.UnixNano(), 10)
	if l.Stream == step.Stderr {
		dst = append(dst, " e "...)
	} else {
		dst = append(dst, " o "...)
	}
	dst = append(append(dst, escape(l.Source)...), ' ')
	begin := len(dst)
	dst = append(dst, l.Text...)
	for n := begin; n < len(dst); n++ {
		if dst[n] == '\n' {
			dst[n] = ' '
		}
	}
	return append(dst, '\n')
}

func escape(source string) string {
	switch source {
	case "":
		return noSource
	case noSource:
		return "%2D"
	}
	return url.QueryEscape(source)
}

// ParseLine reads a line of the log, without its end. The text is a part of line.
func ParseLine(line []byte) (engine.Line, bool) {
	at, rest, ok1 := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	source, text, ok3 := bytes.Cut(rest, []byte(" "))
	nanos, err := strconv.ParseInt(string(at), 10, 64)
	if !ok1 || !ok2 || !ok3 || err != nil || len(stream) != 1 {
		return engine.Line{}, false
	}
	l := engine.Line{At: time.Unix(0, nanos), Text: text}
	switch stream[0] {
	case 'o':
		l.Stream = step.Stdout
	case 'e':
		l.Stream = step.Stderr
	default:
		return engine.Line{}, false
	}
	if string(source) != noSource {
		if l.Source, err = url.QueryUnescape(string(source)); err != nil {
			return engine.Line{}, false
		}
	}
	return l, true
}

// AppendEvent appends an event.
func AppendEvent(dst []byte, ev step.Event) ([]byte, error) {
	text, err := json.Marshal(ev)
	return append(append(dst, text...), '\n'), err
}

// ParseEvent reads an event.
func ParseEvent(line []byte) (step.Event, bool) {
	var ev step.Event
	err := json.Unmarshal(line, &ev)
	return ev, err == nil && ev.Name != ""
}

// Answer is the answer to a transfer.
type Answer struct {
	Size   int64  `json:"size"`             // bytes that were moved
	Cached bool   `json:"cached,omitempty"` // the network was not needed
	Error  string `json:"error,omitempty"`  // why it failed, for people
}
