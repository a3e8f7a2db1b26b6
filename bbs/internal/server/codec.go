package server

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

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
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok || m.ProtoReflect().Descriptor().ParentFile().Package() != bbsv1.File_bbs_v1_service_proto.Package() {
		return err
	}
	where := badText(data.Materialize(), m.ProtoReflect().Descriptor(), maxTextDepth)
	proto.Reset(m)
	mark := protowire.AppendString(protowire.AppendTag(nil, markField, protowire.BytesType), fmt.Sprintf("%s\n%v", where, err))
	m.ProtoReflect().SetUnknown(mark)
	return nil
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

// maxTextDepth bounds how deep a bad text is looked for: far deeper than actions may nest.
const maxTextDepth = 100

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
