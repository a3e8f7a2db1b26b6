package guest

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/guest/record"
	"muster/cells/step"
)

// writer writes to a file that may be a pipe with a slow reader, or on a full disk. What cannot be written
// within its patience is dropped: a container does not stand still because nobody takes its log.
type writer struct {
	fd       int
	patience time.Duration
	stuck    bool // the last write failed: the next one does not wait
	torn     bool // part of a record was written: the next one begins a new line
}

// newWriter returns a writer for a file that is the init's alone.
func newWriter(fd int, patience time.Duration) writer {
	_ = unix.SetNonblock(fd, true) // without effect but for pipes
	return writer{fd: fd, patience: patience}
}

// write writes whole records.
func (w *writer) write(p []byte) {
	if w.torn {
		p = append([]byte("\n"), p...)
	}
	patience := w.patience
	if w.stuck {
		patience = 0
	}
	whole := len(p)
	deadline := time.Now().Add(patience)
	for len(p) > 0 {
		n, err := unix.Write(w.fd, p)
		switch {
		case n > 0:
			p = p[n:]
		case err == unix.EINTR:
		case err != unix.EAGAIN || !w.await(deadline):
			w.stuck = true
			w.torn = w.torn && whole == len(p) || whole != len(p)
			return
		}
	}
	w.stuck, w.torn = false, false
}

// await waits until the file takes more; it tells whether it does before the deadline.
func (w *writer) await(deadline time.Time) bool {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

const (
	logFile    = 1
	eventsFile = 2
	// logPatience is how long output waits for a log that is not taken before it is dropped.
	logPatience = 500 * time.Millisecond
	// eventPatience is the same for events, which are few, and which somebody waits for.
	eventPatience = 30 * time.Second
)

// events tells what happens.
type events struct {
	mu    sync.Mutex
	out   writer
	ended bool // that was the last
}

func newEvents() *events { return &events{out: newWriter(eventsFile, eventPatience)} }

func (e *events) tell(event step.Event) {
	line, err := record.AppendEvent(nil, event)
	if err != nil {
		panic(err) // an event is plain data
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	e.ended = event.Name == step.Ended
	e.out.write(line)
}
