// Package natsserver runs a NATS server inside the calling process: for the one-machine stack and for
// tests. A larger installation has its own.
package natsserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// readyTime is how long a server may take to accept connections.
const readyTime = 10 * time.Second

// Start starts a server on host:port (port 0: any free one), with mutual TLS unless tlsConfig is
// nil, and returns its URL and what stops it.
func Start(address string, tlsConfig *tls.Config) (url string, stop func(), err error) {
	host, port, err := splitAddress(address)
	if err != nil {
		return "", nil, err
	}
	opts := &server.Options{
		Host: host, Port: port, NoSigs: true, NoLog: true, MaxPayload: 1 << 20,
		TLSConfig: tlsConfig, TLSVerify: tlsConfig != nil, TLSTimeout: 5,
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return "", nil, fmt.Errorf("make NATS server: %w", err)
	}
	// The listener is opened in Start, which only logs a failure: find it out first.
	probe, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, fmt.Errorf("NATS server: %w", err)
	}
	if port == 0 {
		opts.Port = server.RANDOM_PORT
		if s, err = server.NewServer(opts); err != nil {
			return "", nil, fmt.Errorf("make NATS server: %w", err)
		}
	}
	probe.Close()
	go s.Start()
	if !s.ReadyForConnections(readyTime) {
		s.Shutdown()
		return "", nil, fmt.Errorf("NATS server on %s is not ready after %v", address, readyTime)
	}
	return s.ClientURL(), func() { s.Shutdown(); s.WaitForShutdown() }, nil
}

// Run runs a server until ctx ends.
func Run(ctx context.Context, address string, tlsConfig *tls.Config) error {
	_, stop, err := Start(address, tlsConfig)
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop()
	return nil
}

func splitAddress(address string) (string, int, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return "", 0, fmt.Errorf("NATS address %q: %w", address, err)
	}
	if a.IP == nil {
		return "", 0, errors.New("NATS address " + address + ": name the host too")
	}
	return a.IP.String(), a.Port, nil
}
