package store

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Most of what the set statements are given are lists of texts and of bytes. pgx encodes a list element
// by element, each wrapped in an interface; these two need none of that.

// quickLists makes a connection encode lists of texts and of bytes without detours.
func quickLists(_ context.Context, conn *pgx.Conn) error {
	m := conn.TypeMap()
	for _, oid := range []uint32{pgtype.TextArrayOID, pgtype.ByteaArrayOID} {
		if t, known := m.TypeForOID(oid); known {
			if c, is := t.Codec.(*pgtype.ArrayCodec); is {
				m.RegisterType(&pgtype.Type{Name: t.Name, OID: oid, Codec: listCodec{c}})
			}
		}
	}
	return nil
}

// listCodec is that of a type of lists, but for []string and [][]byte.
type listCodec struct{ *pgtype.ArrayCodec }

// PlanEncode implements pgtype.Codec.
func (c listCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if format == pgtype.BinaryFormatCode {
		switch value.(type) {
		case []string:
			return listPlan[string]{c.ElementType.OID}
		case [][]byte:
			return listPlan[[]byte]{c.ElementType.OID}
		}
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

// listPlan encodes a list in the binary format: dimensions, whether there are nulls, the type of the
// elements, their number and the first index, and each element with its length.
type listPlan[E string | []byte] struct{ element uint32 }

func (listPlan[E]) quick() {} // tells it from the plans of pgx

// Encode implements pgtype.EncodePlan. A nil list is null, and so is a nil slice of bytes.
func (p listPlan[E]) Encode(value any, b []byte) ([]byte, error) {
	list := value.([]E)
	if list == nil {
		return nil, nil
	}
	size := 0
	for _, e := range list {
		size += 4 + len(e)
	}
	b = slices.Grow(b, 20+size+size/4) // at once, and something for what follows
	word := func(n int) { b = binary.BigEndian.AppendUint32(b, uint32(n)) }
	word(1)
	nulls := len(b)
	word(0)
	word(int(p.element))
	word(len(list))
	word(1)
	for _, e := range list {
		if bytes, is := any(e).([]byte); is && bytes == nil {
			binary.BigEndian.PutUint32(b[nulls:], 1)
			word(-1)
			continue
		}
		word(len(e))
		b = append(b, e...)
	}
	return b, nil
}
