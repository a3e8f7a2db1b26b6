package rep_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"muster/bbs"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// startBBS runs a real BBS on a database of its own until the test ends, and returns its address.
func startBBS(t *testing.T, files identity.Files) string {
	t.Helper()
	cfg := bbs.Defaults()
	cfg.DebugAddress = ""
	cfg.TLS = files
	cfg.ListenAddress = "127.0.0.1:0"
	cfg.Encryption = bbs.Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	cfg.DatabaseURL = daemon.Secret(pgtest.Database(t, nil))
	cfg.DatabaseConnections = 8
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan net.Addr, 1)
	cfg.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- bbs.Run(ctx, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), cfg)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("BBS ended: %v", err)
		}
	})
	select {
	case a := <-ready:
		return a.String()
	case err := <-done:
		done <- err
		t.Fatalf("BBS did not start: %v", err)
	case <-time.After(patience):
		t.Fatal("BBS did not start")
	}
	return ""
}
