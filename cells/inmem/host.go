package inmem

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"muster/cells/engine"
	"muster/cells/step"
)

// Program is what a process does. It returns the exit code. It must return soon after Proc.Killed
// is closed; the process counts as ended from that moment, whatever the program returns.
type Program func(Proc) int

// Proc is what a program is given.
type Proc struct {
	Args []string // without the program
	Env  []string // NAME=value
	Dir  string
	User string
	// Signals carries every signal but SIGKILL, the last maxSignals unread ones at most. It is
	// never closed.
	Signals <-chan syscall.Signal
	// Killed is closed by SIGKILL and by Destroy.
	Killed         <-chan struct{}
	Stdout, Stderr io.Writer
	// WriteFile and ReadFile are the file system of the container.
	WriteFile func(path string, content []byte) error
	ReadFile  func(path string) ([]byte, error)
	// Use says what the process uses, for Engine.Usage: so much more processor time, and memory from now on, in
	// bytes. A program that says nothing uses none.
	Use func(cpu time.Duration, memory int64)
}

// maxSignals bounds the signals that wait for a program; more are dropped, as Unix merges them.
const maxSignals = 16

// Image is what a root file system URL stands for on a host.
type Image struct {
	// Programs by path. The key "*" stands for every path not named.
	Programs map[string]Program
	// Users that exist besides root and numbers; the key "*" allows any.
	Users []string
	// Err, when set, is what Create fails with; wrap engine.ErrImage or engine.ErrNoSpace.
	Err error
	// Takes is how long Create lasts; it ends earlier when its context does.
	Takes time.Duration
}

// Host holds images, containers and their processes. All methods may be called concurrently.
type Host struct {
	mu         sync.Mutex
	images     map[string]Image // by URL; "*" stands for every URL not named
	containers map[engine.ID]*container
	made       int // containers ever made, for addresses
	pingErr    error
}

// NewHost returns a host with images by root file system URL; "*" stands for every URL not named.
func NewHost(images map[string]Image) *Host {
	h := &Host{images: map[string]Image{}, containers: map[engine.ID]*container{}}
	for url, image := range images {
		h.images[url] = image
	}
	return h
}

// Engine returns a new life of the caller on the host.
func (h *Host) Engine() *Engine { return &Engine{host: h} }

// SetImage adds or replaces an image; containers made of it before are left alone.
func (h *Host) SetImage(url string, image Image) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.images[url] = image
}

// SetPingError makes Ping fail with err; nil lets it succeed again.
func (h *Host) SetPingError(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pingErr = err
}

// Lose removes a container behind the back of its owner, as somebody with root on the cell could.
// Its process ends as if killed. It reports whether there was one.
func (h *Host) Lose(id engine.ID) bool {
	h.mu.Lock()
	c := h.containers[id]
	delete(h.containers, id)
	h.mu.Unlock()
	if c == nil {
		return false
	}
	c.destroy()
	return true
}

// Leave puts a half-made container on the host: what a caller leaves that dies inside Create.
func (h *Host) Leave(id engine.ID, labels map[string]string, ports ...engine.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.containers[id] != nil {
		return fmt.Errorf("container %s: %w", id, engine.ErrExists)
	}
	c := newContainer(engine.Spec{ID: id, Labels: labels, Ports: ports}, Image{})
	c.status = engine.Partial
	h.containers[id] = c
	return nil
}

// image returns what a URL stands for.
func (h *Host) image(url string) (Image, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	image, ok := h.images[url]
	if !ok {
		image, ok = h.images["*"]
	}
	if !ok {
		return Image{}, fmt.Errorf("image %s is not on this host: %w", url, engine.ErrImage)
	}
	return image, image.Err
}

// program returns the program of a process, or why it cannot be started.
func (i Image) program(p step.Process) (Program, error) {
	program, ok := i.Programs[p.Path]
	if !ok {
		program, ok = i.Programs["*"]
	}
	if !ok {
		return nil, fmt.Errorf("program %q is not in the image", p.Path)
	}
	if !i.hasUser(p.User) {
		return nil, fmt.Errorf("user %q is not in the image", p.User)
	}
	return program, nil
}

func (i Image) hasUser(name string) bool {
	if name == "" || name == "root" || (name[0] >= '0' && name[0] <= '9') {
		return true
	}
	for _, user := range i.Users {
		if user == name || user == "*" {
			return true
		}
	}
	return false
}

// pause lasts d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
