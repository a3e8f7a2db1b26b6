// Package accesslog writes one line for each request. A line is formatted into a buffer in memory and
// written by one goroutine; when the disk cannot keep up, lines are dropped and counted: a request never waits for its log.
package accesslog

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the log.
const (
	// ShardBytes bounds what waits to be written, for each shard.
	ShardBytes = 1 << 20
	shardCount = 8
	// FlushEvery is how long a line may wait so that others are written with it.
	FlushEvery = 20 * time.Millisecond
)

// Log takes lines from any number of goroutines.
type Log struct {
	out     io.Writer
	log     *slog.Logger
	shards  [shardCount]Shard
	next    atomic.Uint32
	wake    chan struct{}
	dropped atomic.Uint64
	spare   []byte
	broken  bool // the last write failed, and was told of
}

// Shard is where some connections leave their lines.
type Shard struct {
	l   *Log
	mu  sync.Mutex
	buf []byte
	_   [64]byte
}

// New returns a log that writes to out while Run runs. A nil out throws lines away.
func New(out io.Writer, log *slog.Logger) *Log {
	l := &Log{out: out, log: log, wake: make(chan struct{}, 1)}
	for i := range l.shards {
		l.shards[i].l = l
	}
	return l
}

// Shard returns one of the shards, in turn; nil when lines are thrown away.
func (l *Log) Shard() *Shard {
	if l.out == nil {
		return nil
	}
	return &l.shards[l.next.Add(1)%shardCount]
}

// Dropped returns how many lines were dropped.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Add hands over a line; it does not keep it.
func (s *Shard) Add(line []byte) {
	s.mu.Lock()
	first := len(s.buf) == 0
	fits := len(s.buf)+len(line) <= ShardBytes
	if fits {
		s.buf = append(s.buf, line...)
	}
	s.mu.Unlock()
	if !fits {
		s.l.dropped.Add(1)
		return
	}
	if first {
		select {
		case s.l.wake <- struct{}{}:
		default:
		}
	}
}

// Run writes until ctx ends, and then what is left.
func (l *Log) Run(ctx context.Context) error {
	pause := time.NewTimer(FlushEvery)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			return nil
		case <-l.wake:
		}
		pause.Reset(FlushEvery)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		l.flush()
	}
}

func (l *Log) flush() {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		s.buf, l.spare = l.spare[:0], s.buf
		s.mu.Unlock()
		if l.out == nil || len(l.spare) == 0 {
			continue
		}
		_, err := l.out.Write(l.spare)
		if err != nil && !l.broken {
			l.log.Error("access log cannot be written: lines are lost until it can", "error", err)
		}
		l.broken = err != nil
	}
}
