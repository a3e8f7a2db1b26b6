package server

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"muster/bbs/internal/wire"
	bbsv1 "muster/proto/bbs/v1"
)

// codec reads and writes messages as gRPC does, but for requests of ours that cannot be read, such as
// one with a text that is not UTF-8. gRPC would answer INTERNAL, as if that were our fault, and not say
// where. Here such a request arrives empty, with a mark that the interceptor finds.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// markField is the number of the unknown field that says what is wrong with a request. Whoever sends
// one gets an error.
const markField = 536_870_911 // the largest there is

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*bbsv1.StartActualLRPRequest); ok && data.Len() < weighedBytes && wire.ReadStart(text(data), r) {
		return nil
	}
	m, ok := v.(proto.Message)
	var err error
	if ok && data.Len() >= weighedBytes {
		err = bearable(data, m)
	}
	if err == nil {
		err = c.CodecV2.Unmarshal(data, v)
	}
	if err == nil || !ok || m.ProtoReflect().Descriptor().ParentFile().Package() != bbsv1.File_bbs_v1_service_proto.Package() {
		return err
	}
	where := ""
	if !errors.Is(err, errUnbearable) {
		where = badText(data.Materialize(), m.ProtoReflect().Descriptor(), maxDepth)
	}
	proto.Reset(m)
	mark := protowire.AppendString(protowire.AppendTag(nil, markField, protowire.BytesType), fmt.Sprintf("%s\n%v", where, err))
	m.ProtoReflect().SetUnknown(mark)
	return nil
}

// text returns the bytes of a request.
func text(data mem.BufferSlice) string {
	var b strings.Builder
	b.Grow(data.Len())
	for _, part := range data {
		b.Write(part.ReadOnlyData())
	}
	return b.String()
}

// readable returns what is wrong with a request that could not be read.
func readable(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	b := m.ProtoReflect().GetUnknown()
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number != markField || kind != protowire.BytesType {
		return nil
	}
	text, n := protowire.ConsumeString(b[n:])
	if n < 0 {
		return nil
	}
	where, why, _ := strings.Cut(text, "\n")
	if where != "" {
		return invalid(where, "must be valid UTF-8", "")
	}
	return invalid("request", "cannot be read: "+why, "")
}

// maxDepth bounds how deep a request is looked into: far deeper than actions may nest.
const maxDepth = 100

// badText returns the path of the first text that is not UTF-8; empty when there is none down to a
// depth, or when the bytes are no message at all.
func badText(b []byte, md protoreflect.MessageDescriptor, depth int) string {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return ""
		}
		value := b[n : n+size]
		b = b[n+size:]
		fd := md.Fields().ByNumber(number)
		if fd == nil || kind != protowire.BytesType {
			continue
		}
		content, _ := protowire.ConsumeBytes(value)
		switch {
		case fd.Kind() == protoreflect.StringKind && !utf8.Valid(content):
			return string(fd.Name())
		case fd.Message() != nil && depth > 0:
			if inner := badText(content, fd.Message(), depth-1); inner != "" {
				return string(fd.Name()) + "." + inner
			}
		}
	}
	return ""
}

// A part of a request takes more memory than bytes: an empty record is two bytes on the wire. So a large
// request is weighed before it is read, also for callers that may not make it.
const (
	// weighedBytes is the size from which on requests are weighed.
	weighedBytes = 256 << 10
	// messageBytes and valueBytes are about what a part takes beside its own bytes.
	messageBytes = 256
	valueBytes   = 24
	// maxWeight bounds what all parts of a request may take, in bytes: ten times what the largest batch
	// of ordinary records does.
	maxWeight = 256 << 20
)

var errUnbearable = fmt.Errorf("its parts nest more than %d deep or would take more than %d bytes of memory: divide it", maxDepth, maxWeight)

// bearable refuses a request that would take too much memory.
func bearable(data mem.BufferSlice, m proto.Message) error {
	if weight(data.Materialize(), m.ProtoReflect().Descriptor(), maxDepth) > maxWeight {
		return errUnbearable
	}
	return nil
}

// weight is about how much memory the parts of a message take; more than maxWeight when it nests too deep
// to tell.
func weight(b []byte, md protoreflect.MessageDescriptor, depth int) int {
	if depth == 0 {
		return maxWeight + 1
	}
	sum := 0
	for len(b) > 0 && sum <= maxWeight {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			break // reading it tells what is wrong
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			break
		}
		value := b[n : n+size]
		b = b[n+size:]
		fd := md.Fields().ByNumber(number)
		switch {
		case fd == nil: // kept as the bytes that it is
		case fd.Message() != nil && kind == protowire.BytesType:
			content, _ := protowire.ConsumeBytes(value)
			sum += messageBytes + weight(content, fd.Message(), depth-1)
		default:
			sum += valueBytes
		}
	}
	return sum
}
