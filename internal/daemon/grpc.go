package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Limits of our gRPC connections.
const (
	// MaxMessageBytes bounds one message in either direction.
	MaxMessageBytes = 64 << 20
	// keepaliveTime is how long a connection is idle before it is probed.
	keepaliveTime = 10 * time.Second
	// keepaliveTimeout is how long a probe may go unanswered.
	keepaliveTimeout = 5 * time.Second
	// grpcDrainTime is how long calls in hand may go on when a server stops.
	grpcDrainTime = 2 * time.Second
)

// NewGRPCServer returns a server with our limits, mutual TLS and the given options.
func NewGRPCServer(tlsConfig *tls.Config, opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(tlsConfig)),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
	}, opts...)...)
}

// ServeGRPC serves on a listener until ctx ends; calls in hand get a moment to finish, streams are cut.
func ServeGRPC(ctx context.Context, l net.Listener, s *grpc.Server) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	force := time.AfterFunc(grpcDrainTime, s.Stop)
	defer force.Stop()
	s.GracefulStop()
	return <-done
}

// DialGRPC returns a connection with our limits. It connects lazily and for ever again.
func DialGRPC(address string, tlsConfig *tls.Config, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return conn, nil
}
