package inmem

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"muster/cells/engine"
	"muster/cells/step"
)

// container is one container of a host. Its lock is never held together with the host's.
type container struct {
	spec      engine.Spec
	image     Image
	address   string
	createdAt time.Time

	events *history[step.Event]
	log    *history[engine.Line]

	interrupt chan struct{}  // closed by SIGTERM
	killed    chan struct{}  // closed by kill
	ended     chan struct{}  // closed when exit is set
	gone      chan struct{}  // closed by destroy
	running   sync.WaitGroup // the program, and all its processes

	mu        sync.Mutex
	status    engine.Status
	exit      engine.Exit
	files     map[string][]byte // by path in the container
	delivered map[int]chan delivery
	answered  map[int]bool
	used      engine.Usage // without what Usage counts itself
}

func newContainer(spec engine.Spec, image Image) *container {
	spec.Labels = maps.Clone(spec.Labels)
	spec.Ports = slices.Clone(spec.Ports)
	return &container{
		spec: spec, image: image, status: engine.Created, createdAt: time.Now(),
		events: newHistory[step.Event](0), log: newHistory[engine.Line](logLimit),
		interrupt: make(chan struct{}), killed: make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
		files: map[string][]byte{}, delivered: map[int]chan delivery{}, answered: map[int]bool{},
	}
}

// start runs the program. It reports false when the container was not waiting for that.
func (c *container) start() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != engine.Created {
		return false
	}
	c.status = engine.Running
	program := c.spec.Program
	if c.spec.AddressEnv != "" {
		program.LastEnv = append(slices.Clip(program.LastEnv), c.spec.AddressEnv+"="+c.address)
	}
	c.running.Go(func() {
		ctx, cancel := context.WithCancel(context.Background()) // the program outlives whoever starts it
		defer cancel()
		go func() {
			select {
			case <-c.interrupt:
				cancel()
			case <-ctx.Done():
			}
		}()
		result := step.Run(ctx, program, guest{c})
		c.end(engine.Exit{Code: result.Code, Result: &result})
	})
	return true
}

// end notes the exit; the first one counts. What still runs is killed.
func (c *container) end(e engine.Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != engine.Running {
		return
	}
	c.status, c.exit = engine.Exited, e
	c.exit.At = time.Now()
	close(c.ended)
	closeOnce(c.killed)
}

// signal delivers a signal to the program; the kernel's SIGKILL needs no co-operation.
func (c *container) signal(s syscall.Signal) {
	switch s {
	case syscall.SIGKILL:
		c.end(engine.Exit{Code: 128 + int(syscall.SIGKILL)})
	case syscall.SIGTERM:
		c.mu.Lock()
		defer c.mu.Unlock()
		closeOnce(c.interrupt)
	}
}

// destroy ends the program, waits for all of it and ends all who wait for the container.
func (c *container) destroy() {
	c.signal(syscall.SIGKILL)
	c.mu.Lock()
	closeOnce(c.killed) // also if it was never started
	c.mu.Unlock()
	c.running.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	closeOnce(c.gone)
}

// describe returns what the engine tells of the container.
func (c *container) describe() engine.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	return engine.Container{
		ID: c.spec.ID, Labels: maps.Clone(c.spec.Labels), Status: c.status, Exit: c.exit,
		Address: c.address, Ports: slices.Clone(c.spec.Ports), CreatedAt: c.createdAt,
	}
}

// delivery is an answer with the archive that came with it.
type delivery struct {
	engine.Delivery
	archive []byte
}

// deliver answers a transfer; the first answer counts.
func (c *container) deliver(n int, answer engine.Delivery) (err error) {
	d := delivery{Delivery: answer}
	if answer.Archive != "" {
		if d.archive, err = os.ReadFile(answer.Archive); err != nil {
			return fmt.Errorf("deliver to container %s: %w", c.spec.ID, err)
		}
	}
	select {
	case c.answer(n) <- d:
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered[n] = true
	return nil
}

// answer is where the answer to a transfer comes.
func (c *container) answer(n int) chan delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.delivered[n] == nil {
		c.delivered[n] = make(chan delivery, 1)
	}
	return c.delivered[n]
}

func (c *container) writeFile(path string, content []byte) error {
	if source, m, ok := engine.Mounted(c.spec.Mounts, path); ok {
		if !m.Writable {
			return fmt.Errorf("open %s of container %s: %w", path, c.spec.ID, syscall.EROFS)
		}
		return os.WriteFile(source, content, 0o644)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[path] = slices.Clone(content)
	return nil
}

func (c *container) readFile(path string) ([]byte, error) {
	if source, _, ok := engine.Mounted(c.spec.Mounts, path); ok {
		return os.ReadFile(source)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	content, ok := c.files[path]
	if !ok {
		return nil, fmt.Errorf("open %s of container %s: %w", path, c.spec.ID, fs.ErrNotExist)
	}
	return content, nil
}

// closeOnce closes ch unless it is; the container's lock is held.
func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}
