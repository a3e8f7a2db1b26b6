// Package relay is the data path of cell-proxy: it accepts connections on the listeners of containers, speaks
// TLS with the client, and passes bytes both ways until both sides have ended.
//
// The connection to the container is made as soon as the client has said hello, and before it is answered: a
// client whose container does not listen gets no handshake, and knows that nothing was sent. Only where
// clients must show a certificate, it is made after the handshake.
//
// An idle connection holds little: the side of the container waits without a buffer, the side of the client
// with a small one; buffers of copyBuffer bytes are borrowed while bytes flow.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/cells/proxy"
)

// Config bounds what the relay does.
type Config struct {
	// MaxConnections bounds the connections of one container, MaxTotal those of all.
	MaxConnections, MaxTotal int
	HandshakeTimeout         time.Duration
	ConnectTimeout           time.Duration
	// IdleTimeout ends a connection on which no byte went either way for so long.
	IdleTimeout time.Duration
	Clients     Clients
}

// retryEvery is how often listeners are tried again that could not be opened.
const retryEvery = time.Second

// Relay serves containers. Its methods may be called concurrently.
type Relay struct {
	cfg        Config
	log        *slog.Logger
	meter      *Meter
	namespaces namespaces

	mu         sync.Mutex
	containers map[string]*container
	released   bool
	open       atomic.Int64   // connections
	active     sync.WaitGroup // of accept loops and connections
}

// New returns a relay without containers.
func New(cfg Config, log *slog.Logger, meter *Meter) (*Relay, error) {
	ns, err := openNamespaces()
	if err != nil {
		return nil, err
	}
	return &Relay{cfg: cfg, log: log, meter: meter, namespaces: ns, containers: map[string]*container{}}, nil
}

// Set makes the relay do what c says for its container, and nothing else any more. On an error nothing has changed.
func (r *Relay) Set(c proxy.Container) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released {
		return errors.New("the proxy is ending")
	}
	made, err := r.prepare(c, nil)
	if err != nil {
		return err
	}
	if len(made.problems) > 0 {
		made.discard()
		return made.firstProblem()
	}
	r.commit(made)
	return nil
}

// Restore is Set for what a process did before: listeners come from it if it has passed them on, and those
// that cannot be opened are tried again later.
func (r *Relay) Restore(c proxy.Container, inherited map[string]*os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	made, err := r.prepare(c, inherited)
	if err != nil {
		made = &container{Container: c, relay: r, live: newLive(), problems: map[proxy.Socket]error{}}
		for _, l := range c.Listeners {
			made.problems[l.Socket()] = err
		}
	}
	for _, err := range made.problems {
		r.log.Error("listener not opened; it is tried again", "container", c.ID, "error", err)
	}
	r.commit(made)
}

// prepare opens what is missing. The caller holds mu.
func (r *Relay) prepare(c proxy.Container, inherited map[string]*os.File) (*container, error) {
	old := r.containers[c.ID]
	if old == nil && len(r.containers) >= proxy.MaxContainers {
		return nil, fmt.Errorf("container %s: there are %d containers, as many as there may be", c.ID, proxy.MaxContainers)
	}
	if old != nil && old.Netns != c.Netns {
		return nil, fmt.Errorf("container %s is there with network namespace %q, not %q: remove it first", c.ID, old.Netns, c.Netns)
	}
	made := &container{Container: c, relay: r, live: newLive(), listeners: map[proxy.Socket]*listener{}, problems: map[proxy.Socket]error{}}
	var before map[proxy.Socket]*listener
	if old != nil {
		made.netns, made.live, before = old.netns, old.live, old.listeners
	}
	if made.netns == nil && c.Netns != "" {
		ns, err := os.Open(c.Netns)
		if err != nil {
			return nil, fmt.Errorf("container %s: network namespace: %w", c.ID, err)
		}
		made.netns = ns
	}
	for _, l := range c.Listeners {
		made.add(l, before, inherited)
	}
	return made, nil
}

// commit puts a container in its place. The caller holds mu.
func (r *Relay) commit(c *container) {
	before := r.containers[c.ID]
	r.containers[c.ID] = c
	c.begin()
	if before != nil {
		before.closeBut(c)
	}
}

// Remove closes the listeners and connections of a container, and tells whether there was one.
func (r *Relay) Remove(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return false
	}
	delete(r.containers, id)
	c.end()
	return true
}

// List returns all containers, in the order of their IDs.
func (r *Relay) List() []proxy.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]proxy.Status, 0, len(r.containers))
	for _, c := range r.containers {
		all = append(all, c.status())
	}
	slices.SortFunc(all, func(a, b proxy.Status) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Connections returns how many there are.
func (r *Relay) Connections() int { return int(r.open.Load()) }

// Run looks after idle connections and listeners that could not be opened, until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	sweep := time.NewTicker(min(max(r.cfg.IdleTimeout/8, 10*time.Millisecond), 10*time.Second))
	defer sweep.Stop()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		select {
		case now := <-sweep.C:
			r.each(func(c *container) { c.live.expire(now.Add(-r.cfg.IdleTimeout)) })
		case <-retry.C:
			r.retry()
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Relay) each(f func(*container)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		f(c)
	}
}

func (r *Relay) retry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released {
		return
	}
	for _, c := range r.containers {
		if len(c.problems) == 0 {
			continue
		}
		if made, err := r.prepare(c.Container, nil); err == nil {
			r.commit(made)
		}
	}
}

// Release stops accepting. The sockets stay open if another process has them; connections go on.
func (r *Relay) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = true
	for _, c := range r.containers {
		c.closeBut(&container{})
	}
}

// Drain waits until all connections have ended, at most for as long as ctx lives, and then ends them.
func (r *Relay) Drain(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.active.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		r.each(func(c *container) { c.live.abort() })
		<-done
	}
	r.namespaces.own.Close()
}

// PassOn calls send with every listener and the name by which Restore knows it.
func (r *Relay) PassOn(send func(name string, l *net.TCPListener) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		for socket, l := range c.listeners {
			if err := send(c.name(socket), l.l); err != nil {
				return err
			}
		}
	}
	return nil
}
