package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/refusal"
	bbsv1 "muster/proto/bbs/v1"
)

// What serves calls that do not come over gRPC. They pass the same checks, deadline, log and metrics, and
// end with the same errors, as if they had.

// Call is a method of the service, called directly. fill makes the request, of the type that the method
// takes; its error is that of the call. Who calls is what identity.NewContext says.
type Call func(ctx context.Context, fill func(request proto.Message) error) (proto.Message, error)

// Call returns the method of a name such as DesireLRP.
func (s *Server) Call(name string) (Call, error) {
	for _, m := range bbsv1.BBSService_ServiceDesc.Methods {
		if m.MethodName != name {
			continue
		}
		return func(ctx context.Context, fill func(proto.Message) error) (proto.Message, error) {
			res, err := m.Handler(s, ctx, func(request any) error { return fill(request.(proto.Message)) }, s.unary)
			if err != nil {
				return nil, err
			}
			return res.(proto.Message), nil
		}, nil
	}
	return nil, fmt.Errorf("%s has no method %s", bbsv1.BBSService_ServiceDesc.ServiceName, name)
}

// Read reads a message of bbs.v1 as a call over gRPC does. A request that cannot be read gets a mark that
// makes its call fail with a *lrp.Invalid.
func Read(body []byte, m proto.Message) {
	_ = reading.Unmarshal(mem.BufferSlice{mem.SliceBuffer(body)}, m)
} // the mark says why not

var reading = newCodec()

// Readable returns what is wrong with a message that Read could not read.
func Readable(m proto.Message) error { return readable(m) }

// Ready tells whether calls are answered: the database is migrated.
func (s *Server) Ready() bool { return s.parts.Load() != nil }

// Stream authorizes a watch that does not go over gRPC, runs it, and measures it. serve tells what is
// watched; Ready has been asked.
func (s *Server) Stream(ctx context.Context, r *bbsv1.WatchRequest, serve func(context.Context) error) error {
	const method = bbsv1.BBSService_Watch_FullMethodName
	start := time.Now()
	err := s.authorize(ctx, method, r)
	if err == nil {
		err = serve(ctx)
	}
	err = refusal.Request(s.status(ctx, method, err), traceID(ctx))
	s.Called(method, status.Code(err), time.Since(start))
	return err
}

// NewContext returns the context of a call that does not come over gRPC: its id, which may be empty, and
// its method, by which requests are told apart. told gets what a caller over gRPC finds in the header.
func NewContext(ctx context.Context, method, trace string, told func(trace string)) context.Context {
	if trace != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(traceKey, trace))
	}
	return grpc.NewContextWithServerTransportStream(ctx, &directStream{method, told})
}

// directStream is what grpc.Method and grpc.SetHeader ask for.
type directStream struct {
	method string
	told   func(string)
}

// Method implements grpc.ServerTransportStream.
func (d *directStream) Method() string { return d.method }

// SetHeader implements grpc.ServerTransportStream.
func (d *directStream) SetHeader(md metadata.MD) error {
	if v := md.Get(traceKey); len(v) > 0 {
		d.told(v[0])
	}
	return nil
}

// SendHeader implements grpc.ServerTransportStream.
func (d *directStream) SendHeader(md metadata.MD) error { return d.SetHeader(md) }

// SetTrailer implements grpc.ServerTransportStream.
func (d *directStream) SetTrailer(metadata.MD) error { return nil }
