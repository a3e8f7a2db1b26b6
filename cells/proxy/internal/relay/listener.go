package relay

import (
	"crypto/tls"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"muster/cells/proxy"
)

// acceptPause is how long nothing is accepted after the process lacked something, such as file descriptors.
const acceptPause = 20 * time.Millisecond

// listener is an open socket, and what to do with who connects to it.
type listener struct {
	l     *net.TCPListener
	relay *Relay
	job   atomic.Pointer[job]
}

// job is what a listener is there for, as of one Set.
type job struct {
	proxy.Listener
	container *container
	configs   *configs
	hello     *tls.Config // asks for the rest once the client has said hello
}

func newJob(spec proxy.Listener, c *container) *job {
	j := &job{Listener: spec, container: c, configs: &configs{
		certificate: spec.Certificate, protocols: spec.Protocols, verify: spec.VerifyClients, clients: c.relay.cfg.Clients,
	}}
	j.hello = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: j.greet}
	return j
}

func same(a, b proxy.Listener) bool {
	return a.Socket() == b.Socket() && a.Target == b.Target && a.Certificate == b.Certificate &&
		a.VerifyClients == b.VerifyClients && slices.Equal(a.Protocols, b.Protocols)
}

// accept takes connections until the socket is closed.
func (l *listener) accept() {
	for {
		c, err := l.l.AcceptTCP()
		if err == nil {
			l.admit(c)
			continue
		}
		if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() && !temporary(err) {
			return
		}
		l.relay.meter.AcceptErrors.Inc()
		l.relay.log.Error("connection not accepted", "address", l.l.Addr().String(), "error", err)
		time.Sleep(acceptPause)
	}
}

// admit begins a connection, unless there are as many as there may be.
func (l *listener) admit(raw *net.TCPConn) {
	r, j := l.relay, l.job.Load()
	c := &conn{TCPConn: raw, job: j, relay: r}
	c.used.Store(time.Now().UnixNano())
	if r.open.Add(1) > int64(r.cfg.MaxTotal) || !j.container.live.add(c, r.cfg.MaxConnections) {
		r.open.Add(-1)
		r.meter.Refused.Inc()
		raw.Close()
		return
	}
	r.meter.Accepted.Inc()
	r.active.Go(func() {
		defer r.open.Add(-1)
		defer j.container.live.remove(c)
		c.serve()
	})
}
