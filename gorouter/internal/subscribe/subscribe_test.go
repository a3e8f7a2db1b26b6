package subscribe

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestRefusedIsNotForEver has a server that refuses who connects, as one with wrong settings does.
func TestRefusedIsNotForEver(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked := make(chan struct{}, 100)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(nc, "INFO {\"auth_required\":true,\"max_payload\":1024}\r\n")
			bufio.NewReader(nc).ReadString('\n') // CONNECT
			asked <- struct{}{}
			io.WriteString(nc, "-ERR 'Authorization Violation'\r\n")
			nc.Close()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), Config{
			URLs: []string{"nats://" + l.Addr().String()}, Tick: func(bool) {}, Dropped: func() { t.Error("a refusal is taken for lost messages") },
		})
	}()
	for range 4 {
		select {
		case <-asked:
		case <-time.After(20 * time.Second):
			t.Fatal("no further attempt")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
