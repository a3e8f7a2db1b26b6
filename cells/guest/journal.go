package guest

import (
	"sync"
	"time"

	"muster/cells/guest/record"
	"muster/cells/step"
)

// flushAt is how many bytes of records are written at once, but for the last of them.
const flushAt = 64 << 10

// journal is the log of the container.
type journal struct {
	mu    sync.Mutex
	out   writer
	limit limiter
	buf   []byte
}

// line logs a line of the cell, which no limit holds back.
func (j *journal) line(source string, stream step.Stream, text string) {
	records := record.Append(nil, record.Record{At: time.Now(), Stream: stream, Source: source, Text: text})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.out.write(records)
}

// stream is one output of a process on its way into the journal.
type stream struct {
	journal *journal
	source  string
	origin  record.Origin
	lines   record.Splitter
}

func (j *journal) stream(source string, s step.Stream) *stream {
	return &stream{journal: j, source: source, origin: record.NewOrigin(s, source)}
}

// Write logs the lines that end in p.
func (s *stream) Write(p []byte) (int, error) {
	j := s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	for line := range s.lines.Lines(p) {
		j.add(s, now, line)
	}
	j.flush()
	return len(p), nil
}

// rest logs the line that has no end.
func (s *stream) rest() {
	j := s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	for line := range s.lines.Rest() {
		j.add(s, now, line)
	}
	j.flush()
}

func (j *journal) add(s *stream, now time.Time, line []byte) {
	passes, notice := j.limit.admit(now, len(line))
	if notice != "" {
		j.buf = record.Append(j.buf, record.Record{At: now, Stream: step.Stdout, Source: s.source, Text: notice})
	}
	if !passes {
		return
	}
	j.buf = s.origin.Append(j.buf, now, line)
	if len(j.buf) >= flushAt {
		j.flush()
	}
}

func (j *journal) flush() {
	if len(j.buf) > 0 {
		j.out.write(j.buf)
		j.buf = j.buf[:0]
	}
}
