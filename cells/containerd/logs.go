package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/guest/record"
)

const (
	// trimEvery is how often logs are held to their limit.
	trimEvery = time.Second
	// blockBytes is the size in which file systems give space back.
	blockBytes = 4096
)

// Logs reads the log of a container: what its program wrote and the notes of the cell, by time as far as
// both are there.
func (e *Engine) Logs(ctx context.Context, id engine.ID, follow bool) (engine.Log, error) {
	l := &mergedLog{ctx: ctx, follow: follow, closed: make(chan struct{})}
	for _, name := range []string{logFile, notesFile} {
		part, err := e.openLog(e.paths.file(id, name), follow)
		if err != nil {
			return nil, errors.Join(gone("log of", id, err), l.Close())
		}
		l.parts = append(l.parts, part)
	}
	return l, nil
}

// Note adds lines to the notes. Each call is one write, so that lines stay whole.
func (e *Engine) Note(_ context.Context, id engine.ID, lines ...engine.Line) error {
	file, err := os.OpenFile(e.paths.file(id, notesFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return gone("log of", id, err)
	}
	var text []byte
	for _, l := range lines {
		text = record.Append(text, record.Record{At: l.At, Source: l.Source, Stream: l.Stream, Text: string(l.Text)})
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return gone("log of", id, noSpace(err, e.cfg.StateDir))
	}
	return nil
}

// Run imports what is preloaded, holds the logs of all containers to their limit, and looks at the disk that they use,
// until ctx ends; one caller per cell runs it.
func (e *Engine) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { e.preload(ctx) })
	beside.Go(func() { e.watchDisks(ctx) })
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
		for _, name := range []string{logFile, notesFile} {
			errs = append(errs, trim(e.paths.file(id, name), e.cfg.LogLimitBytes))
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
