package server

import (
	"bytes"
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

// A request that is small on the wire and large in memory is refused before it is made; the largest that
// anybody needs is not.
func TestRequestsAreWeighed(t *testing.T) {
	t.Parallel()
	record := func(parts int) []byte { // of a batch: a record with so many network rules in a list
		var b []byte
		for range parts {
			b = protowire.AppendBytes(protowire.AppendTag(b, egressRules, protowire.BytesType), nil)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b)
	}
	nest := func(depth int) []byte {
		b := make([]byte, weighedBytes) // enough to be looked at
		b = protowire.AppendBytes(protowire.AppendTag(nil, 4000, protowire.BytesType), b)
		for range depth {
			b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b)
			b = protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), b)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), // desired_lrps
			protowire.AppendBytes(protowire.AppendTag(nil, actionOfDesired, protowire.BytesType), b))
	}
	for name, tc := range map[string]struct {
		bytes []byte
		ok    bool
	}{
		"a thousand records of two hundred parts":  {bytes.Repeat(record(200), 1000), true},
		"empty records, 16 MiB of them":            {bytes.Repeat(record(0), 8<<20), false},
		"one record with 4 Mi parts":               {record(4 << 20), false},
		"just light enough":                        {record(maxWeight/messageBytes - 1), true},
		"just too heavy":                           {record(maxWeight / messageBytes), false},
		"actions within actions, as deep as it is": {nest(maxDepth/2 - 2), true},
		"actions within actions, deeper":           {nest(maxDepth/2 + 1), false},
	} {
		var r bbsv1.BatchDesireLRPsRequest
		if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(tc.bytes)}, &r); err != nil {
			t.Fatal(err)
		}
		if err := readable(&r); (err == nil) != tc.ok {
			t.Errorf("%s: %v, want it to be read: %t", name, err, tc.ok)
		}
	}
}

// The numbers of fields of DesiredLRP.
const (
	egressRules     = 20
	actionOfDesired = 7
)

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
