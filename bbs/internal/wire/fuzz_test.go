package wire

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// validated are the domain types that check themselves.
type validated interface{ Validate() error }

// digest is what the BBS does with a message that it is sent: decode it, check it, and encode it
// again. It returns the second message; nil for one that has no domain type of its own.
func digest(m proto.Message) proto.Message {
	check := func(v validated) { _ = v.Validate() }
	event := func(ev lrp.Event) lrp.Event { check(ev); return ev }
	switch m := m.(type) {
	case *bbsv1.DesiredLRP:
		d := DecodeDesired(m)
		check(d)
		return EncodeDesired(d)
	case *bbsv1.DesireLRPRequest:
		return digest(m.GetDesiredLrp())
	case *bbsv1.DesiredLRPUpdate:
		u := DecodeUpdate(m)
		check(u)
		return EncodeUpdate(u)
	case *bbsv1.UpdateDesiredLRPRequest:
		return digest(m.GetUpdate())
	case *bbsv1.DesiredLRPRunInfo:
		return EncodeRunInfo(DecodeRunInfo(m))
	case *bbsv1.DesiredLRPSchedulingInfo:
		return EncodeSchedulingInfo(DecodeSchedulingInfo(m))
	case *bbsv1.ActualLRP:
		return EncodeActual(DecodeActual(m))
	case *bbsv1.ActualLRPNetInfo:
		return EncodeNetInfo(DecodeNetInfo(m))
	case *bbsv1.Action:
		return EncodeAction(DecodeAction(m))
	case *bbsv1.CellPresence:
		return EncodePresence(DecodePresence(m))
	case *bbsv1.Event:
		return EncodeEvent(DecodeEvent(m))
	case *bbsv1.ClaimActualLRPRequest:
		return EncodeClaim(event(DecodeClaim(m)))
	case *bbsv1.StartActualLRPRequest:
		return EncodeStart(event(DecodeStart(m)))
	case *bbsv1.CrashActualLRPRequest:
		return EncodeCrash(event(DecodeCrash(m)))
	case *bbsv1.FailActualLRPRequest:
		return EncodeFail(event(DecodeFail(m)))
	case *bbsv1.RetireActualLRPRequest:
		return EncodeRetire(event(DecodeRetire(m)))
	case *bbsv1.RemoveActualLRPRequest:
		return EncodeRemove(event(DecodeRemove(m)))
	case *bbsv1.EvacuateClaimedActualLRPRequest:
		return EncodeEvacuateClaimed(event(DecodeEvacuateClaimed(m)))
	case *bbsv1.EvacuateRunningActualLRPRequest:
		return EncodeEvacuateRunning(event(DecodeEvacuateRunning(m)))
	case *bbsv1.EvacuateStoppedActualLRPRequest:
		return EncodeEvacuateStopped(event(DecodeEvacuateStopped(m)))
	case *bbsv1.EvacuateCrashedActualLRPRequest:
		return EncodeEvacuateCrashed(event(DecodeEvacuateCrashed(m)))
	case *bbsv1.RemoveEvacuatingActualLRPRequest:
		return EncodeRemoveEvacuating(event(DecodeRemoveEvacuating(m)))
	default:
		return digestTask(m)
	}
}

func digestTask(m proto.Message) proto.Message {
	event := func(ev task.Event) task.Event { _ = ev.Validate(); return ev }
	switch m := m.(type) {
	case *bbsv1.Task:
		k := DecodeTask(m)
		_ = k.Validate()
		return EncodeTask(k)
	case *bbsv1.TaskDefinition:
		return EncodeTaskDefinition(DecodeTaskDefinition(m))
	case *bbsv1.DesireTaskRequest:
		k := DecodeDesireTask(m)
		_ = k.Validate()
		return EncodeDesireTask(k)
	case *bbsv1.StartTaskRequest:
		return EncodeStartTask(event(DecodeStartTask(m)))
	case *bbsv1.CompleteTaskRequest:
		return EncodeCompleteTask(event(DecodeCompleteTask(m)))
	case *bbsv1.FailTaskRequest:
		return EncodeFailTask(event(DecodeFailTask(m)))
	case *bbsv1.RejectTaskRequest:
		return EncodeRejectTask(event(DecodeRejectTask(m)))
	case *bbsv1.TaskGuidRequest:
		return EncodeTaskGUID(event(DecodeTaskGUID(task.Delete)(m)))
	}
	return nil
}

// allTypes are all message types of bbs.v1, in the order of their names.
func allTypes() []protoreflect.MessageType {
	var found []protoreflect.MessageType
	for _, name := range sortedKeys(messages()) {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(bbsv1.File_bbs_v1_service_proto.Package().Append(protoreflect.Name(name)))
		if err == nil { // entries of maps are no types of their own
			found = append(found, mt)
		}
	}
	return found
}

// feed gives bytes to a message type: whatever they are, decoding, checking and encoding end well, and
// what comes out says the same when it goes through again.
func feed(t *testing.T, mt protoreflect.MessageType, data []byte) {
	t.Helper()
	m := mt.New().Interface()
	if proto.Unmarshal(data, m) != nil {
		return // gRPC refuses it before we see it
	}
	once := digest(m)
	if once == nil {
		return
	}
	bytes, err := proto.Marshal(once)
	if err != nil {
		t.Fatalf("%s: what was decoded cannot be encoded: %v", mt.Descriptor().Name(), err)
	}
	// A message grows by what is always sent although it is empty, a few bytes for each element.
	if limit := 32*len(data) + 1024; len(bytes) > limit {
		t.Errorf("%s: %d bytes became %d", mt.Descriptor().Name(), len(data), len(bytes))
	}
	if again := digest(once); !proto.Equal(once, again) {
		t.Errorf("%s changes each time it is read:\n%v\n%v", mt.Descriptor().Name(), once, again)
	}
}

// FuzzMessages feeds random bytes to every message of bbs.v1.
func FuzzMessages(f *testing.F) {
	types := allTypes()
	for _, seed := range seeds(types) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, mt := range types {
			feed(t, mt, data)
		}
	})
}

// seeds are messages with every field set, to what is at the edge of its type, and some that are
// broken. Run by go test without fuzzing, too.
func seeds(types []protoreflect.MessageType) [][]byte {
	all := [][]byte{nil, {0}, {0xff}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x0a, 1, 0xff}, {0x0a, 1, 0}}
	for _, mt := range types {
		for _, extreme := range []bool{false, true} {
			m := mt.New()
			fill(m, extreme, 3)
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
			if err != nil {
				continue // text that is not UTF-8 is refused here as well
			}
			all = append(all, data, data[:len(data)/2], append(append([]byte{}, data...), data...))
		}
	}
	return all
}

// fill sets every field of a message, down to a depth.
func fill(m protoreflect.Message, extreme bool, depth int) {
	for fd := range allFields(m.Descriptor()) {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v := m.Mutable(fd).Map().NewValue()
				fill(v.Message(), extreme, depth-1)
				m.Mutable(fd).Map().Set(protoreflect.ValueOfString("k").MapKey(), v)
			} else {
				m.Mutable(fd).Map().Set(protoreflect.ValueOfString("k").MapKey(), scalar(fd.MapValue(), extreme))
			}
		case fd.Message() != nil && depth == 0:
		case fd.IsList() && fd.Message() != nil:
			fill(m.Mutable(fd).List().AppendMutable().Message(), extreme, depth-1)
		case fd.IsList():
			m.Mutable(fd).List().Append(scalar(fd, extreme))
		case fd.Message() != nil:
			fill(m.Mutable(fd).Message(), extreme, depth-1)
		default:
			m.Set(fd, scalar(fd, extreme))
		}
	}
}

func allFields(d protoreflect.MessageDescriptor) func(func(protoreflect.FieldDescriptor) bool) {
	return all(d.Fields())
}

// scalar is 1 or x, or what is largest, unknown or hardest to store.
func scalar(fd protoreflect.FieldDescriptor, extreme bool) protoreflect.Value {
	n := uint64(1)
	text := "x"
	if extreme {
		n, text = 1<<64-1, "\x00\u202e{\"'\\"
	}
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(n)))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(n)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	default:
		return protoreflect.ValueOfString(text)
	}
}

// TestDigestKnowsAllRequests checks that the fuzz tests reach every request that makes an event, so
// that one added later is not forgotten.
func TestDigestKnowsAllRequests(t *testing.T) {
	t.Parallel()
	for _, mt := range allTypes() {
		fields := mt.Descriptor().Fields()
		if fields.ByName("actual_lrp_instance_key") == nil && fields.ByName("rejection_reason") == nil {
			continue
		}
		if digest(mt.New().Interface()) == nil && !isEvent(mt) {
			t.Errorf("%s is not decoded by any fuzz test", mt.Descriptor().Name())
		}
	}
}

// isEvent tells the messages that only a server makes.
func isEvent(mt protoreflect.MessageType) bool {
	switch mt.New().Interface().(type) {
	case *bbsv1.ActualLRPInstanceChangedEvent, *bbsv1.ActualLRPCrashedEvent, *bbsv1.ActualLRPCrash:
		return true
	}
	return false
}

// TestUnknownEnumValuesAreKept sends every enum of the records with a value that nobody has defined
// yet: it comes out as it went in, so that an old program does not corrupt what a new one wrote.
func TestUnknownEnumValuesAreKept(t *testing.T) {
	t.Parallel()
	const unknown = 77
	for _, m := range []proto.Message{
		&bbsv1.ActualLRP{Presence: unknown, ActualLrpNetInfo: &bbsv1.ActualLRPNetInfo{PreferredAddress: unknown}},
		&bbsv1.DesiredLRP{
			UpdateStrategy: unknown,
			ImageLayers:    []*bbsv1.ImageLayer{{LayerType: unknown, MediaType: unknown, DigestAlgorithm: unknown}},
			MetricTags:     map[string]*bbsv1.MetricTagValue{"t": {Dynamic: unknown}},
		},
		&bbsv1.Task{State: unknown, TaskDefinition: &bbsv1.TaskDefinition{
			ImageLayers: []*bbsv1.ImageLayer{{LayerType: unknown, MediaType: unknown, DigestAlgorithm: unknown}},
			MetricTags:  map[string]*bbsv1.MetricTagValue{"t": {Dynamic: unknown}},
		}},
	} {
		got := digest(m)
		seen := 0
		walk(got.ProtoReflect(), func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
			if fd.Kind() == protoreflect.EnumKind && v.Enum() == unknown {
				seen++
			}
		})
		sent := 0
		walk(m.ProtoReflect(), func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
			if fd.Kind() == protoreflect.EnumKind {
				sent++
			}
		})
		if seen != sent {
			t.Errorf("%s: %d of %d unknown values came back: %v", m.ProtoReflect().Descriptor().Name(), seen, sent, got)
		}
	}
	// A kind of change that is unknown is none, not a wrong one.
	if ev := DecodeEvent(&bbsv1.Event{Revision: 7}); ev != (event.Event{Revision: 7}) {
		t.Errorf("an event without a change became %+v", ev)
	}
}

// walk visits the fields that are set, in all parts of a message.
func walk(m protoreflect.Message, visit func(protoreflect.FieldDescriptor, protoreflect.Value)) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { walk(v.Message(), visit); return true })
		case fd.IsMap():
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), visit)
			}
		case fd.IsList():
		case fd.Message() != nil:
			walk(v.Message(), visit)
		default:
			visit(fd, v)
		}
		return true
	})
}
