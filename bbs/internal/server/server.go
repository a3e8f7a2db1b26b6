// Package server answers the gRPC calls of bbs.v1. It checks who is calling and what they say, hands
// the call to the store or the hub, and turns what they answer into messages and statuses. It
// decides nothing about records.
package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/refusal"
	"muster/bbs/internal/store"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// Limits of calls.
const (
	// defaultDeadline is that of calls that bring none.
	defaultDeadline = 15 * time.Second
	// retryDelay is how soon callers are to try again what the database could not do.
	retryDelay = 500 * time.Millisecond
	// maxTraceBytes is how much of a request id is kept.
	maxTraceBytes = 128
	// cutOffTime is how long the sender of a watch that was cut off may take to say so to the caller.
	cutOffTime = time.Second
	// minHeartbeatTTL and maxHeartbeatTTL bound how long a heartbeat is good for.
	minHeartbeatTTL = time.Second
	maxHeartbeatTTL = time.Minute
)

// traceKey is the metadata that carries the id of a request.
const traceKey = "x-vcap-request-id"

// Options are what a server is made of.
type Options struct {
	Log *slog.Logger
	// Identify tells who is calling; nil: the certificate of the connection.
	Identify func(context.Context) (identity.ID, error)
	// Called is told about each finished call, for metrics. nil: nobody.
	Called func(method string, code codes.Code, took time.Duration)
}

// Server implements bbs.v1.BBSService. Until Open it answers UNAVAILABLE.
type Server struct {
	bbsv1.UnsafeBBSServiceServer // a call that is not implemented does not compile
	Options
	rights map[string]right
	levels map[string]slog.Level // at which calls are logged
	parts  atomic.Pointer[parts]
}

// parts are what is there once the database is migrated.
type parts struct {
	store *store.Store
	hub   *hub.Hub
}

// New returns a server that waits for Open.
func New(o Options) *Server {
	if o.Identify == nil {
		o.Identify = identity.FromContext
	}
	if o.Called == nil {
		o.Called = func(string, codes.Code, time.Duration) {}
	}
	return &Server{Options: o, rights: rights(), levels: logged()}
}

// Open makes the server answer.
func (s *Server) Open(st *store.Store, h *hub.Hub) { s.parts.Store(&parts{st, h}) }

// Interceptors returns what a gRPC server needs to serve this one.
func (s *Server) Interceptors() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream), grpc.ForceServerCodecV2(newCodec()),
	}
}

// ours tells calls of our service from those of health and reflection, which any role may make.
func (s *Server) ours(server any) bool { return server == s }

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if !s.ours(info.Server) {
		return next(ctx, req)
	}
	echo(ctx)
	start := time.Now()
	res, err := s.answer(ctx, req, info.FullMethod, next)
	err = refusal.Request(s.status(ctx, info.FullMethod, err), traceID(ctx))
	took := time.Since(start)
	s.Called(info.FullMethod, status.Code(err), took)
	s.logCall(ctx, info.FullMethod, req, err, took)
	return res, err
}

func (s *Server) answer(ctx context.Context, req any, method string, next grpc.UnaryHandler) (any, error) {
	if err := s.authorize(ctx, method, req); err != nil {
		return nil, err
	}
	if s.parts.Load() == nil {
		return nil, errStarting()
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultDeadline)
		defer cancel()
	}
	return next(ctx, req)
}

// stream measures; the request of a stream is not there yet, so Watch authorizes itself.
func (s *Server) stream(server any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !s.ours(server) {
		return next(server, ss)
	}
	echo(ss.Context())
	start := time.Now()
	err := refusal.Request(s.status(ss.Context(), info.FullMethod, next(server, ss)), traceID(ss.Context()))
	s.Called(info.FullMethod, status.Code(err), time.Since(start))
	return err
}

func errStarting() error {
	return refusal.Unavailable(codes.Unavailable, "the BBS is starting: its database is not ready", retryDelay)
}

// status turns an error into the status that the caller sees.
func (s *Server) status(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if st, ok := refusal.ToStatus(err); ok {
		return st
	}
	var unreadable *store.Unreadable
	if errors.As(err, &unreadable) {
		return status.Error(codes.DataLoss, unreadable.Error())
	}
	for _, row := range []struct {
		is    error
		code  codes.Code
		retry time.Duration // 0: trying the same again is of no use
	}{
		{store.ErrUnavailable, codes.Unavailable, retryDelay},
		{store.ErrClosed, codes.Unavailable, retryDelay},
		{store.ErrFenced, codes.FailedPrecondition, 0},
		{hub.ErrClosed, codes.Unavailable, retryDelay},
		{hub.ErrPruned, codes.OutOfRange, 0},
		{hub.ErrFuture, codes.InvalidArgument, 0},
		{hub.ErrSlow, codes.ResourceExhausted, retryDelay},
	} {
		if !errors.Is(err, row.is) {
			continue
		}
		// What the database says of itself is for our log only.
		s.Log.Debug("call not answered", "method", method, "trace_id", traceID(ctx), "error", err)
		if row.retry > 0 {
			return refusal.Unavailable(row.code, row.is.Error(), row.retry)
		}
		return status.Error(row.code, row.is.Error())
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		s.Log.Debug("call not answered", "method", method, "trace_id", traceID(ctx), "error", err)
		return refusal.Unavailable(codes.Unavailable, store.ErrUnavailable.Error(), retryDelay) // a limit of ours, not of the caller
	}
	s.Log.Error("call failed", "method", method, "trace_id", traceID(ctx), "error", err)
	return status.Error(codes.Internal, "an error of the BBS: its log has it, with the trace id of this call")
}

// traceID returns the id of a request; empty when it has none. It can be stored.
func traceID(ctx context.Context) string {
	v := metadata.ValueFromIncomingContext(ctx, traceKey)
	if len(v) == 0 {
		return ""
	}
	return strings.ReplaceAll(strings.ToValidUTF8(v[0][:min(len(v[0]), maxTraceBytes)], ""), "\x00", "")
}

// echo gives the caller the id of its request back, so that it can be found in logs and events.
func echo(ctx context.Context) {
	if id := traceID(ctx); id != "" {
		_ = grpc.SetHeader(ctx, metadata.Pairs(traceKey, id)) // only a call that has ended refuses it
	}
}

// call says what goes with a request that writes.
func call(ctx context.Context) store.Call { return store.Call{TraceID: traceID(ctx)} }

// creator is a request that creates something.
type creator interface {
	proto.Message
	GetRequestId() string
	GetValidateOnly() bool
}

// creation is call for requests that create something.
func creation(ctx context.Context, r creator) store.Call {
	c := call(ctx)
	c.ValidateOnly = r.GetValidateOnly()
	if c.RequestID = r.GetRequestId(); c.RequestID != "" {
		method, _ := grpc.Method(ctx)
		c.RequestDigest = digest(method, r, "request_id", "validate_only")
	}
	return c
}

// store is there: the interceptor has seen to it.
func (s *Server) store() *store.Store { return s.parts.Load().store }

// caller tells who is calling.
func (s *Server) caller(ctx context.Context) (identity.ID, error) {
	id, err := s.Identify(ctx)
	if err != nil {
		return id, status.Error(codes.Unauthenticated, err.Error())
	}
	return id, nil
}
