package relay

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"muster/cells/proxy"
)

// container is what the relay does for one container, as of one Set. Its fields do not change; what lives on
// from one Set to the next is in live and in the listeners.
type container struct {
	proxy.Container
	relay     *Relay
	netns     *os.File // nil: the relay's own
	live      *live
	listeners map[proxy.Socket]*listener
	fresh     []*listener // opened by this Set
	problems  map[proxy.Socket]error
}

// live are the connections of a container.
type live struct {
	mu    sync.Mutex
	ended bool
	conns map[*conn]struct{}
}

func newLive() *live { return &live{conns: map[*conn]struct{}{}} }

// name is what a listener is called when it is passed on.
func (c *container) name(s proxy.Socket) string {
	where := "cell"
	if s.Inside {
		where = "inside"
	}
	return "listen " + c.ID + " " + where + " " + s.Address
}

// add takes over a listener of before, of another process, or opens one.
func (c *container) add(spec proxy.Listener, before map[proxy.Socket]*listener, inherited map[string]*os.File) {
	socket := spec.Socket()
	if l := before[socket]; l != nil {
		c.listeners[socket] = l
		return
	}
	var l *net.TCPListener
	var err error
	if f := inherited[c.name(socket)]; f != nil {
		var any net.Listener
		if any, err = net.FileListener(f); err == nil {
			l = any.(*net.TCPListener)
		}
	} else {
		l, err = c.listen(socket)
	}
	if err != nil {
		c.problems[socket] = fmt.Errorf("container %s: %w", c.ID, err)
		return
	}
	made := &listener{l: l, relay: c.relay}
	c.listeners[socket] = made
	c.fresh = append(c.fresh, made)
}

func (c *container) listen(s proxy.Socket) (*net.TCPListener, error) {
	ns := c.netns
	if !s.Inside {
		ns = nil
	}
	var l *net.TCPListener
	err := c.relay.namespaces.inside(ns, func() error {
		address, err := net.ResolveTCPAddr("tcp", s.Address)
		if err == nil {
			l, err = net.ListenTCP("tcp", address)
		}
		return err
	})
	return l, err
}

func (c *container) firstProblem() error {
	for _, l := range c.Listeners {
		if err := c.problems[l.Socket()]; err != nil {
			return err
		}
	}
	return nil
}

// begin makes the listeners do what the container says from now on.
func (c *container) begin() {
	for _, spec := range c.Listeners {
		l := c.listeners[spec.Socket()]
		if l == nil {
			continue
		}
		if now := l.job.Load(); now == nil || now.container.netns != c.netns || !same(now.Listener, spec) {
			l.job.Store(newJob(spec, c))
		}
	}
	for _, l := range c.fresh {
		c.relay.active.Go(l.accept)
	}
	c.fresh = nil
}

// discard undoes a Set that does not come into force.
func (c *container) discard() {
	for _, l := range c.fresh {
		l.l.Close()
	}
	if before := c.relay.containers[c.ID]; c.netns != nil && (before == nil || before.netns != c.netns) {
		c.netns.Close()
	}
}

// closeBut closes the listeners that the next Set does not have.
func (c *container) closeBut(next *container) {
	for s, l := range c.listeners {
		if next.listeners[s] != l {
			l.l.Close()
		}
	}
}

// end closes everything.
func (c *container) end() {
	for _, l := range c.listeners {
		l.l.Close()
	}
	c.live.abort()
	if c.netns != nil {
		c.netns.Close()
	}
}

func (c *container) status() proxy.Status {
	s := proxy.Status{Container: c.Container}
	c.live.mu.Lock()
	s.Connections = len(c.live.conns)
	c.live.mu.Unlock()
	for socket, err := range c.problems {
		if s.Problems == nil {
			s.Problems = map[string]string{}
		}
		s.Problems[socket.Address] = err.Error()
	}
	return s
}

// add counts a connection in, unless there are as many as there may be or the container has ended.
func (l *live) add(c *conn, limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.conns) >= limit {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *live) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// expire ends connections that have been idle since then.
func (l *live) expire(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.used.Load() < since.UnixNano() {
			c.abort()
		}
	}
}

// abort ends all connections, and lets none begin.
func (l *live) abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for c := range l.conns {
		c.abort()
	}
}
