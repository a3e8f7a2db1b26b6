package wire

import (
	"errors"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"muster/bbs/event"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// What is written with every change of an instance is encoded here without a message in between: the
// bytes are those of proto.Marshal, with maps in the order of their keys, at a fraction of its price.
// A field that is added to one of these messages is added here too; a test compares the two.

// errNotUTF8 says that a text cannot be encoded.
var errNotUTF8 = errors.New("a text is not UTF-8")

// AppendChange appends the change of an event: a bbs.v1.Event without revision, time and trace id. It
// fails when a text is not UTF-8.
func AppendChange(b []byte, ev event.Event) ([]byte, error) {
	if ev.Actual == nil {
		m := EncodeEvent(ev)
		m.Revision, m.CommittedAt, m.TraceId = 0, 0, ""
		return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m)
	}
	return AppendActualChange(b, *ev.Actual, nil, nil)
}

// Parts are members of an instance's record as AppendNetInfo and AppendReported encode them.
type Parts struct{ NetInfo, Reported []byte }

// Len is how many bytes they are; nil are none.
func (p *Parts) Len() int {
	if p == nil {
		return 0
	}
	return len(p.NetInfo) + len(p.Reported)
}

// AppendActualChange is AppendChange for the change of an instance, of whose records some members may be
// encoded already; nil: none.
func AppendActualChange(b []byte, c lrp.Change, before, after *Parts) ([]byte, error) {
	e := encoder{b: b}
	change := e.open(5)
	e.record(1, c.Before, before)
	e.record(2, c.After, after)
	e.close(change)
	return e.end()
}

// AppendNetInfo appends the message of EncodeNetInfo. It fails when a text is not UTF-8.
func AppendNetInfo(b []byte, n lrp.NetInfo) ([]byte, error) {
	e := encoder{b: b}
	e.netInfo(&n)
	return e.end()
}

// AppendReported appends the message of EncodeReported. It fails when a text is not UTF-8.
func AppendReported(b []byte, a *lrp.Actual) ([]byte, error) {
	e := encoder{b: b}
	e.reported(11, 12, a.InternalRoutes, a.MetricTags)
	e.explanation(explanationField, a.Explanation)
	return e.end()
}

// RawStart makes the request of EncodeStart, of use only for sending: it lies in the message encoded,
// which costs less than to encode a message.
func RawStart(ev lrp.Event) *bbsv1.StartActualLRPRequest {
	e := encoder{b: make([]byte, 0, usualStart)}
	e.key(1, ev.Key)
	e.instanceKey(2, ev.By)
	net := e.open(3)
	e.netInfo(&ev.NetInfo)
	e.close(net)
	e.reported(4, 5, ev.InternalRoutes, ev.MetricTags)
	e.present(6, ev.Routable)
	e.text(7, ev.AvailabilityZone)
	if e.bad {
		return EncodeStart(ev) // whoever encodes it says what is wrong
	}
	m := &bbsv1.StartActualLRPRequest{}
	m.ProtoReflect().SetUnknown(e.b)
	return m
}

// usualStart is how many bytes the request of a start is as a rule, at most.
const usualStart = 1280

// encoder appends the fields of messages; as in proto3, scalars that are zero are left out.
type encoder struct {
	b   []byte
	bad bool // a text is not UTF-8
}

func (e *encoder) end() ([]byte, error) {
	if e.bad {
		return nil, errNotUTF8
	}
	return e.b, nil
}

// open begins a message in a field and returns where its content begins. Most are short: one byte is
// left for the length.
func (e *encoder) open(field protowire.Number) (start int) {
	e.b = append(protowire.AppendTag(e.b, field, protowire.BytesType), 0)
	return len(e.b)
}

// close ends a message: its length is known now, and it moves up if that takes more than a byte.
func (e *encoder) close(start int) {
	n := len(e.b) - start
	if extra := protowire.SizeVarint(uint64(n)) - 1; extra > 0 {
		e.b = append(e.b, make([]byte, extra)...)
		copy(e.b[start+extra:], e.b[start:start+n])
	}
	protowire.AppendVarint(e.b[:start-1], uint64(n))
}

func (e *encoder) text(field protowire.Number, s string) {
	if s != "" {
		e.element(field, s)
	}
}

// element is text that is there even when it is empty.
func (e *encoder) element(field protowire.Number, s string) {
	e.bad = e.bad || !utf8.ValidString(s)
	e.b = protowire.AppendString(protowire.AppendTag(e.b, field, protowire.BytesType), s)
}

func (e *encoder) number(field protowire.Number, n uint64) {
	if n != 0 {
		e.b = protowire.AppendVarint(protowire.AppendTag(e.b, field, protowire.VarintType), n)
	}
}

// signed is number for the types int32 and int64, which are as long as it takes.
func (e *encoder) signed(field protowire.Number, n int64) { e.number(field, uint64(n)) }

func (e *encoder) flag(field protowire.Number, v bool) { e.number(field, protowire.EncodeBool(v)) }

// present is flag that is there even when it is not set.
func (e *encoder) present(field protowire.Number, v bool) {
	e.b = protowire.AppendVarint(protowire.AppendTag(e.b, field, protowire.VarintType), protowire.EncodeBool(v))
}

// key is a bbs.v1.ActualLRPKey.
func (e *encoder) key(field protowire.Number, k lrp.Key) {
	start := e.open(field)
	e.text(1, string(k.Process))
	e.signed(2, int64(k.Index))
	e.text(3, string(k.Domain))
	e.close(start)
}

// instanceKey is a bbs.v1.ActualLRPInstanceKey.
func (e *encoder) instanceKey(field protowire.Number, k lrp.InstanceKey) {
	start := e.open(field)
	e.text(1, string(k.Instance))
	e.text(2, string(k.Cell))
	e.close(start)
}

// record is a bbs.v1.ActualLRP; nil is left out.
func (e *encoder) record(field protowire.Number, a *lrp.Actual, encoded *Parts) {
	if a == nil {
		return
	}
	start := e.open(field)
	e.key(1, a.Key)
	e.instanceKey(2, a.InstanceKey)
	net := e.open(3)
	if encoded != nil {
		e.b = append(e.b, encoded.NetInfo...)
	} else {
		e.netInfo(&a.NetInfo)
	}
	e.close(net)
	e.signed(4, int64(a.CrashCount))
	e.text(5, a.CrashReason)
	e.text(6, string(a.State))
	e.text(7, a.PlacementError)
	e.signed(8, encodeTime(a.Since))
	tag := e.open(9)
	e.text(1, a.Tag.Epoch)
	e.number(2, uint64(a.Tag.Index))
	e.close(tag)
	e.signed(10, int64(a.Presence))
	if encoded != nil {
		e.b = append(e.b, encoded.Reported...)
	} else {
		e.reported(11, 12, a.InternalRoutes, a.MetricTags)
	}
	e.present(13, a.Routable)
	e.text(14, a.AvailabilityZone)
	e.flag(1000, a.Retiring)
	if encoded == nil {
		e.explanation(explanationField, a.Explanation)
	}
	e.close(start)
}

// explanationField is the field of an ActualLRP for the explanation.
const explanationField = 1001

// explanation is a bbs.v1.PlacementExplanation; nil is left out. It is rare, so that it is not worth more
// code.
func (e *encoder) explanation(field protowire.Number, x *lrp.Explanation) {
	if x == nil {
		return
	}
	start := e.open(field)
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(e.b, encodeExplanation(x))
	if err != nil {
		e.bad = true // nothing else can be wrong with it
		return
	}
	e.b = b
	e.close(start)
}

// netInfo is the content of a bbs.v1.ActualLRPNetInfo.
func (e *encoder) netInfo(n *lrp.NetInfo) {
	e.text(1, n.Address)
	for _, p := range n.Ports {
		start := e.open(2)
		e.number(1, uint64(p.ContainerPort))
		e.number(2, uint64(p.HostPort))
		e.number(3, uint64(p.ContainerTLSProxyPort))
		e.number(4, uint64(p.HostTLSProxyPort))
		e.close(start)
	}
	e.text(3, n.InstanceAddress)
	e.signed(4, int64(n.Preferred))
	e.text(5, n.InstanceIPv6Address)
}

// reported is what a message says of internal routes and metric tags in two of its fields.
func (e *encoder) reported(routeField, tagField protowire.Number, internalRoutes []string, tags map[string]string) {
	for _, hostname := range internalRoutes {
		start := e.open(routeField)
		e.text(1, hostname)
		e.close(start)
	}
	var few [16]string // as many as an instance has as a rule
	names := few[:0]
	for name := range tags {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		start := e.open(tagField)
		e.element(1, name)
		e.element(2, tags[name])
		e.close(start)
	}
}
