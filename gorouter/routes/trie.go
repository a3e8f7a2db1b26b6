package routes

import "math/bits"

// trie is a persistent map from host to V: a hash array mapped trie. The zero trie is empty.
type trie[V any] struct {
	root *branch[V]
	size int
}

const (
	fanBits  = 5
	hashBits = 64
)

// branch has a slot for each bit set in bits.
type branch[V any] struct {
	bits  uint32
	slots []slot[V]
}

// slot holds a branch or a leaf; leaves of equal hashes are chained.
type slot[V any] struct {
	sub  *branch[V]
	leaf *leaf[V]
}

type leaf[V any] struct {
	hash uint64
	key  string
	val  V
	next *leaf[V]
}

// The 64-bit FNV-1a hash, computed here so that a key need not exist as a string.
const (
	hashSeed  uint64 = 14695981039346656037
	hashPrime uint64 = 1099511628211
)

func hashOf[B ~string | ~[]byte](h uint64, key B) uint64 {
	for i := range len(key) {
		h = (h ^ uint64(lower(key[i]))) * hashPrime
	}
	return h
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 0x20
	}
	return c
}

// foldEqual compares any bytes with lower-case ones.
func foldEqual(b []byte, low string) bool {
	if len(b) != len(low) {
		return false
	}
	for i := range b {
		if lower(b[i]) != low[i] {
			return false
		}
	}
	return true
}

// find looks for the key prefix+rest in any case; hash is hashOf it.
func (t trie[V]) find(hash uint64, prefix string, rest []byte) (v V, ok bool) {
	b := t.root
	for shift := 0; b != nil; shift += fanBits {
		bit := uint32(1) << (hash >> shift & (1<<fanBits - 1))
		if b.bits&bit == 0 {
			return v, false
		}
		s := &b.slots[bits.OnesCount32(b.bits&(bit-1))]
		if s.leaf == nil {
			b = s.sub
			continue
		}
		for l := s.leaf; l != nil; l = l.next {
			if l.hash == hash && len(l.key) == len(prefix)+len(rest) && l.key[:len(prefix)] == prefix && foldEqual(rest, l.key[len(prefix):]) {
				return l.val, true
			}
		}
		return v, false
	}
	return v, false
}

// get looks for a lower-case key.
func (t trie[V]) get(key string) (V, bool) {
	return t.find(hashOf(hashSeed, key), key, nil)
}

// with returns the trie with key set to val.
func (t trie[V]) with(key string, val V) trie[V] {
	hash := hashOf(hashSeed, key)
	if _, ok := t.get(key); !ok {
		t.size++
	}
	t.root = t.root.with(&leaf[V]{hash: hash, key: key, val: val}, 0)
	return t
}

func (b *branch[V]) with(l *leaf[V], shift int) *branch[V] {
	if b == nil {
		b = &branch[V]{}
	}
	bit := uint32(1) << (l.hash >> shift & (1<<fanBits - 1))
	at := bits.OnesCount32(b.bits & (bit - 1))
	if b.bits&bit == 0 {
		slots := make([]slot[V], len(b.slots)+1)
		copy(slots, b.slots[:at])
		slots[at].leaf = l
		copy(slots[at+1:], b.slots[at:])
		return &branch[V]{bits: b.bits | bit, slots: slots}
	}
	next := &branch[V]{bits: b.bits, slots: append([]slot[V](nil), b.slots...)}
	s := &next.slots[at]
	switch {
	case s.leaf == nil:
		s.sub = s.sub.with(l, shift+fanBits)
	case s.leaf.hash == l.hash:
		s.leaf = s.leaf.without(l.key)
		l.next = s.leaf
		s.leaf = l
	default: // two hashes meet here: both go one level down, the chain as a whole
		sub := (*branch[V])(nil).with(s.leaf, shift+fanBits)
		*s = slot[V]{sub: sub.with(l, shift+fanBits)}
	}
	return next
}

// without returns a chain without a key, copying what comes before it.
func (l *leaf[V]) without(key string) *leaf[V] {
	if l == nil {
		return nil
	}
	if l.key == key {
		return l.next
	}
	c := *l
	c.next = l.next.without(key)
	return &c
}

// without returns the trie without key.
func (t trie[V]) without(key string) trie[V] {
	if _, ok := t.get(key); !ok {
		return t
	}
	t.size--
	t.root = t.root.without(hashOf(hashSeed, key), key, 0)
	return t
}

func (b *branch[V]) without(hash uint64, key string, shift int) *branch[V] {
	bit := uint32(1) << (hash >> shift & (1<<fanBits - 1))
	at := bits.OnesCount32(b.bits & (bit - 1))
	s := b.slots[at]
	if s.leaf != nil {
		s.leaf = s.leaf.without(key)
	} else {
		s.sub = s.sub.without(hash, key, shift+fanBits)
	}
	if s.leaf != nil || s.sub != nil {
		next := &branch[V]{bits: b.bits, slots: append([]slot[V](nil), b.slots...)}
		next.slots[at] = s
		return next
	}
	if len(b.slots) == 1 {
		return nil
	}
	slots := make([]slot[V], len(b.slots)-1)
	copy(slots, b.slots[:at])
	copy(slots[at:], b.slots[at+1:])
	return &branch[V]{bits: b.bits &^ bit, slots: slots}
}

// each visits every entry in an order that depends on nothing but the keys; it stops when visit
// returns false.
func (t trie[V]) each(visit func(key string, v V) bool) { t.root.each(visit) }

func (b *branch[V]) each(visit func(string, V) bool) bool {
	if b == nil {
		return true
	}
	for _, s := range b.slots {
		for l := s.leaf; l != nil; l = l.next {
			if !visit(l.key, l.val) {
				return false
			}
		}
		if !s.sub.each(visit) {
			return false
		}
	}
	return true
}
