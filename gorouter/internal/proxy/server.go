package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"muster/gorouter/http1"
	"muster/gorouter/internal/accesslog"
	"muster/gorouter/internal/meter"
	"muster/gorouter/routes"
)

// Table is the routing table, linked to what the proxy keeps for pools and endpoints.
type Table = routes.Table[*Turn, *Backend]

// Endpoint is a registered endpoint.
type Endpoint = routes.Endpoint[*Backend]

// Pool is a route's endpoints.
type Pool = routes.Pool[*Turn, *Backend]

// Turn is whose turn it is in a pool. The zero Turn begins with the first endpoint.
type Turn struct{ next atomic.Uint32 }

// NewTurn returns a turn that begins anywhere.
func NewTurn(start uint32) *Turn {
	t := &Turn{}
	t.next.Store(start)
	return t
}

// Config is what the proxy must know.
type Config struct {
	Limits http1.Limits
	// MaxAttempts bounds the endpoints one request is sent to.
	MaxAttempts int
	// MaxInFlight bounds the requests one endpoint has in hand; 0: any number.
	MaxInFlight int
	// MaxIdle bounds the unused connections kept for one endpoint; 0: none are kept.
	MaxIdle     int
	FailedFor   time.Duration
	DialTimeout time.Duration
	TLSTimeout  time.Duration
	// RequestTimeout covers a request from its head to the end of the response; 0: none.
	RequestTimeout time.Duration
	HeadTimeout    time.Duration
	ClientIdle     time.Duration
	BackendIdle    time.Duration
	// EmptyIs503 tells a route without endpoints from an unknown one.
	EmptyIs503 bool
	// ForceHTTPS and SanitizeProto decide about X-Forwarded-Proto.
	ForceHTTPS, SanitizeProto bool
	// BackendCAs are trusted for endpoints with TLS, beside the system's.
	BackendCAs *x509.CertPool
	// BackendCert returns the certificate of the router, for endpoints with TLS that ask for one; nil: it has none.
	BackendCert func() (*tls.Certificate, error)
}

// Server serves clients with the routes of the table it was last given.
type Server struct {
	cfg      Config
	log      *slog.Logger
	access   *accesslog.Log
	meter    *meter.Meter
	table    atomic.Pointer[Table]
	backends backendList

	mu       sync.Mutex
	conns    []*conn
	draining atomic.Bool
	active   sync.WaitGroup
}

// New returns a server.
func New(cfg Config, log *slog.Logger, access *accesslog.Log, m *meter.Meter) *Server {
	s := &Server{cfg: cfg, log: log, access: access, meter: m}
	s.table.Store(routes.New[*Turn, *Backend](routes.Rules{}))
	return s
}

// SetTable makes requests that begin from now on use another table.
func (s *Server) SetTable(t *Table) { s.table.Store(t) }

// Connections returns how many clients are connected.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve accepts connections until ctx ends. Then it stops accepting, closes idle connections, lets
// requests in hand finish for up to drain, closes what is left, and returns when all are closed.
func (s *Server) Serve(ctx context.Context, l net.Listener, drain time.Duration) error {
	sweep, stop := context.WithCancel(context.WithoutCancel(ctx))
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		s.sweep(sweep)
	}()
	defer func() { stop(); <-swept }()
	accepted := make(chan error, 1)
	go func() { accepted <- s.accept(l) }()
	var err error
	select {
	case err = <-accepted:
	case <-ctx.Done():
		l.Close()
		<-accepted
	}
	s.drain(drain)
	return err
}

func (s *Server) accept(l net.Listener) error {
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors, most likely: connections will end.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Error("accept a connection", "error", err, "retry_in", pause)
			t := time.NewTimer(pause)
			<-t.C
			continue
		}
		pause = 0
		tcp, ok := nc.(*net.TCPConn)
		if !ok {
			nc.Close()
			return fmt.Errorf("listener %s: want TCP", l.Addr())
		}
		c := newConn(s, tcp)
		s.add(c)
		go func() {
			defer s.active.Done()
			defer s.remove(c)
			c.serve()
		}()
	}
}

func (s *Server) add(c *conn) {
	s.active.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.index = len(s.conns)
	s.conns = append(s.conns, c)
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.conns[len(s.conns)-1]
	s.conns[c.index], last.index = last, c.index
	s.conns[len(s.conns)-1] = nil
	s.conns = s.conns[:len(s.conns)-1]
}

// drain waits for requests in hand, and then closes what is left.
func (s *Server) drain(limit time.Duration) {
	s.draining.Store(true)
	done := make(chan struct{})
	go func() { s.active.Wait(); close(done) }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		s.mu.Lock()
		s.log.Warn("drain time is over: closing connections", "connections", len(s.conns))
		for _, c := range s.conns {
			c.abort()
		}
		s.mu.Unlock()
		<-done
	}
	s.backends.closeIdle()
}

const (
	// sweepEvery is how exact time limits are, and how long a request runs before its client is watched.
	sweepEvery = 50 * time.Millisecond
	// idleEvery is how often unused backend connections are looked at.
	idleEvery = time.Second
)

// sweep ends what has taken too long.
func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var idleAt time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			draining := s.draining.Load()
			for _, c := range s.conns {
				c.sweep(now.UnixNano(), draining)
			}
			s.mu.Unlock()
			if now.Sub(idleAt) >= idleEvery {
				idleAt = now
				s.backends.expire(now.Add(-s.cfg.BackendIdle))
			}
		}
	}
}
