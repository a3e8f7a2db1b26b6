package containerd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/guest/record"
)

// mergedLog reads several log files as one.
type mergedLog struct {
	ctx    context.Context // of the call that opened it
	follow bool
	parts  []*logFileReader
	closed chan struct{}
	once   sync.Once
}

// Next returns the oldest of the lines that the parts have next.
func (l *mergedLog) Next() (engine.Line, error) {
	for {
		var first *logFileReader
		ended := 0
		for _, part := range l.parts {
			ok, err := part.peek(l.follow)
			switch {
			case errors.Is(err, io.EOF):
				ended++
			case err != nil:
				return engine.Line{}, err
			case ok && (first == nil || part.line.At.Before(first.line.At)):
				first = part
			}
		}
		if first != nil {
			first.have = false
			return first.line, nil
		}
		if ended == len(l.parts) {
			return engine.Line{}, io.EOF
		}
		if err := l.wait(); err != nil {
			return engine.Line{}, err
		}
	}
}

// wait returns when a part has changed.
func (l *mergedLog) wait() error {
	select {
	case <-l.parts[0].changed:
	case <-l.parts[1].changed:
	case <-l.ctx.Done():
		return l.ctx.Err()
	case <-l.closed:
		return fs.ErrClosed
	}
	return nil
}

// Close ends the log, also for one that waits in Next.
func (l *mergedLog) Close() error {
	err := fs.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = nil
		for _, part := range l.parts {
			err = errors.Join(err, part.close())
		}
	})
	return err
}

// logFileReader reads the records of a log file from what is left of its beginning.
type logFileReader struct {
	path    string
	changed <-chan struct{} // nil: it is not followed
	stop    func()

	mu     sync.Mutex // a read against close
	file   *os.File
	offset int64  // of what comes behind buf in the file
	space  []byte // for what is read
	buf    []byte // what was read and not used
	inLine bool   // after a hole: what comes is the rest of a record whose start is gone

	line engine.Line // valid while have
	have bool
}

// readBytes is how much is read at once; a record is shorter.
const readBytes = 128 << 10

func (e *Engine) openLog(path string, follow bool) (*logFileReader, error) {
	r := &logFileReader{path: path, stop: func() {}}
	var err error
	if follow {
		if r.changed, r.stop, err = e.watch.follow(path); err != nil {
			return nil, err
		}
	}
	if r.file, err = os.Open(path); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// peek makes the next record the line, if there is one. io.EOF says that none will come.
func (r *logFileReader) peek(follow bool) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.have {
		if end := bytes.IndexByte(r.buf, '\n'); end >= 0 {
			rec, err := record.Parse(r.buf[:end])
			r.line = engine.Line{At: rec.At, Source: rec.Source, Stream: rec.Stream, Text: []byte(rec.Text)}
			r.have = err == nil && !r.inLine
			r.buf, r.inLine = r.buf[end+1:], false
			continue
		}
		_, err := os.Stat(r.path) // first: what was written before the end still counts
		ended := !follow || errors.Is(err, fs.ErrNotExist)
		n, err := r.read()
		switch {
		case err != nil:
			return false, err
		case n == 0 && ended:
			return false, io.EOF
		case n == 0:
			return false, nil
		}
	}
	return true, nil
}

// read reads what there is; nothing at the end of the file.
func (r *logFileReader) read() (int, error) {
	if err := r.skipHole(); err != nil {
		return 0, err
	}
	kept := len(r.buf)
	if kept > readBytes { // no record: something else was written there
		r.buf, r.inLine, kept = nil, true, 0
	}
	if r.space == nil {
		r.space = make([]byte, 2*readBytes)
	}
	copy(r.space, r.buf)
	n, err := r.file.ReadAt(r.space[kept:], r.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	r.buf = r.space[:kept+n]
	r.offset += int64(n)
	return n, nil
}

// skipHole moves to the next data, or to the start of a file that starts anew.
func (r *logFileReader) skipHole() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < r.offset {
		r.offset, r.inLine, r.buf = 0, false, nil
	}
	next, err := unix.Seek(int(r.file.Fd()), r.offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) { // no data from here on
		return nil
	}
	if err != nil {
		return err
	}
	if next > r.offset {
		r.offset, r.inLine, r.buf = next, true, nil
	}
	return nil
}

func (r *logFileReader) close() error {
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Close()
}
