package relay

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
)

// ways are the same bytes with and without the relay: to the app itself, and to the relay in front of it.
func ways(b *testing.B, serve func(*net.TCPConn), run func(b *testing.B, dial func() (net.Conn, error))) {
	w := newWorld(b, testConfig())
	target := app(b, serve)
	address := w.front(guid, target, nil)
	cfg := w.client(guid)
	b.Run("plain", func(b *testing.B) {
		run(b, func() (net.Conn, error) { return net.Dial("tcp", target) })
	})
	b.Run("relay", func(b *testing.B) {
		run(b, func() (net.Conn, error) { return tls.Dial("tcp", address, cfg) })
	})
}

// BenchmarkConnections makes a connection, says a word, hears it back, and ends; two clients do so at once.
// The client's half of the handshake is part of it.
func BenchmarkConnections(b *testing.B) {
	ways(b, echo, func(b *testing.B, dial func() (net.Conn, error)) {
		var clients sync.WaitGroup
		work := make(chan struct{})
		for range 2 {
			clients.Go(func() {
				for range work {
					c, err := dial()
					if err != nil {
						b.Error(err)
						continue
					}
					say(b, c, "x")
					c.Close()
				}
			})
		}
		for b.Loop() {
			work <- struct{}{}
		}
		close(work)
		clients.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
	})
}

// BenchmarkRoundTrips is a connection that is there, as routers keep them: a request of 500 bytes and its answer.
func BenchmarkRoundTrips(b *testing.B) {
	ways(b, echo, func(b *testing.B, dial func() (net.Conn, error)) {
		c, err := dial()
		must(b, err)
		defer c.Close()
		request := string(make([]byte, 500))
		for b.Loop() {
			say(b, c, request)
		}
	})
}

// BenchmarkDownload is the throughput from the app to a client, with the client's decryption.
func BenchmarkDownload(b *testing.B) {
	block := make([]byte, 256<<10)
	serve := func(c *net.TCPConn) {
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}
	ways(b, serve, func(b *testing.B, dial func() (net.Conn, error)) {
		c, err := dial()
		must(b, err)
		defer c.Close()
		b.SetBytes(1 << 20)
		for b.Loop() {
			_, err := io.CopyN(io.Discard, c, 1<<20)
			must(b, err)
		}
	})
}

// BenchmarkUpload is the throughput from a client to the app.
func BenchmarkUpload(b *testing.B) {
	block := make([]byte, 1<<20)
	serve := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, onlyReader{c}) }
	ways(b, serve, func(b *testing.B, dial func() (net.Conn, error)) {
		c, err := dial()
		must(b, err)
		defer c.Close()
		b.SetBytes(1 << 20)
		for b.Loop() {
			_, err := c.Write(block)
			must(b, err)
		}
	})
}

// onlyReader keeps io.Copy from asking the kernel to throw the bytes away.
type onlyReader struct{ io.Reader }
