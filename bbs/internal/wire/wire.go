// Package wire turns the messages of bbs.v1 into the types of bbs/lrp, cells and bbs/event, and back.
// It is the only place that does, so that a field added for a client recompiles nothing but this.
//
// For each type there is an EncodeX, which makes a message, and a DecodeX, which reads one. Neither
// can fail: decoding is total, and what a message says that makes no sense is left for validation to
// name. DecodeX(EncodeX(v)) is v, but for empty lists and maps, which come back nil.
//
// The rules of the wire that decoding applies (bbs-wire reference, §2):
//
//   - An absent message is an empty one, where Diego never leaves it out.
//   - An action with several members set has only the one with the lowest number.
//   - An absent routable flag means true.
//   - A list is read packed or not; DesiredLRP.ports and its like are written unpacked.
//   - Times are nanoseconds since the Unix epoch, and 0 is the zero time.
//
// Lists, maps and byte slices are shared between the two sides where their types agree: do not
// change one after using it here.
package wire

import (
	"maps"
	"slices"
	"time"

	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// list turns each element of a list; an empty list becomes nil.
func list[A, B any](in []A, f func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = f(a)
	}
	return out
}

// same returns a list as it is, and an empty one as nil.
func same[S ~[]E, E any](in S) S {
	if len(in) == 0 {
		return nil
	}
	return in
}

// sameMap returns a map as it is, and an empty one as nil.
func sameMap[M ~map[K]V, K comparable, V any](in M) M {
	if len(in) == 0 {
		return nil
	}
	return in
}

// values turns each value of a map; an empty map becomes nil.
func values[K comparable, A, B any](in map[K]A, f func(A) B) map[K]B {
	if len(in) == 0 {
		return nil
	}
	out := make(map[K]B, len(in))
	for k, a := range in {
		out[k] = f(a)
	}
	return out
}

// sortedKeys returns the keys of a map in order, so that equal values make equal bytes.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func encodeTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func decodeTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func encodeTag(t lrp.ModificationTag) *bbsv1.ModificationTag {
	return &bbsv1.ModificationTag{Epoch: t.Epoch, Index: t.Index}
}

func decodeTag(m *bbsv1.ModificationTag) lrp.ModificationTag {
	return lrp.ModificationTag{Epoch: m.GetEpoch(), Index: m.GetIndex()}
}

func encodeEnv(v lrp.EnvVar) *bbsv1.EnvironmentVariable {
	return &bbsv1.EnvironmentVariable{Name: v.Name, Value: v.Value}
}

func decodeEnv(m *bbsv1.EnvironmentVariable) lrp.EnvVar {
	return lrp.EnvVar{Name: m.GetName(), Value: m.GetValue()}
}

func encodeFile(f lrp.File) *bbsv1.File { return &bbsv1.File{Path: f.Path, Content: f.Content} }

func decodeFile(m *bbsv1.File) lrp.File {
	return lrp.File{Path: m.GetPath(), Content: m.GetContent()}
}
