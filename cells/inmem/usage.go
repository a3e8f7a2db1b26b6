package inmem

import (
	"context"
	"time"

	"muster/cells/engine"
)

// Usage returns what containers use: of processor and memory what their programs said (Proc.Use), the rest as
// it is.
func (e *Engine) Usage(_ context.Context, ids ...engine.ID) (map[engine.ID]engine.Usage, error) {
	all := make(map[engine.ID]engine.Usage, len(ids))
	for _, id := range ids {
		if c := e.find(id); c != nil && c.describe().Status != engine.Partial {
			all[id] = c.usage()
		}
	}
	return all, nil
}

func (c *container) usage() engine.Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.used
	u.DiskAt = time.Now()
	for _, content := range c.files {
		u.DiskBytes += int64(len(content))
	}
	return u
}

// began counts a process of the container in, left out; what a process holds goes with it.
func (c *container) began() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.Pids++
}

func (p *process) left(c *container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.Pids--
	c.used.MemoryBytes -= p.memory
	p.memory = 0
}

// use is Proc.Use.
func (p *process) use(c *container, cpu time.Duration, memory int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.CPU += cpu
	c.used.MemoryBytes += memory - p.memory
	p.memory = memory
}

// logged counts a line of the log.
func (c *container) logged(l engine.Line) {
	c.log.add(l)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.LogBytes += int64(len(l.Text))
}
