package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

const (
	// followEvery is how often a reader that has read everything looks for more.
	followEvery = 50 * time.Millisecond
	// trimEvery is how often logs are held to their limit.
	trimEvery = time.Second
	// blockBytes is the size in which file systems give space back.
	blockBytes = 4096
)

// Logs reads what the process of a container wrote on one stream.
func (e *Engine) Logs(ctx context.Context, id engine.ID, stream engine.Stream, follow bool) (io.ReadCloser, error) {
	path := e.paths.log(id, stream)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("logs of container %s: %w", id, engine.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("logs of container %s: %w", id, err)
	}
	return &logReader{ctx: ctx, file: file, path: path, follow: follow, closed: make(chan struct{})}, nil
}

// Run holds the logs of all containers to their limit until ctx ends; one caller per cell runs it.
func (e *Engine) Run(ctx context.Context) error {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := e.trimLogs(); err != nil {
				e.log.Error("limit container logs", slog.Any("error", err))
			}
		}
	}
}

func (e *Engine) trimLogs() error {
	ids, err := e.paths.known()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		for _, stream := range []engine.Stream{engine.Stdout, engine.Stderr} {
			errs = append(errs, trim(e.paths.log(id, stream), e.cfg.LogLimitBytes))
		}
	}
	return errors.Join(errs...)
}

// trim gives the space of the older part of a log back when the log occupies more than limit. It
// punches a hole instead of copying and truncating: the writer appends on, nothing written in
// between is lost, and no reader loses its place. Where holes are not to be had the log starts anew.
func trim(path string, limit int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Sys().(*syscall.Stat_t).Blocks*512 <= limit {
		return nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	until := (info.Size() - limit/2) / blockBytes * blockBytes
	if until <= 0 {
		return nil
	}
	err = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, until)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = file.Truncate(0)
	}
	if err != nil {
		return fmt.Errorf("limit %s: %w", path, err)
	}
	return nil
}

// logReader reads a log file from what is left of its beginning.
type logReader struct {
	ctx    context.Context // of the call that opened the reader
	path   string
	follow bool
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex // a read against Close
	file   *os.File
	offset int64
	inLine bool // after a hole: what comes is the rest of a line whose start is gone
}

func (r *logReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if n, err := r.read(p); n > 0 || err != nil {
			return n, err
		}
		if !r.follow {
			return 0, io.EOF
		}
		_, err := os.Stat(r.path)
		if errors.Is(err, fs.ErrNotExist) { // destroyed; what was written before still counts
			n, err := r.read(p)
			if n == 0 && err == nil {
				err = io.EOF
			}
			return n, err
		}
		if err := r.pause(); err != nil {
			return 0, err
		}
	}
}

func (r *logReader) pause() error {
	timer := time.NewTimer(followEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-r.closed:
		return fs.ErrClosed
	}
}

// read reads what there is; nothing at the end of the file.
func (r *logReader) read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if err := r.skipHole(); err != nil {
			return 0, err
		}
		n, err := r.file.ReadAt(p, r.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		r.offset += int64(n)
		if !r.inLine || n == 0 {
			return n, nil
		}
		if end := bytes.IndexByte(p[:n], '\n'); end >= 0 {
			r.inLine = false
			if rest := copy(p, p[end+1:n]); rest > 0 {
				return rest, nil
			}
		}
	}
}

// skipHole moves to the next data, or to the start of a file that starts anew.
func (r *logReader) skipHole() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < r.offset {
		r.offset, r.inLine = 0, false
	}
	next, err := unix.Seek(int(r.file.Fd()), r.offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) { // no data from here on
		return nil
	}
	if err != nil {
		return err
	}
	if next > r.offset {
		r.offset, r.inLine = next, true
	}
	return nil
}

// Close ends the reader, also one that waits in Read.
func (r *logReader) Close() error {
	err := fs.ErrClosed
	r.once.Do(func() {
		close(r.closed)
		r.mu.Lock()
		defer r.mu.Unlock()
		err = r.file.Close()
	})
	return err
}
