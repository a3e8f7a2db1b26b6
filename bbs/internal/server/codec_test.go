package server

import (
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	bbsv1 "muster/proto/bbs/v1"
)

// However deep a broken request nests, it is read and refused.
func TestDeepNonsense(t *testing.T) {
	t.Parallel()
	b := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "\xff") // args of a run action
	b = protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), b)        // run_action
	for range 3_000 {
		b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b) // action of a try action
		b = protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), b) // try_action
	}
	b = protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), b) // action
	b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b) // task_definition
	var r bbsv1.DesireTaskRequest
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &r); err != nil {
		t.Fatal(err)
	}
	if readable(&r) == nil {
		t.Error("it is taken for a request")
	}
	if err := readable(&bbsv1.DesireTaskRequest{TaskGuid: "t"}); err != nil {
		t.Errorf("a good request is refused: %v", err)
	}
}

// FuzzUnreadable reads bytes that nobody made: they are a request, or refused, and never an error of
// ours.
func FuzzUnreadable(f *testing.F) {
	for _, seed := range [][]byte{nil, {0xff}, {0x0a, 100}, {0x0a, 1, 0xff}, {0x12, 1, 0xff}, {0xfa, 0xff, 0xff, 0xff, 0x0f, 1, 'x'}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r bbsv1.DesireTaskRequest
		if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &r); err != nil {
			t.Fatal(err)
		}
		_ = readable(&r)
	})
}
