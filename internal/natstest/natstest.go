// Package natstest gives a test a NATS server of its own, in the test's process.
package natstest

import (
	"testing"

	"muster/internal/natsserver"
)

// Start starts a server without TLS and returns its URL; the test's end stops it.
func Start(t testing.TB) string {
	t.Helper()
	url, stop, err := natsserver.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return url
}
