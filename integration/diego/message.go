// Package diego is a client of Diego's BBS, written by hand from the tables of its wire contract: numbers of
// fields, paths of routes, names of events. It shares no code with the server, neither messages nor
// encoders, so that a mistake in those is not made twice. Its tests play what Diego's clients do; a bench
// and the test of the whole system use it, too.
package diego

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message is an encoded message. It grows field by field, in the order of their numbers where equal messages
// are to be equal bytes. As in proto3, scalars that are zero are left out.
type Message []byte

// Text appends a text, or bytes.
func (m Message) Text(field protowire.Number, s string) Message {
	if s == "" {
		return m
	}
	return m.Element(field, s)
}

// Element is Text that is there even when it is empty.
func (m Message) Element(field protowire.Number, s string) Message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), s)
}

// Texts appends a list of texts.
func (m Message) Texts(field protowire.Number, list ...string) Message {
	for _, s := range list {
		m = m.Element(field, s)
	}
	return m
}

// Number appends an integer or an enum.
func (m Message) Number(field protowire.Number, n int64) Message {
	if n == 0 {
		return m
	}
	return m.Present(field, n)
}

// Present is Number that is there even when it is zero.
func (m Message) Present(field protowire.Number, n int64) Message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), uint64(n))
}

// Numbers appends a list of integers, one by one.
func (m Message) Numbers(field protowire.Number, list ...int64) Message {
	for _, n := range list {
		m = m.Present(field, n)
	}
	return m
}

// Packed appends a list of integers as one value.
func (m Message) Packed(field protowire.Number, list ...int64) Message {
	var b []byte
	for _, n := range list {
		b = protowire.AppendVarint(b, uint64(n))
	}
	return m.Element(field, string(b))
}

// Flag appends a truth.
func (m Message) Flag(field protowire.Number, v bool) Message {
	return m.Number(field, int64(protowire.EncodeBool(v)))
}

// Message appends messages, which may be empty.
func (m Message) Message(field protowire.Number, list ...Message) Message {
	for _, in := range list {
		m = protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), in)
	}
	return m
}

// Entry appends an entry of a map to texts.
func (m Message) Entry(field protowire.Number, key, value string) Message {
	return m.Message(field, Message{}.Element(1, key).Element(2, value))
}

// EntryMessage appends an entry of a map to messages.
func (m Message) EntryMessage(field protowire.Number, key string, value Message) Message {
	return m.Message(field, Message{}.Element(1, key).Message(2, value))
}

// value is one field of a message.
type value struct {
	field  protowire.Number
	number uint64
	bytes  Message
	raw    []byte // with its tag
}

// values takes a message apart; it ends where the bytes are no message any more.
func (m Message) values() []value {
	var list []value
	for b := []byte(m); len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		size := protowire.ConsumeFieldValue(field, kind, b[n:])
		if size < 0 {
			break
		}
		v := value{field: field, raw: b[:n+size]}
		switch kind {
		case protowire.VarintType:
			v.number, _ = protowire.ConsumeVarint(b[n:])
		case protowire.BytesType:
			v.bytes, _ = protowire.ConsumeBytes(b[n:])
		}
		list, b = append(list, v), b[n+size:]
	}
	return list
}

// All returns the values of a field that are messages or texts.
func (m Message) All(field protowire.Number) []Message {
	var list []Message
	for _, v := range m.values() {
		if v.field == field {
			list = append(list, v.bytes)
		}
	}
	return list
}

// At follows a path of fields to a message; empty when it is not there.
func (m Message) At(path ...protowire.Number) Message {
	for _, field := range path {
		list := m.All(field)
		if len(list) == 0 {
			return nil
		}
		m = list[0]
	}
	return m
}

// TextAt follows a path of fields to a text.
func (m Message) TextAt(path ...protowire.Number) string { return string(m.At(path...)) }

// NumberAt follows a path of fields to an integer.
func (m Message) NumberAt(path ...protowire.Number) int64 {
	last := len(path) - 1
	for _, v := range m.At(path[:last]...).values() {
		if v.field == path[last] {
			return int64(v.number)
		}
	}
	return 0
}

// Has tells whether a field is there, empty or not.
func (m Message) Has(field protowire.Number) bool {
	return slices.ContainsFunc(m.values(), func(v value) bool { return v.field == field })
}

// Only returns the message without all fields but one.
func (m Message) Only(field protowire.Number) Message {
	only := Message{}
	for _, v := range m.values() {
		if v.field == field {
			only = append(only, v.raw...)
		}
	}
	return only
}

// firstOwn is the number from which on fields are the server's own: Diego has none of them, and its
// clients skip them.
const firstOwn = 1000

// Known returns the message without the server's own fields at its top.
func (m Message) Known() Message {
	known := Message{}
	for _, v := range m.values() {
		if v.field < firstOwn {
			known = append(known, v.raw...)
		}
	}
	return known
}
