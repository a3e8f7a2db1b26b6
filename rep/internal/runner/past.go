package runner

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
)

// Limits of the past: at most 12.5 MiB of text in all.
const (
	// pastBytes is how much is kept of the end of the log of an instance.
	pastBytes = 128 << 10
	// pastPerProcess and pastInstances bound the instances of one process and of all: the oldest go.
	pastPerProcess = 3
	pastInstances  = 100
	// pastTime is how long an instance is kept.
	pastTime = 10 * time.Minute
	// pastTimeout bounds the reading of the output of one instance.
	pastTimeout = 5 * time.Second
)

// past keeps the end of what instances wrote that ended by themselves: their containers are destroyed
// at once, and their output is where the reason is. It is a courtesy to whoever looks soon, and does
// not outlive the rep.
type past struct {
	mu    sync.Mutex
	ended []ended // by time
}

type ended struct {
	record container.Record
	at     time.Time
	log    []engine.Line
}

// keep adds an instance.
func (p *past) keep(e ended) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = append(p.ended, e)
	of := 0
	for n := len(p.ended) - 1; n >= 0; n-- {
		if p.ended[n].record.Key.Process != e.record.Key.Process {
			continue
		}
		if of++; of > pastPerProcess {
			p.ended = slices.Delete(p.ended, n, n+1)
		}
	}
	p.ended = slices.Delete(p.ended, 0, max(0, len(p.ended)-pastInstances))
}

// expire drops what is too old.
func (p *past) expire(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = slices.DeleteFunc(p.ended, func(e ended) bool { return now.Sub(e.at) >= pastTime })
}

func (p *past) records(now time.Time) []container.Record {
	p.expire(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []container.Record
	for _, e := range p.ended {
		all = append(all, e.record)
	}
	return all
}

func (p *past) log(id lrp.InstanceGUID) ([]engine.Line, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.ended {
		if e.record.Instance == id {
			return e.log, true
		}
	}
	return nil, false
}

// Ended returns the instances that ended by themselves not long ago, oldest first; Logs has the end of
// their logs.
func (c *Cell) Ended() []container.Record { return c.past.records(time.Now()) }

// Logs returns the log of an instance, as engine.Engine does; of one that is gone, what is kept of it.
func (c *Cell) Logs(ctx context.Context, id lrp.InstanceGUID, follow bool) (engine.Log, error) {
	r, err := c.engine.Logs(ctx, engine.ID(id), follow)
	if errors.Is(err, engine.ErrNotFound) {
		if kept, ok := c.past.log(id); ok {
			return &keptLog{rest: kept}, nil
		}
	}
	return r, err
}

// keptLog is the log of an instance that is gone.
type keptLog struct{ rest []engine.Line }

func (l *keptLog) Next() (engine.Line, error) {
	if len(l.rest) == 0 {
		return engine.Line{}, io.EOF
	}
	first := l.rest[0]
	l.rest = l.rest[1:]
	return first, nil
}

func (l *keptLog) Close() error { return nil }

// remember keeps the log of a container that is about to be destroyed.
func (c *Cell) remember(ctx context.Context, r container.Record) error {
	ctx, cancel := context.WithTimeout(ctx, pastTimeout)
	defer cancel()
	log, err := c.engine.Logs(ctx, engine.ID(r.Instance), false)
	if err != nil {
		return err
	}
	defer log.Close()
	kept, err := lastLines(log, pastBytes)
	if err != nil {
		return err
	}
	c.past.keep(ended{record: r, at: time.Now(), log: kept})
	return nil
}

// lastLines returns the end of a log: lines of at most n bytes in all.
func lastLines(log engine.Log, n int) ([]engine.Line, error) {
	var kept []engine.Line
	size := 0
	for {
		line, err := log.Next()
		if errors.Is(err, io.EOF) {
			return slices.Clone(kept), nil
		}
		if err != nil {
			return nil, err
		}
		line.Text = bytes.Clone(line.Text)
		kept = append(kept, line)
		for size += len(line.Text); size > n && len(kept) > 1; kept = kept[1:] {
			size -= len(kept[0].Text)
		}
	}
}
