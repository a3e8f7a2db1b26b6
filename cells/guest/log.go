package guest

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"muster/cells/engine"
	"muster/cells/guest/limiter"
	"muster/cells/guest/record"
	"muster/cells/step"
)

const (
	// stallAfter is how long whoever takes the log may take for a part of it. Then parts are dropped
	// until it goes on: a program must not stand still because its log does.
	stallAfter = time.Second
	// stallTry is how long each attempt lasts meanwhile.
	stallTry = 10 * time.Millisecond
	// readBytes is how much is read of an output at once.
	readBytes = 32 << 10
)

// log writes the log of the container.
type log struct {
	mu      sync.Mutex
	to      *os.File
	limit   *limiter.Limiter
	records []byte // of one write
	stalled bool
	broken  bool // the last record was not written to its end
}

// newLog returns the log of a program; to is a pipe or a file.
func newLog(to *os.File, p step.Program) (*log, error) {
	// A file that can be waited for with a deadline.
	fd, err := syscall.Dup(int(to.Fd()))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return &log{to: os.NewFile(uintptr(fd), "log"), limit: limiter.New(p.LogBytes, p.LogLines)}, nil
}

// add writes a line of the cell, which no limit holds back.
func (l *log) add(source string, stream step.Stream, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record(engine.Line{At: time.Now(), Source: source, Stream: stream, Text: []byte(text)})
	l.flush()
}

// copy writes what a process writes, until its end.
func (l *log) copy(source string, stream step.Stream, from io.Reader) {
	var s record.Splitter
	buf := make([]byte, readBytes)
	for {
		n, err := from.Read(buf)
		l.lines(source, stream, func(yield func([]byte)) {
			s.Split(buf[:n], yield)
			if err != nil {
				s.Flush(yield)
			}
		})
		if err != nil {
			return
		}
	}
}

// lines writes lines of a process, as far as its limit lets them pass.
func (l *log) lines(source string, stream step.Stream, each func(yield func([]byte))) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	each(func(text []byte) {
		pass, notice := l.limit.Take(now, len(text))
		if notice != "" {
			l.record(engine.Line{At: now, Source: source, Stream: step.Stdout, Text: []byte(notice)})
		}
		if pass {
			l.record(engine.Line{At: now, Source: source, Stream: stream, Text: text})
		}
	})
	l.flush()
}

// record adds a record to the next write; large parts are written at once. l.mu is held.
func (l *log) record(line engine.Line) {
	l.records = record.AppendLine(l.records, line)
	if len(l.records) >= 2*readBytes {
		l.flush()
	}
}

// flush writes what was added. l.mu is held.
func (l *log) flush() {
	if len(l.records) == 0 {
		return
	}
	if l.broken {
		l.records = append([]byte{'\n'}, l.records...)
	}
	wait := stallAfter
	if l.stalled {
		wait = stallTry
	}
	_ = l.to.SetWriteDeadline(time.Now().Add(wait)) // a file has none, and needs none
	n, err := l.to.Write(l.records)
	l.stalled = errors.Is(err, os.ErrDeadlineExceeded)
	if n > 0 {
		l.broken = l.records[n-1] != '\n'
	}
	l.records = l.records[:0]
}

// tell writes an event.
func tell(to io.Writer, ev step.Event) {
	if text, err := record.AppendEvent(nil, ev); err == nil { // plain data: there is no other case
		_, _ = to.Write(text) // nobody is left to tell
	}
}
