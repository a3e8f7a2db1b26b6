package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// starts generates requests with every field of them.
func starts() *rapid.Generator[*bbsv1.StartActualLRPRequest] {
	return rapid.Map(anything[lrp.Actual](), func(a lrp.Actual) *bbsv1.StartActualLRPRequest {
		m := EncodeStart(lrp.Event{Key: a.Key, By: a.InstanceKey, NetInfo: a.NetInfo, InternalRoutes: a.InternalRoutes,
			MetricTags: a.MetricTags, Routable: a.Routable, AvailabilityZone: a.AvailabilityZone})
		if a.Retiring {
			m.Routable = nil
		}
		return m
	})
}

// sameAsUnmarshal fails when some bytes are read, and proto.Unmarshal refuses them or reads something else.
func sameAsUnmarshal(t interface{ Fatalf(string, ...any) }, b []byte) (read bool) {
	var got, want bbsv1.StartActualLRPRequest
	if !ReadStart(string(b), &got) {
		return false
	}
	if err := proto.Unmarshal(b, &want); err != nil {
		t.Fatalf("%x was read, but: %v", b, err)
	}
	if diff := cmp.Diff(&want, &got, protocmp.Transform()); diff != "" {
		t.Fatalf("%x (-want +got):\n%s", b, diff)
	}
	return true
}

// Every request that a client makes is read, as proto.Unmarshal reads it; and so is, or is left to it,
// what becomes of a request when bytes of it change, get lost or come twice.
func TestReadStart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, err := proto.Marshal(starts().Draw(t, "request"))
		if err != nil {
			t.Fatal(err)
		}
		if !sameAsUnmarshal(t, b) {
			t.Fatalf("%x was not read", b)
		}
		sameAsUnmarshal(t, append(b, b...))
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			if len(b) == 0 {
				break
			}
			at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "change") {
			case 0:
				b[at] = rapid.Byte().Draw(t, "byte")
			case 1:
				b = b[:at]
			default:
				b = append(append([]byte{}, b[at:]...), b[:at]...)
			}
			sameAsUnmarshal(t, b)
		}
	})
}

// What is bad about a request is not read over: proto.Unmarshal is to say so, or knows what to do.
func TestReadStartLeavesTheUnusual(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]string{
		"a text that is not UTF-8":        "\x3a\x01\xff",
		"a text that is cut":              "\x3a\x05z1",
		"a length beyond everything":      "\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01z",
		"a number of 65 bits":             "\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x03",
		"a number that is cut":            "\x30\x80",
		"a tag that is cut":               "\x80",
		"a field that is not known":       "\x40\x01",
		"a field of another type":         "\x3d1234",
		"a key that comes in two parts":   "\x0a\x03\x0a\x01p\x0a\x02\x10\x01",
		"a part that is not known":        "\x0a\x02\x20\x01",
		"a tag that is longer than it is": "\xba\x00\x02z1",
		"a group":                         "\x0b\x0c",
	} {
		if ReadStart(b, &bbsv1.StartActualLRPRequest{}) {
			t.Errorf("%s was read", name)
		}
	}
}

func FuzzReadStart(f *testing.F) {
	f.Add([]byte("\x0a\x05\x0a\x01p\x10\x01\x12\x06\x0a\x01i\x12\x01c\x1a\x0b\x0a\x011\x12\x04\x08\x90\x3f\x10\x20\x01"))
	f.Add([]byte("\x22\x03\x0a\x01h\x2a\x06\x0a\x01a\x12\x01b\x30\x01\x3a\x02z1"))
	f.Fuzz(func(t *testing.T, b []byte) { sameAsUnmarshal(t, b) })
}

func BenchmarkReadStart(b *testing.B) {
	tags := map[string]string{}
	for _, name := range []string{"app_id", "app_name", "organization_id", "organization_name", "process_id", "process_type", "source_id", "space_id", "space_name", "instance_id", "process_instance_id"} {
		tags[name] = "0c9a4a3e-3f0f-4d68-b67d-7b1d61a2e8a4"
	}
	data, err := proto.Marshal(EncodeStart(lrp.Event{
		Key:      lrp.Key{Slot: lrp.Slot{Process: "0c9a4a3e-3f0f-4d68-b67d-7b1d61a2e8a4-58f5d0e6-27f3-4d0a-a4a7-8df4c6f0ab3f"}, Domain: "cf-apps"},
		By:       lrp.InstanceKey{Instance: "27f3-4d0a-a4a7-8df4c6f0ab3f-0000", Cell: "cell-0001"},
		NetInfo:  lrp.NetInfo{Address: "10.0.16.7", InstanceAddress: "10.255.112.42", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61000, ContainerTLSProxyPort: 61001, HostTLSProxyPort: 61001}, {ContainerPort: 2222, HostPort: 61002}}},
		Routable: true, MetricTags: tags, InternalRoutes: []string{"a.apps.internal"},
	}))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !ReadStart(string(data), &bbsv1.StartActualLRPRequest{}) {
				b.Fatal("not read")
			}
		}
	})
	b.Run("by reflection", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(data, &bbsv1.StartActualLRPRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
