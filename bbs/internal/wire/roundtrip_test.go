package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// roundTrip checks that a value survives the way to bytes and back. Empty and absent lists and maps
// count as equal, since the wire knows no difference.
func roundTrip[T any, M any, P interface {
	*M
	proto.Message
}](t *testing.T, values *rapid.Generator[T], encode func(T) P, decode func(P) T) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		want := values.Draw(t, "value")
		data, err := proto.Marshal(encode(want))
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		var m M
		if err := proto.Unmarshal(data, P(&m)); err != nil {
			t.Fatalf("unmarshal: %v", err)
		}
		if diff := cmp.Diff(want, decode(&m), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("changed on the way (-sent +read):\n%s", diff)
		}
	})
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	t.Run("desired", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, rapid.Map(anything[lrp.Desired](), func(d lrp.Desired) lrp.Desired {
			d.RunInfo.CreatedAt = decodeTime(0) // not part of the message: the server stamps it
			return d
		}), EncodeDesired, DecodeDesired)
	})
	t.Run("run info", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, anything[lrp.RunInfo](), EncodeRunInfo, DecodeRunInfo)
	})
	t.Run("scheduling info", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, rapid.Map(anything[lrp.SchedulingInfo](), func(s lrp.SchedulingInfo) lrp.SchedulingInfo {
			s.MetricTags = nil // Diego's message has no place for them
			return s
		}), EncodeSchedulingInfo, DecodeSchedulingInfo)
	})
	t.Run("summary", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, summaries(), EncodeSummary, DecodeSummary)
	})
	t.Run("update", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, anything[lrp.Update](), EncodeUpdate, DecodeUpdate)
	})
	t.Run("actual", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, anything[lrp.Actual](), EncodeActual, DecodeActual)
	})
	t.Run("presence", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, presences(), EncodePresence, DecodePresence)
	})
	t.Run("event", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, changes(), EncodeEvent, DecodeEvent)
	})
	t.Run("task", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, anything[task.Task](), EncodeTask, DecodeTask)
	})
	t.Run("task definition", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, anything[task.Definition](), EncodeTaskDefinition, DecodeTaskDefinition)
	})
}

// TestRequests checks that each request carries what its event needs, and nothing else.
func TestRequests(t *testing.T) {
	t.Parallel()
	only := func(keep func(lrp.Event) lrp.Event) *rapid.Generator[lrp.Event] {
		return rapid.Map(anything[lrp.Event](), keep)
	}
	slotOnly := func(k lrp.Key) lrp.Key { return lrp.Key{Slot: k.Slot} }
	t.Run("claim", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, only(func(e lrp.Event) lrp.Event {
			return lrp.Event{Name: lrp.Claim, Key: slotOnly(e.Key), By: e.By}
		}), EncodeClaim, DecodeClaim)
	})
	t.Run("start", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, only(func(e lrp.Event) lrp.Event {
			e.Name, e.Epoch, e.Reason, e.Explanation = lrp.Start, "", "", nil
			return e
		}), EncodeStart, DecodeStart)
	})
	t.Run("crash", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, only(func(e lrp.Event) lrp.Event {
			return lrp.Event{Name: lrp.Crash, Key: e.Key, By: e.By, Reason: e.Reason}
		}), EncodeCrash, DecodeCrash)
	})
	t.Run("fail", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, only(func(e lrp.Event) lrp.Event {
			return lrp.Event{Name: lrp.Fail, Key: e.Key, Reason: e.Reason, Explanation: e.Explanation}
		}), EncodeFail, DecodeFail)
	})
	t.Run("retire", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, only(func(e lrp.Event) lrp.Event {
			return lrp.Event{Name: lrp.Retire, Key: e.Key}
		}), EncodeRetire, DecodeRetire)
	})
	t.Run("remove", func(t *testing.T) {
		t.Parallel()
		roundTrip(t, only(func(e lrp.Event) lrp.Event {
			return lrp.Event{Name: lrp.Remove, Key: slotOnly(e.Key), By: e.By}
		}), EncodeRemove, DecodeRemove)
	})
}

func TestAbsentRoutableMeansTrue(t *testing.T) {
	t.Parallel()
	no := false
	if !DecodeStart(&bbsv1.StartActualLRPRequest{}).Routable {
		t.Error("start without the flag is not routable")
	}
	if DecodeStart(&bbsv1.StartActualLRPRequest{Routable: &no}).Routable {
		t.Error("start with the flag down is routable")
	}
	if !DecodeActual(&bbsv1.ActualLRP{}).Routable {
		t.Error("record without the flag is not routable")
	}
	if DecodeActual(&bbsv1.ActualLRP{Routable: &no}).Routable {
		t.Error("record with the flag down is routable")
	}
}

// TestLowestActionWins takes a member away at a time: of those left, the one with the lowest number
// must be the one that is read.
func TestLowestActionWins(t *testing.T) {
	t.Parallel()
	m := &bbsv1.Action{
		DownloadAction: &bbsv1.DownloadAction{}, UploadAction: &bbsv1.UploadAction{}, RunAction: &bbsv1.RunAction{},
		TimeoutAction: &bbsv1.TimeoutAction{}, EmitProgressAction: &bbsv1.EmitProgressAction{}, TryAction: &bbsv1.TryAction{},
		ParallelAction: &bbsv1.ParallelAction{}, SerialAction: &bbsv1.SerialAction{}, CodependentAction: &bbsv1.CodependentAction{},
	}
	fields := m.ProtoReflect().Descriptor().Fields()
	for number := range fields.Len() {
		field := fields.ByNumber(protoreflect.FieldNumber(1 + number))
		data, err := proto.Marshal(EncodeAction(DecodeAction(m)))
		if err != nil {
			t.Fatal(err)
		}
		var read bbsv1.Action
		if err := proto.Unmarshal(data, &read); err != nil {
			t.Fatal(err)
		}
		if !read.ProtoReflect().Has(field) {
			t.Errorf("with %s and everything after it set, read %v", field.Name(), &read)
		}
		m.ProtoReflect().Clear(field)
	}
	if got := DecodeAction(m); got == nil || *got != (lrp.Action{}) {
		t.Errorf("action without members = %+v, want an empty one", got)
	}
}

// TestAbsentIsEmpty reads messages without the parts that Diego never leaves out.
func TestAbsentIsEmpty(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(lrp.Actual{Routable: true}, DecodeActual(&bbsv1.ActualLRP{})); diff != "" {
		t.Errorf("actual (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lrp.SchedulingInfo{}, DecodeSchedulingInfo(&bbsv1.DesiredLRPSchedulingInfo{})); diff != "" {
		t.Errorf("scheduling info (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lrp.Desired{}, DecodeDesired(nil)); diff != "" {
		t.Errorf("desired (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(cells.Presence{}, DecodePresence(nil)); diff != "" {
		t.Errorf("presence (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lrp.Update{}, DecodeUpdate(nil)); diff != "" {
		t.Errorf("update (-want +got):\n%s", diff)
	}
}

// TestUpdatePresence checks the three things that an update can say about routes, and that zero
// values of the other members are values.
func TestUpdatePresence(t *testing.T) {
	t.Parallel()
	through := func(u lrp.Update) lrp.Update {
		data, err := proto.Marshal(EncodeUpdate(u))
		if err != nil {
			t.Fatal(err)
		}
		var m bbsv1.DesiredLRPUpdate
		if err := proto.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		return DecodeUpdate(&m)
	}
	if got := through(lrp.Update{}); got.Routes != nil || got.Instances != nil || got.Annotation != nil {
		t.Errorf("an empty update became %+v", got)
	}
	if got := through(lrp.Update{Routes: map[string][]byte{}}); got.Routes == nil {
		t.Error("clearing all routes became leaving them alone")
	}
	zero, blank := int32(0), ""
	got := through(lrp.Update{Instances: &zero, Annotation: &blank})
	if got.Instances == nil || got.Annotation == nil {
		t.Errorf("scaling to zero or clearing the annotation was lost: %+v", got)
	}
}

// TestPortsAreUnpacked checks both halves of the rule about ports: written one tag per element, read
// either way.
func TestPortsAreUnpacked(t *testing.T) {
	t.Parallel()
	data, err := proto.Marshal(EncodeDesired(lrp.Desired{RunInfo: lrp.RunInfo{Ports: []uint32{1, 2}}}))
	if err != nil {
		t.Fatal(err)
	}
	// Field 14 as varint is tag 0x70; the modification tag (field 21) is always sent, empty.
	unpacked := []byte{0x70, 1, 0x70, 2, 0xaa, 1, 0}
	if diff := cmp.Diff(unpacked, data); diff != "" {
		t.Errorf("bytes (-want +got):\n%s", diff)
	}
	packed := []byte{0x72, 2, 1, 2}
	var m bbsv1.DesiredLRP
	if err := proto.Unmarshal(packed, &m); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint32{1, 2}, DecodeDesired(&m).RunInfo.Ports); diff != "" {
		t.Errorf("packed ports (-want +got):\n%s", diff)
	}
}

func TestProviders(t *testing.T) {
	t.Parallel()
	provider := func(name string, properties ...string) *bbsv1.Provider {
		return &bbsv1.Provider{Name: name, Properties: properties}
	}
	for name, tt := range map[string]struct {
		list []*bbsv1.Provider
		want cells.Provider
	}{
		"names add up":                 {[]*bbsv1.Provider{provider("x", "a"), provider("x", "b")}, cells.Provider{Names: []string{"a", "b"}}},
		"no names means any, at first": {[]*bbsv1.Provider{provider("x"), provider("x", "b")}, cells.Provider{}},
		"no names means any, at last":  {[]*bbsv1.Provider{provider("x", "a"), provider("x")}, cells.Provider{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := DecodePresence(&bbsv1.CellPresence{RootfsProviders: tt.list}).RootFSProviders["x"]
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("provider (-want +got):\n%s", diff)
			}
		})
	}
	if got := DecodePresence(&bbsv1.CellPresence{RepAddress: "10.0.0.1:1800"}).RepURL; got != "http://10.0.0.1:1800" {
		t.Errorf("URL of a cell with only an address = %q", got)
	}
}
