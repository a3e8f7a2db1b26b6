package inmem

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"

	"muster/cells/engine"
	"muster/cells/firewall"
	"muster/cells/step"
)

// Engine is one life of a caller on a host. All methods may be called concurrently.
type Engine struct{ host *Host }

var _ engine.Engine = (*Engine)(nil)

// Create makes a container of an image of the host.
func (e *Engine) Create(ctx context.Context, spec engine.Spec) (engine.Container, error) {
	if e.find(spec.ID) != nil {
		return engine.Container{}, fmt.Errorf("container %s: %w", spec.ID, engine.ErrExists)
	}
	if err := engine.CheckMounts(spec.Mounts); err != nil {
		return engine.Container{}, fmt.Errorf("container %s: %w", spec.ID, err)
	}
	if err := firewall.Check(spec.Egress); err != nil {
		return engine.Container{}, fmt.Errorf("container %s: %w", spec.ID, err)
	}
	for _, m := range spec.Mounts {
		if _, err := os.Stat(m.Source); err != nil {
			return engine.Container{}, fmt.Errorf("container %s: mount %s: %w", spec.ID, m.Target, err)
		}
	}
	image, err := e.host.image(spec.RootFS)
	if err != nil {
		return engine.Container{}, fmt.Errorf("create container %s: %w", spec.ID, err)
	}
	if err := pause(ctx, image.Takes); err != nil {
		return engine.Container{}, fmt.Errorf("create container %s: %w", spec.ID, err)
	}
	c := newContainer(spec, image)
	if err := e.host.add(c); err != nil {
		return engine.Container{}, err
	}
	return c.describe(), nil
}

// add puts a container on the host and gives it an address.
func (h *Host) add(c *container) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.containers[c.spec.ID] != nil {
		return fmt.Errorf("container %s: %w", c.spec.ID, engine.ErrExists)
	}
	h.made++
	c.address = fmt.Sprintf("10.%d.%d.%d", h.made>>16&0xff, h.made>>8&0xff, h.made&0xff)
	h.containers[c.spec.ID] = c
	return nil
}

// Start runs the program of a created container; see step.Run.
func (e *Engine) Start(_ context.Context, id engine.ID) error {
	c := e.find(id)
	if c == nil {
		return notFound("start", id)
	}
	if !c.start() {
		return fmt.Errorf("start container %s: it is %s, not %s", id, c.describe().Status, engine.Created)
	}
	return nil
}

// Wait returns how the process ended, once it has.
func (e *Engine) Wait(ctx context.Context, id engine.ID) (engine.Exit, error) {
	c := e.find(id)
	if c == nil {
		return engine.Exit{}, notFound("wait for", id)
	}
	select {
	case <-c.ended:
		return c.describe().Exit, nil
	case <-c.gone:
		return engine.Exit{}, notFound("wait for", id)
	case <-ctx.Done():
		return engine.Exit{}, fmt.Errorf("wait for container %s: %w", id, ctx.Err())
	}
}

// Kill signals the process.
func (e *Engine) Kill(_ context.Context, id engine.ID, signal syscall.Signal) error {
	c := e.find(id)
	if c == nil {
		return notFound("signal", id)
	}
	c.signal(signal)
	return nil
}

// Destroy ends the process and removes the container. It returns when the program has returned.
func (e *Engine) Destroy(_ context.Context, id engine.ID) error {
	e.host.Lose(id)
	return nil
}

// List returns all containers, ordered by ID.
func (e *Engine) List(context.Context) ([]engine.Container, error) {
	e.host.mu.Lock()
	found := make([]*container, 0, len(e.host.containers))
	for _, c := range e.host.containers {
		found = append(found, c)
	}
	e.host.mu.Unlock()
	all := make([]engine.Container, 0, len(found))
	for _, c := range found {
		all = append(all, c.describe())
	}
	slices.SortFunc(all, func(a, b engine.Container) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// Events returns what the program has told.
func (e *Engine) Events(ctx context.Context, id engine.ID, n int) ([]step.Event, error) {
	c := e.find(id)
	if c == nil {
		return nil, notFound("hear", id)
	}
	for {
		told, more := c.events.from(n)
		if len(told) > 0 {
			return told, nil
		}
		select {
		case <-more:
		case <-c.gone:
			return nil, notFound("hear", id)
		case <-ctx.Done():
			return nil, fmt.Errorf("hear container %s: %w", id, ctx.Err())
		}
	}
}

// Deliver answers a transfer.
func (e *Engine) Deliver(_ context.Context, id engine.ID, n int, answer engine.Delivery) error {
	c := e.find(id)
	if c == nil {
		return notFound("deliver to", id)
	}
	return c.deliver(n, answer)
}

// Open opens a file that a program has written.
func (e *Engine) Open(_ context.Context, id engine.ID, path string) (engine.File, error) {
	c := e.find(id)
	if c == nil {
		return nil, notFound("open a file of", id)
	}
	content, err := c.readFile(path)
	if err != nil {
		return nil, err
	}
	return file{bytes.NewReader(content)}, nil
}

// file is a file of a container that was opened.
type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

// Answered tells whether a transfer was answered.
func (e *Engine) Answered(_ context.Context, id engine.ID, n int) (bool, error) {
	c := e.find(id)
	if c == nil {
		return false, notFound("inbox of", id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered[n], nil
}

// Logs reads the log.
func (e *Engine) Logs(ctx context.Context, id engine.ID, follow bool) (engine.Log, error) {
	c := e.find(id)
	if c == nil {
		return nil, notFound("read the log of", id)
	}
	return &logReader{container: c, follow: follow, ctx: ctx, closed: make(chan struct{})}, nil
}

// Note adds lines to the log.
func (e *Engine) Note(_ context.Context, id engine.ID, lines ...engine.Line) error {
	c := e.find(id)
	if c == nil {
		return notFound("write the log of", id)
	}
	for _, l := range lines {
		c.logged(l)
	}
	return nil
}

// Ping tells whether the host answers; see Host.SetPingError.
func (e *Engine) Ping(context.Context) error {
	e.host.mu.Lock()
	defer e.host.mu.Unlock()
	return e.host.pingErr
}

func (e *Engine) find(id engine.ID) *container {
	e.host.mu.Lock()
	defer e.host.mu.Unlock()
	return e.host.containers[id]
}

func notFound(doing string, id engine.ID) error {
	return fmt.Errorf("%s container %s: %w", doing, id, engine.ErrNotFound)
}
