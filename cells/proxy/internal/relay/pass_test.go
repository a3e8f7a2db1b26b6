package relay

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestOnlyTheRightInstanceIsBelieved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	address := w.front(guid, app(t, echo), nil)
	if got := say(t, w.dial(address, w.client(guid)), "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
	var name x509.HostnameError
	if _, err := tls.Dial("tcp", address, w.client("another")); !errors.As(err, &name) {
		t.Errorf("another instance is believed: %v", err)
	}
}

func TestManyBytesBothWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	c := w.dial(w.front(guid, app(t, echo), nil), w.client(guid))
	sent := make([]byte, 8<<20+12345)
	_, _ = rand.Read(sent)
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%50000) // records of all sizes
			if _, err := c.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, error %v", len(got), len(sent), err)
	}
}

// A side that ends its sending goes on receiving, whichever it is.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	whole := app(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		_, _ = c.Write(append(all, " answered"...))
	})
	c := w.dial(w.front("client-first", whole, nil), w.client("client-first"))
	_, err := io.WriteString(c, "asked")
	must(t, err)
	must(t, c.CloseWrite())
	if got, err := io.ReadAll(c); string(got) != "asked answered" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	heard := make(chan string, 1)
	first := app(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "done")
		_ = c.CloseWrite()
		all, _ := io.ReadAll(c)
		heard <- string(all)
	})
	c = w.dial(w.front("app-first", first, nil), w.client("app-first"))
	if got, err := io.ReadAll(c); string(got) != "done" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, err = io.WriteString(c, "late words")
	must(t, err)
	must(t, c.CloseWrite())
	if got := <-heard; got != "late words" {
		t.Errorf("the app heard %q", got)
	}
	until(t, "let go of", func() bool { return w.relay.Connections() == 0 })
}

// What is cut off must not look like an end.
func TestACutIsNoEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	ended := make(chan error, 1)
	listening := app(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	address := w.front("cut-client", listening, nil)
	raw, err := net.Dial("tcp", address)
	must(t, err)
	c := tls.Client(raw, w.client("cut-client"))
	_, err = io.WriteString(c, "half a requ")
	must(t, err)
	raw.Close() // without a word of TLS
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the app sees %v, want a reset", err)
	}
	cut := app(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half an answ")
		_, _ = c.Read(make([]byte, 1)) // until it has arrived
		_ = c.SetLinger(0)
	})
	c = w.dial(w.front("cut-app", cut, nil), w.client("cut-app"))
	_, err = io.ReadFull(c, make([]byte, 12))
	must(t, err)
	_, err = io.WriteString(c, "x")
	must(t, err)
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the client sees %v, want a reset", err)
	}
}

// A container that does not listen makes no handshake, so nothing was sent and others can be asked.
func TestNobodyListensInTheContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	address := w.front(guid, freeAddress(t), nil)
	begun := time.Now()
	_, err := tls.Dial("tcp", address, w.client(guid))
	var alert tls.AlertError
	if err == nil || errors.As(err, &alert) {
		t.Errorf("got %v, want a closed connection", err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.MaxConnections, cfg.MaxTotal = 2, 3
	w := newWorld(t, cfg)
	target := app(t, echo)
	one, two := w.front("one", target, nil), w.front("two", target, nil)
	refused := func(address, id string) bool {
		c, err := tls.Dial("tcp", address, w.client(id))
		if err == nil {
			c.Close()
		}
		return err != nil
	}
	a, b := w.dial(one, w.client("one")), w.dial(one, w.client("one"))
	if !refused(one, "one") {
		t.Error("a third connection of a container that may have two")
	}
	c := w.dial(two, w.client("two"))
	if !refused(two, "two") {
		t.Error("a fourth connection of all that may have three")
	}
	for _, c := range []*tls.Conn{a, b, c} {
		say(t, c, "still here")
	}
	c.Close()
	until(t, "room for another", func() bool { return w.relay.Connections() == 2 })
	say(t, w.dial(two, w.client("two")), "let in")
}

func TestIdleAndSilentClientsAreEnded(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.HandshakeTimeout, cfg.IdleTimeout = 300*time.Millisecond, 300*time.Millisecond
	w := newWorld(t, cfg)
	address := w.front(guid, app(t, echo), nil)
	c := w.dial(address, w.client(guid))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an idle client: %v", err)
	}
	until(t, "ended", func() bool { return w.relay.Connections() == 0 })
	// Who says nothing is not waited for.
	silent, err := net.Dial("tcp", address)
	must(t, err)
	defer silent.Close()
	must(t, silent.SetDeadline(time.Now().Add(10*time.Second)))
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent client: %v", err)
	}
}

// A connection that is used is not idle, whichever way its bytes go.
func TestBusyIsNotIdle(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.IdleTimeout = 1500 * time.Millisecond
	w := newWorld(t, cfg)
	c := w.dial(w.front(guid, app(t, func(c *net.TCPConn) {
		for range 20 {
			<-time.After(100 * time.Millisecond)
			if _, err := c.Write([]byte{1}); err != nil {
				return
			}
		}
	}), nil), w.client(guid))
	if got, err := io.ReadAll(c); len(got) != 20 || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
