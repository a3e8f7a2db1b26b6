package store

import (
	"bytes"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"muster/internal/pgtest"
)

// Lists are encoded as pgx encodes them, byte for byte, with nulls and empty ones among them.
func TestQuickLists(t *testing.T) {
	t.Parallel()
	pools, err := OpenPools(t.Context(), pgtest.Database(t, nil), 4)
	must(t, err)
	defer pools.Close()
	conn, err := pools.Write.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	quick, plain := conn.Conn().TypeMap(), pgtype.NewMap()
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.String(), 0, 5).Draw(t, "texts")
		blobs := rapid.SliceOfN(rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 300), rapid.Just([]byte(nil))), 0, 5).Draw(t, "blobs")
		for _, tc := range []struct {
			oid   uint32
			value any
		}{
			{pgtype.TextArrayOID, texts}, {pgtype.TextArrayOID, []string(nil)},
			{pgtype.ByteaArrayOID, blobs}, {pgtype.ByteaArrayOID, [][]byte(nil)},
		} {
			want, err := plain.Encode(tc.oid, pgtype.BinaryFormatCode, tc.value, []byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := quick.Encode(tc.oid, pgtype.BinaryFormatCode, tc.value, []byte("before"))
			if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Fatalf("%#v: %x (%v), want %x", tc.value, got, err, want)
			}
			if _, is := quick.PlanEncode(tc.oid, pgtype.BinaryFormatCode, tc.value).(interface{ quick() }); !is {
				t.Fatalf("%#v takes the long way", tc.value)
			}
		}
	})
}
