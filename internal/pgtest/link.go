package pgtest

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Link is a network between a test and its database that can fall silent: as when packets are dropped on the
// way, nothing arrives, nothing is refused and no connection ends.
type Link struct {
	// URL is the database at the other end.
	URL string

	network, address string
	listener         net.Listener
	running          sync.WaitGroup

	mu     sync.Mutex
	silent chan struct{} // closed when what is open now falls silent
	open   []net.Conn
}

// NewLink returns a link to the database of a URL, until the test ends.
func NewLink(t testing.TB, database string) *Link {
	t.Helper()
	cfg, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{silent: make(chan struct{})}
	l.network, l.address = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	l.URL = (&url.URL{
		Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Host: listener.Addr().String(), Path: "/" + cfg.Database,
		RawQuery: "sslmode=disable",
	}).String()
	l.listener = listener
	l.running.Go(l.accept)
	t.Cleanup(l.Close)
	return l
}

// Close ends the link and all connections. A test calls it before it closes a pool that has silent ones:
// else the pool waits for those.
func (l *Link) Close() {
	l.listener.Close()
	l.mu.Lock()
	for _, c := range l.open {
		c.Close()
	}
	l.mu.Unlock()
	l.running.Wait()
}

// Silence makes the link swallow whatever is sent on the connections that are open, for good, and lets no new
// one get through until Heal.
func (l *Link) Silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.silent)
}

// Heal lets new connections get through again. Those that fell silent stay so, as behind a router that has
// forgotten them.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = make(chan struct{})
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := (&net.Dialer{}).DialContext(context.Background(), l.network, l.address)
		if err != nil {
			near.Close()
			continue
		}
		l.mu.Lock()
		silent := l.silent
		l.open = append(l.open, near, far)
		l.mu.Unlock()
		l.running.Go(func() { carry(far, near, silent) })
		l.running.Go(func() { carry(near, far, silent) })
	}
}

// carry copies what arrives on one connection to another, and swallows it once it is silent. An end is passed
// on only while it is not.
func carry(to io.WriteCloser, from io.Reader, silent <-chan struct{}) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-silent:
			n = 0
			if err != nil {
				return
			}
		default:
		}
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			to.Close()
			return
		}
	}
}
