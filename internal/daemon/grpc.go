package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Limits of our gRPC connections.
const (
	// MaxMessageBytes bounds one message in either direction.
	MaxMessageBytes = 64 << 20
	// keepaliveTime is how long a connection is idle before it is probed.
	keepaliveTime = 10 * time.Second
	// keepaliveTimeout is how long a probe may go unanswered.
	keepaliveTimeout = 5 * time.Second
	// streamWindow and connWindow are how many bytes may be on their way to whoever reads slowly, in one
	// stream and in one connection. With fixed ones nobody measures the way, which takes a probe for each
	// few messages. Up: large answers are faster over long ways; down: less memory for slow readers.
	streamWindow = 1 << 20
	connWindow   = 4 << 20
	// maxStreams is how many calls and watches may be open on one connection; further ones wait at the caller.
	maxStreams = 2000
	// grpcDrainTime is how long calls in hand may go on when a server stops.
	grpcDrainTime = 2 * time.Second
)

// GRPCServer is a gRPC server whose streams end when it stops, so that watches without end do not
// hold it up.
type GRPCServer struct {
	*grpc.Server
	stopping context.Context
	stop     context.CancelFunc
}

// NewGRPCServer returns a server with our limits, mutual TLS and the given options; ServeGRPC runs
// and stops it.
func NewGRPCServer(tlsConfig *tls.Config, opts ...grpc.ServerOption) *GRPCServer {
	s := &GRPCServer{}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.Server = grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(tlsConfig)),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.ChainStreamInterceptor(s.endWithServer),
	}, opts...)...)
	return s
}

// endWithServer gives a stream a context that ends when the server stops. What the stream then
// returns reaches the caller as UNAVAILABLE: it is to try elsewhere, or again.
func (s *GRPCServer) endWithServer(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	err := handle(srv, &boundStream{stream, ctx})
	if s.stopping.Err() != nil && stream.Context().Err() == nil && err != nil {
		return status.Error(codes.Unavailable, "the server stops")
	}
	return err
}

// boundStream is a stream with another context.
type boundStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context that the stream is bound to.
func (s *boundStream) Context() context.Context { return s.ctx }

// ServeGRPC serves on a listener until ctx ends; streams are ended then, and calls in hand get a
// moment to finish.
func ServeGRPC(ctx context.Context, l net.Listener, s *GRPCServer) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	s.stop()
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
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
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
