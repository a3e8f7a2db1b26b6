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

// Limits of the past: at most 12.5 MiB in all.
const (
	// pastBytes is how much is kept of the end of each output of an instance.
	pastBytes = 64 << 10
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
	output map[engine.Stream][]byte
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

func (p *past) output(id lrp.InstanceGUID, stream engine.Stream) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.ended {
		if e.record.Instance == id {
			return e.output[stream], true
		}
	}
	return nil, false
}

// Ended returns the instances that ended by themselves not long ago, oldest first; Logs has the end of
// what they wrote.
func (c *Cell) Ended() []container.Record { return c.past.records(time.Now()) }

// Logs returns what an instance wrote, as engine.Engine does; of one that is gone, what is kept of it.
func (c *Cell) Logs(ctx context.Context, id lrp.InstanceGUID, stream engine.Stream, follow bool) (io.ReadCloser, error) {
	r, err := c.engine.Logs(ctx, engine.ID(id), stream, follow)
	if errors.Is(err, engine.ErrNotFound) {
		if kept, ok := c.past.output(id, stream); ok {
			return io.NopCloser(bytes.NewReader(kept)), nil
		}
	}
	return r, err
}

// remember keeps the output of a container that is about to be destroyed.
func (c *Cell) remember(ctx context.Context, r container.Record) error {
	ctx, cancel := context.WithTimeout(ctx, pastTimeout)
	defer cancel()
	e := ended{record: r, at: time.Now(), output: map[engine.Stream][]byte{}}
	for _, stream := range []engine.Stream{engine.Stdout, engine.Stderr} {
		from, err := c.engine.Logs(ctx, engine.ID(r.Instance), stream, false)
		if err != nil {
			return err
		}
		e.output[stream], err = lastBytes(from, pastBytes)
		from.Close()
		if err != nil {
			return err
		}
	}
	c.past.keep(e)
	return nil
}

// lastBytes returns the end of what is read: at most n bytes, from the start of a line if there is one.
func lastBytes(from io.Reader, n int) ([]byte, error) {
	var kept []byte
	cut := false
	part := make([]byte, 32<<10)
	for {
		got, err := from.Read(part)
		kept = append(kept, part[:got]...)
		if over := len(kept) - n; over > 0 {
			// The byte before what is kept tells whether that begins a line.
			cut = kept[over-1] != '\n'
			kept = append(kept[:0], kept[over:]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if end := bytes.IndexByte(kept, '\n'); cut && end >= 0 {
		kept = kept[end+1:]
	}
	return slices.Clip(kept), nil
}
