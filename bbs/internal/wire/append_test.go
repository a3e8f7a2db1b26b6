package wire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"muster/bbs/event"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// What is appended is, byte for byte, what proto.Marshal makes of the message, for every value of every
// field; and it is refused when that refuses it.
func TestAppend(t *testing.T) {
	t.Parallel()
	check := func(t *rapid.T, m proto.Message, appendTo func(b []byte) ([]byte, error)) {
		t.Helper()
		want, wantErr := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		got, err := appendTo([]byte("before"))
		switch {
		case (err == nil) != (wantErr == nil):
			t.Fatalf("error %v, want %v", err, wantErr)
		case err == nil && !bytes.Equal(got, append([]byte("before"), want...)):
			t.Fatalf("%v\n%x, want\n%x", m, got[len("before"):], want)
		}
	}
	t.Run("change", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			ev := changes().Draw(t, "event")
			check(t, &bbsv1.Event{Change: EncodeEvent(ev).Change}, func(b []byte) ([]byte, error) { return AppendChange(b, ev) })
		})
	})
	t.Run("record", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			ev := event.Event{Actual: &lrp.Change{
				Before: rapid.Ptr(spoilt(), true).Draw(t, "before"), After: rapid.Ptr(spoilt(), true).Draw(t, "after"),
			}}
			check(t, &bbsv1.Event{Change: EncodeEvent(ev).Change}, func(b []byte) ([]byte, error) { return AppendChange(b, ev) })
		})
	})
	t.Run("net info", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			n := spoilt().Draw(t, "record").NetInfo
			check(t, EncodeNetInfo(n), func(b []byte) ([]byte, error) { return AppendNetInfo(b, n) })
		})
	})
	t.Run("start", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			a := spoilt().Draw(t, "record")
			ev := lrp.Event{Key: a.Key, By: a.InstanceKey, NetInfo: a.NetInfo, InternalRoutes: a.InternalRoutes,
				MetricTags: a.MetricTags, Routable: a.Routable, AvailabilityZone: a.AvailabilityZone}
			check(t, EncodeStart(ev), func(b []byte) ([]byte, error) {
				return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, RawStart(ev))
			})
		})
	})
	t.Run("reported", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			a := spoilt().Draw(t, "record")
			check(t, EncodeReported(&a), func(b []byte) ([]byte, error) {
				return AppendReported(b, &a)
			})
		})
	})
}

// spoilt generates records, some with long texts and many tags, and some with a text that is not UTF-8.
func spoilt() *rapid.Generator[lrp.Actual] {
	return rapid.Custom(func(t *rapid.T) lrp.Actual {
		a := anything[lrp.Actual]().Draw(t, "record")
		long := string(bytes.Repeat([]byte("x"), rapid.SampledFrom([]int{100, 127, 128, 16383, 16384, 20000}).Draw(t, "length")))
		places := []*string{&a.CrashReason, &a.NetInfo.Address, &a.Tag.Epoch, (*string)(&a.Process), (*string)(&a.Cell), &a.AvailabilityZone}
		switch text := rapid.SampledFrom([]string{"", long, "\xff"}).Draw(t, "text"); {
		case text == "":
		case rapid.Bool().Draw(t, "a tag"):
			a.MetricTags = map[string]string{text: "1"}
			for i := range rapid.IntRange(0, 40).Draw(t, "tags") {
				a.MetricTags[string(rune('a'+i))] = text
			}
		case rapid.Bool().Draw(t, "a route"):
			a.InternalRoutes = []string{text}
		default:
			*rapid.SampledFrom(places).Draw(t, "place") = text
		}
		return a
	})
}

func BenchmarkAppendChange(b *testing.B) {
	before := lrp.Actual{
		Key:         lrp.Key{Slot: lrp.Slot{Process: "0c9a4a3e-3f0f-4d68-b67d-7b1d61a2e8a4-58f5d0e6-27f3-4d0a-a4a7-8df4c6f0ab3f"}, Domain: "cf-apps"},
		InstanceKey: lrp.InstanceKey{Instance: "27f3-4d0a-a4a7-8df4c6f0ab3f-0000", Cell: "cell-0001"}, State: lrp.Claimed,
		Tag: lrp.ModificationTag{Epoch: "0123456789abcdef0123456789abcdef", Index: 1}, Since: decodeTime(1763835840417000000),
	}
	after := before
	after.State, after.MetricTags = lrp.Running, map[string]string{}
	after.NetInfo = lrp.NetInfo{Address: "10.0.16.7", InstanceAddress: "10.255.112.42", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61000, ContainerTLSProxyPort: 61001, HostTLSProxyPort: 61001}, {ContainerPort: 2222, HostPort: 61002}}}
	for _, name := range []string{"app_id", "app_name", "organization_id", "organization_name", "process_id", "process_type", "source_id", "space_id", "space_name", "instance_id", "process_instance_id"} {
		after.MetricTags[name] = "0c9a4a3e-3f0f-4d68-b67d-7b1d61a2e8a4"
	}
	ev := event.Event{Actual: &lrp.Change{Before: &before, After: &after}}
	b.Run("appended", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 4096)
		for b.Loop() {
			if _, err := AppendChange(buf, ev); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("by a message", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := proto.Marshal(EncodeEvent(ev)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
